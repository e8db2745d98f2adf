"""The table of the study: published against ours, then every model under the honest protocol."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from lithostream.engine.config import StrictModel
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import Study
from lithostream.training.transfer.protocol import Part, Scores, judge
from lithostream.training.transfer.published import Figures
from lithostream.training.transfer.scores import METRICS, Interval, interval
from lithostream.training.transfer.tables import Floats

RIVALS = ("random_forest", "svm", "logistic")
JUDGED = ("auc", "average_precision")
SPREADS = 2.0  # standard errors, of seeds and of rows together, within which two figures agree


class Reproduced(StrictModel):
    """One figure of the published study beside ours, over seeds.

    Attributes
    ----------
    published : float or None
    mean, low, high : float
        Of our seeds: mean, least and most.
    agrees : bool or None
        Whether the published figure is within two standard errors, of seeds and of rows together.
    """

    published: float | None
    mean: float
    low: float
    high: float
    agrees: bool | None


class Compared(StrictModel):
    """The deep model against the best of random forest, SVM and logistic regression, in pairs over repeats."""

    rival: str
    gain: tuple[float, float, float]


class Experiment(StrictModel):
    """One experiment under the honest protocol; each metric as mean, low and high of the 95 % interval over repeats."""

    deposits: int
    rows: int
    deposits_with_place: int
    rows_with_place: int
    repeats: int
    models: dict[str, dict[str, tuple[float, float, float]]]
    deep_against_best: dict[str, Compared]


class Table(StrictModel):
    """`table.json`."""

    notes: tuple[str, ...]
    protocol: str
    published: dict[str, dict[str, Reproduced]]
    experiments: dict[str, Experiment]
    winner: str
    deep: str
    deep_holds: bool
    importance: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)


def compare_published(
    figures: Figures, config: TransferConfig, study: Study
) -> dict[str, dict[str, Reproduced]]:
    """Put the published figures beside ours."""
    reference = {} if config.published is None else config.published.reference
    return {
        model: {
            metric: _reproduced(np.array(values), reference.get(model, {}).get(metric), metric, study)
            for metric, values in of_model.items()
        }
        for model, of_model in figures.items()
    }


def _reproduced(values: Floats, published: float | None, metric: str, study: Study) -> Reproduced:
    mean = float(values.mean())
    agrees = None
    if published is not None:
        count = len(study.labels)
        if metric.endswith("auc"):  # the variance is at most that of the smaller class alone
            count = min(int(study.labels.sum()), count - int(study.labels.sum()))
        error = np.sqrt(values.var(ddof=1) + published * (1 - published) / count)
        agrees = bool(abs(mean - published) <= SPREADS * error)
    return Reproduced(
        published=published, mean=mean, low=float(values.min()), high=float(values.max()), agrees=agrees
    )


def experiment_of(part: Part, scores: dict[str, Scores], study: Study, config: TransferConfig) -> Experiment:
    """Judge all models on one experiment."""
    labels = study.labels[part.rows]
    found = {name: judge(own, part, labels) for name, own in scores.items()}
    every = study.experiments[part.name]
    return Experiment(
        deposits=int(study.labels[every].sum()),
        rows=len(every),
        deposits_with_place=int(labels.sum()),
        rows_with_place=len(labels),
        repeats=len(part.repeats),
        models={
            name: {metric: interval(values) for metric, values in own.items()} for name, own in found.items()
        },
        deep_against_best={metric: _against(found, metric, config.deep) for metric in JUDGED},
    )


def _against(found: dict[str, dict[str, Floats]], metric: str, deep: str) -> Compared:
    rival = max(RIVALS, key=lambda name: float(found[name][metric].mean()))
    return Compared(rival=rival, gain=interval(found[deep][metric] - found[rival][metric]))


def winner(ends: Sequence[Experiment]) -> str:
    """Return the model with the largest mean of AUC and average precision, over the first and the last experiment."""
    names = [name for name in ends[0].models if all(name in one.models for one in ends)]
    return max(
        names,
        key=lambda name: sum(one.models[name][metric][0] for one in ends for metric in JUDGED),
    )


def as_text(table: Table) -> str:
    """Write the table in Markdown."""
    lines = ["# Transfer learning for prospectivity", "", *(f"- {note}" for note in table.notes), ""]
    if table.published:
        lines += [
            "## As published: nothing held out, so these figures say nothing about unseen ground",
            "",
            "| model | figure | published | ours, mean [least, most] over seeds | agrees |",
            "|---|---|---|---|---|",
        ]
        for model, metrics in table.published.items():
            for metric, one in metrics.items():
                published = "" if one.published is None else f"{one.published:.4f}"
                agrees = {None: "", True: "yes", False: "**no**"}[one.agrees]
                ours = f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]"
                lines.append(f"| {model} | {metric} | {published} | {ours} | {agrees} |")
    lines += ["", "## Held out in space", "", table.protocol, ""]
    for name, experiment in table.experiments.items():
        lines += _experiment_lines(name, experiment, table.deep)
    reaches = "reaches" if table.deep_holds else "**does not reach**"
    verdict = (
        f"{table.deep} {reaches} the best of {', '.join(RIVALS)} in mean AUC and average precision on the first and the"
        " last experiment."
    )
    chosen = (
        f"Bundle by default: **{table.winner}**, the largest mean of AUC and average precision over the first and the"
        " last experiment."
    )
    lines += [chosen, "", verdict, ""]
    for model, kinds in table.importance.items():
        lines += [f"## What {model} leans on: loss of AUC when permuted on unseen rows", ""]
        for kind, losses in kinds.items():
            ordered = sorted(losses.items(), key=lambda item: -item[1])
            lines.append(f"- {kind}: " + ", ".join(f"{name} {loss:+.3f}" for name, loss in ordered))
        lines.append("")
    return "\n".join(lines) + "\n"


def _experiment_lines(name: str, experiment: Experiment, deep: str) -> list[str]:
    metrics = [metric for metric in METRICS if metric in next(iter(experiment.models.values()))]
    heading = (
        f"### {name}: {experiment.deposits} deposits of {experiment.rows} rows"
        f" ({experiment.deposits_with_place} of {experiment.rows_with_place} with a place), {experiment.repeats} repeats"
    )
    lines = [heading, "", "| model | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for model, found in experiment.models.items():
        cells = (Interval(*found[metric]) for metric in metrics)
        text = " | ".join(f"{cell.mean:.3f} [{cell.low:.3f}, {cell.high:.3f}]" for cell in cells)
        lines.append(f"| {f'**{model}**' if model == deep else model} | {text} |")
    lines.append("")
    for metric, compared in experiment.deep_against_best.items():
        gain = Interval(*compared.gain)
        lines.append(
            f"- {metric}: {deep} against {compared.rival} {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        )
    return [*lines, ""]
