"""Tables for a person: one per property, so that they fit a terminal."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lithostream.engine.core.targets import TARGETS
from lithostream.training.crossval import MODEL, TargetReport
from lithostream.training.metrics import Difference, Scores


def cross_validation_table(target: str, report: TargetReport) -> Table:
    """Out-of-fold scores of the network beside its baselines, and what it gains in R2 on each."""
    gains = {name: _gain(gain) for name, gain in report.r2_gain.items()}
    return _table(
        target,
        report.scores,
        ("90 % (coverage)", _interval(report.half_width_90, report.coverage_90)),
        ("R2 gain (95 %)", gains),
    )


def evaluation_table(
    target: str, scores: Mapping[str, Scores], half_width_90: float, coverage_90: float
) -> Table:
    """Scores of a bundle beside baselines fitted to the same data."""
    return _table(target, scores, ("90 % (coverage)", _interval(half_width_90, coverage_90)))


def _table(target: str, scores: Mapping[str, Scores], *extra: tuple[str, str | dict[str, str]]) -> Table:
    """One row per model; an extra column is text for the network, or text by model."""
    known = TARGETS[target]
    title = f"{known.label}, {known.unit}: {scores[MODEL].rows} rows"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model")
    for column in ("R2", "RMSE", "MAE", *(head for head, _ in extra)):
        table.add_column(column, justify="right")
    for name, one in scores.items():
        last = [text.get(name, "") if isinstance(text, dict) else text * (name == MODEL) for _, text in extra]
        table.add_row(name.replace("_", " "), f"{one.r2:.3f}", f"{one.rmse:.3g}", f"{one.mae:.3g}", *last)
    return table


def _gain(gain: Difference) -> str:
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.2f}"
    return f"{gain.mean:+.2f} [{gain.low:.2f}, {gain.high:.2f}]"


def _interval(half_width_90: float, coverage_90: float) -> str:
    return f"± {half_width_90:.3g} ({100 * coverage_90:.0f} %)"
