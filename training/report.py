"""What cross-validation says of one property, and how wide its interval has to be."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lithostream.engine.config import StrictModel
from lithostream.training.baselines import BASELINES
from lithostream.training.data.profile import Rows, on_scale
from lithostream.training.data.splits import cores
from lithostream.training.metrics import (
    Difference,
    Interval,
    Scores,
    half_width,
    interval,
    paired_difference,
    score,
    unseen_factors,
)
from lithostream.training.out_of_fold import OutOfFold, spread_limit, unseen_spread

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MODEL = "lithostream"
LEAST_PAIRS = 20  # rows with readings of two properties, to know how their errors go together
MOST_CORRELATION = 0.95


class CoreReport(StrictModel):
    """One core among several: R2 by model, the share of readings inside our interval, and of rows flagged as strange."""

    r2: dict[str, float]
    coverage: float
    strange: float


class TargetReport(StrictModel):
    """Cross-validation of one property.

    Attributes
    ----------
    scores : dict of model name to Scores
        Mean over seeds of the pooled out-of-fold scores; `lithostream` is what a run gives for a row.
    r2_per_seed : dict of model name to list of float
    r2_gain : dict of baseline name to Difference
        Paired over seeds: ours less the baseline.
    half_width_90 : float
        Of a row's value in the unit of the property, from all of our out-of-fold residuals.
    coverage_90 : float
        Share of readings inside our interval, each fold judged by the others.
    intervals : dict of model name to Interval
        Each model's own split-conformal interval, each fold judged by the others; mean over seeds.
        Empty in checkpoints older than these scores.
    better_baseline : str, optional
        The baseline of the higher mean R2: the gain that counts is the one on it.
    leaky : bool
        Single rows were held out, and their neighbours trained on: the scores say nothing about unseen depth.
    logarithmic : bool
        All but `half_width_90` is of the natural logarithm of the property.
    cores : dict of first section's name to CoreReport
        Where there are several cores.
    """

    scores: dict[str, Scores]
    r2_per_seed: dict[str, list[float]]
    r2_gain: dict[str, Difference]
    half_width_90: float
    coverage_90: float
    intervals: dict[str, Interval] = Field(default_factory=dict)
    better_baseline: str | None = None
    leaky: bool = False
    logarithmic: bool = False
    cores: dict[str, CoreReport] = Field(default_factory=dict)


def report_target(
    rows: Rows, target: int, runs: Sequence[OutOfFold], logarithmic: Bools, *, leaky: bool = False
) -> TargetReport:
    """Score one property over the seeds, against readings alone.

    Parameters
    ----------
    rows : Rows
    target : int
        Its column.
    runs : sequence of OutOfFold
        One per seed, each with the model `MODEL` and the baselines.
    logarithmic : bool [T]
        Targets that the runs give as logarithms.
    leaky : bool
        Of the split.
    """
    measured = on_scale(rows.measured, logarithmic)[:, target]
    names = list(runs[0].found)
    per_seed = {name: [score(run.found[name][:, target], measured) for run in runs] for name in names}
    r2 = {name: [one.r2 for one in scores] for name, scores in per_seed.items()}
    half_widths = {
        name: [_half_widths(rows, run, name, target, logarithmic) for run in runs] for name in names
    }
    intervals = {
        name: Interval.mean(
            [
                interval(run.found[name][:, target] - measured, width)
                for run, width in zip(runs, half_widths[name], strict=True)
            ]
        )
        for name in names
    }
    return TargetReport(
        scores={name: Scores.mean(scores) for name, scores in per_seed.items()},
        r2_per_seed=r2,
        r2_gain={name: paired_difference(r2[MODEL], r2[name]) for name in BASELINES},
        half_width_90=_half_width_in_units(rows, target, runs, bool(logarithmic[target])),
        coverage_90=intervals[MODEL].coverage,
        intervals=intervals,
        better_baseline=max(BASELINES, key=lambda name: float(np.mean(r2[name]))),
        leaky=leaky,
        logarithmic=bool(logarithmic[target]),
        cores=_per_core(rows, target, runs, measured, half_widths[MODEL], logarithmic),
    )


def calibration(rows: Rows, runs: Sequence[OutOfFold], logarithmic: Bools) -> tuple[Floats, float]:
    """Interval factor [T] and distance limit of the depth model behind `MODEL`, from all held-out rows."""
    limit = spread_limit(np.concatenate([run.distance[MODEL] for run in runs]))
    measured = on_scale(rows.measured, logarithmic)
    scaled = [(run.found[MODEL] - measured) / run.spread[MODEL] for run in runs]
    return np.array([half_width(one) for one in np.concatenate(scaled).T]), limit


def error_correlation(
    rows: Rows, runs: Sequence[OutOfFold], logarithmic: Bools
) -> tuple[tuple[float, ...], ...]:
    """Correlation [T, T] of our out-of-fold residuals, in the units of the properties, over readings of both.

    They are predicted from the same pixels, and err together. Where fewer than `LEAST_PAIRS` rows have both, none is known;
    it is kept within `MOST_CORRELATION`, so that it can be inverted.
    """
    found = [np.where(logarithmic, np.exp(run.found[MODEL] * logarithmic), run.found[MODEL]) for run in runs]
    residuals = np.concatenate([one - rows.measured for one in found])
    count = residuals.shape[1]
    matrix = np.eye(count)
    for first in range(count):
        for second in range(first):
            both = residuals[np.isfinite(residuals[:, [first, second]]).all(axis=1)][:, [first, second]]
            if len(both) >= LEAST_PAIRS * len(runs) and (both.std(axis=0) > 0).all():
                value = np.corrcoef(both.T)[0, 1].clip(-MOST_CORRELATION, MOST_CORRELATION)
                matrix[first, second] = matrix[second, first] = value
    lowest = np.linalg.eigvalsh(matrix)[0]
    if lowest < 1 - MOST_CORRELATION:  # pairs of different rows need not agree with one another
        share = MOST_CORRELATION / (1 - lowest)
        matrix = share * matrix + (1 - share) * np.eye(count)
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _half_widths(rows: Rows, run: OutOfFold, name: str, target: int, logarithmic: Bools) -> Floats:
    """Half width of a model's interval in each row [R], as the other folds support it."""
    residuals = run.found[name][:, target] - on_scale(rows.measured, logarithmic)[:, target]
    if name not in run.spread:
        return unseen_factors(residuals, np.ones(len(residuals)), run.fold)
    # The factor is of rows that are not strange: what widens an interval must not narrow the others.
    factor = unseen_factors(residuals, run.spread[name][:, target], run.fold)
    return factor * unseen_spread(run, name, _label_std(rows, logarithmic))[0][:, target]


