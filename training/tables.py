"""Tables for a person: one per property, so that they fit a terminal."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lithostream.engine.core.targets import TARGETS
from lithostream.training.metrics import Difference, Interval, Scores
from lithostream.training.report import MODEL, TargetReport


def cross_validation_table(target: str, report: TargetReport, split: str = "") -> Table:
    """Out-of-fold scores of our models beside the baselines, and what ours gains in R2 on each."""
    gains = {name: _gain(gain) for name, gain in report.r2_gain.items()}
    columns = (*_interval_columns(report.intervals), ("R2 gain (95 %)", gains))
    table = _table(target, report.scores, *columns, logarithmic=report.logarithmic, remark=split)
    if report.better_baseline is not None:
        better = report.better_baseline
        table.caption = f"R2 gain on the better baseline ({better.replace('_', ' ')}): {gains[better]}"
        table.caption_justify = "left"
    return table


def by_core_table(target: str, report: TargetReport) -> Table:
    """R2 core by core of every model, and how our interval and our flag fared there."""
    table = Table(
        title=f"{_quantity(target, report.logarithmic)}, by core", title_justify="left", box=SIMPLE_HEAD
    )
    models = list(next(iter(report.cores.values())).r2)
    for head in ("core", *(f"R2 {name.replace('_', ' ')}" for name in models), "coverage", "flagged"):
        table.add_column(head, justify="left" if head == "core" else "right")
    for name, core in report.cores.items():
        r2 = (f"{core.r2[model]:.2f}" for model in models)
        table.add_row(name, *r2, f"{100 * core.coverage:.0f} %", f"{100 * core.strange:.0f} %")
    return table


def evaluation_table(
    target: str,
    scores: Mapping[str, Scores],
    intervals: Mapping[str, Interval],
    split: str,
    *,
    logarithmic: bool,
) -> Table:
    """Scores of a bundle beside baselines fitted to the same data."""
    return _table(target, scores, *_interval_columns(intervals), logarithmic=logarithmic, remark=split)


def core_table(target: str, scores: Mapping[str, Scores], *, logarithmic: bool) -> Table:
    """Scores of the bundle core by core."""
    table = Table(title=f"{_quantity(target, logarithmic)}, by core", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("core")
    for head in ("rows", "R2", "RMSE", "MAE"):
        table.add_column(head, justify="right")
    for name, one in scores.items():
        table.add_row(name, str(one.rows), f"{one.r2:.3f}", f"{one.rmse:.3g}", f"{one.mae:.3g}")
    return table


def _table(
    target: str,
    scores: Mapping[str, Scores],
    *extra: tuple[str, dict[str, str]],
    logarithmic: bool,
    remark: str = "",
) -> Table:
    """One row per model; an extra column is text by model."""
    title = f"{_quantity(target, logarithmic)}: {scores[MODEL].rows} rows{remark and f'; {remark}'}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model")
    for column in ("R2", "RMSE", "MAE", *(head for head, _ in extra)):
        table.add_column(column, justify="right")
    for name, one in scores.items():
        last = [text.get(name, "") for _, text in extra]
        table.add_row(name.replace("_", " "), f"{one.r2:.3f}", f"{one.rmse:.3g}", f"{one.mae:.3g}", *last)
    return table


def _quantity(target: str, logarithmic: bool) -> str:
    known = TARGETS[target]
    return f"ln {known.label} in {known.unit}" if logarithmic else f"{known.label}, {known.unit}"


def _gain(gain: Difference) -> str:
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.2f}"
    return f"{gain.mean:+.2f} [{gain.low:.2f}, {gain.high:.2f}]"


def _interval_columns(intervals: Mapping[str, Interval]) -> tuple[tuple[str, dict[str, str]], ...]:
    bands = {name: f"± {one.half_width:.3g} ({100 * one.coverage:.0f} %)" for name, one in intervals.items()}
    scores = {name: f"{one.score:.3g}" for name, one in intervals.items()}
    return ("90 % (coverage)", bands), ("interval score", scores)