def _half_width_in_units(rows: Rows, target: int, runs: Sequence[OutOfFold], logarithmic: bool) -> float:
    found = [
        np.exp(run.found[MODEL][:, target]) if logarithmic else run.found[MODEL][:, target] for run in runs
    ]
    return half_width(np.concatenate([one - rows.measured[:, target] for one in found]))


def _per_core(
    rows: Rows,
    target: int,
    runs: Sequence[OutOfFold],
    measured: Floats,
    half_widths: Sequence[Floats],
    logarithmic: Bools,
) -> dict[str, CoreReport]:
    core = cores(rows)
    numbers = np.unique(core[np.isfinite(measured)])
    if len(numbers) < 2:
        return {}
    strange = [_strange(rows, run, logarithmic) for run in runs]
    result = {}
    for number in numbers:
        here = core == number
        gaps = [run.found[MODEL][here, target] - measured[here] for run in runs]
        inside = [interval(gap, width[here]).coverage for gap, width in zip(gaps, half_widths, strict=True)]
        result[rows.sections[int(rows.section[here][0])].name] = CoreReport(
            r2={
                name: float(
                    np.mean([score(run.found[name][here, target], measured[here]).r2 for run in runs])
                )
                for name in runs[0].found
            },
            coverage=float(np.mean(inside)),
            strange=float(np.mean([flags[here].mean() for flags in strange])),
        )
    return result


def _strange(rows: Rows, run: OutOfFold, logarithmic: Bools) -> Bools:
    if MODEL not in run.distance:
        return np.zeros(len(rows.labels), np.bool_)
    return unseen_spread(run, MODEL, _label_std(rows, logarithmic))[1]


def _label_std(rows: Rows, logarithmic: Bools) -> Floats:
    return np.asarray(np.nanstd(on_scale(rows.labels, logarithmic), axis=0))
