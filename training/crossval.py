"""Cross-validation over what a split holds out whole, paired with the baselines on the same folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lithostream.engine.config import StrictModel
from lithostream.training.baselines import BASELINES, predict_baseline
from lithostream.training.config import FitConfig, SplitConfig
from lithostream.training.data.splits import (
    assign_folds,
    away_from,
    held_out_parts,
    validation_parts,
    validation_splits,
)
from lithostream.training.data.tiles import TileSet
from lithostream.training.fit import fit, predict_tiles
from lithostream.training.metrics import (
    Difference,
    Interval,
    Scores,
    half_width,
    paired_difference,
    score,
    unseen_interval,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

MODEL = "lithostream"


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Predictions of one seed, each row by models that saw neither it nor its neighbours.

    Attributes
    ----------
    fold : int64 [R]
    found : dict of model name to float64 [R, T]
    best_epochs : tuple of int
        Where the network of each fold stopped.
    """

    fold: Ints
    found: dict[str, Floats]
    best_epochs: tuple[int, ...] = ()


class TargetReport(StrictModel):
    """Cross-validation of one property.

    Attributes
    ----------
    scores : dict of model name to Scores
        Mean over seeds of the pooled out-of-fold scores.
    r2_per_seed : dict of model name to list of float
    r2_gain : dict of baseline name to Difference
        Paired over seeds: the network less the baseline.
    half_width_90 : float
        Of a row's value, from all out-of-fold residuals of the network.
    coverage_90 : float
        Share of readings inside, each fold judged by the others' half width.
    intervals : dict of model name to Interval
        Each model's own split-conformal interval, each fold judged by the others; mean over seeds.
        Empty in checkpoints older than these scores.
    better_baseline : str, optional
        The baseline of the higher mean R2: the gain that counts is the one on it.
    leaky : bool
        Single rows were held out, and their neighbours trained on: the scores say nothing about unseen depth.
    """

    scores: dict[str, Scores]
    r2_per_seed: dict[str, list[float]]
    r2_gain: dict[str, Difference]
    half_width_90: float
    coverage_90: float
    intervals: dict[str, Interval] = Field(default_factory=dict)
    better_baseline: str | None = None
    leaky: bool = False


def cross_validate(
    tiles: TileSet, config: FitConfig, split: SplitConfig, seed: int, on_fold: Callable[[], None]
) -> OutOfFold:
    """Predict each row by a network and by baselines fitted away from it.

    The baselines train on the same rows.
    """
    fold = _folds(tiles, split, seed)
    out = baseline_folds(tiles, split, seed)
    found, stops = np.full(tiles.labels.shape, np.nan), []
    for k in range(split.folds):
        held = fold == k
        allowed = away_from(tiles, held, split.gap_cm)
        parts = validation_parts(tiles, split, allowed)
        splits = validation_splits(tiles, allowed, parts, split.gap_cm, config.validations, seed)
        fitted = fit(tiles, allowed, splits, config, seed * split.folds + k)
        part = tiles.of_rows(held)
        found[held] = part.row_mean(predict_tiles(fitted.model, part).properties)
        stops.append(fitted.best_epoch)
        on_fold()
    return OutOfFold(fold, {MODEL: found} | out.found, tuple(stops))


def baseline_folds(tiles: TileSet, split: SplitConfig, seed: int) -> OutOfFold:
    """Out-of-fold predictions of the baselines alone."""
    fold = _folds(tiles, split, seed)
    found = {name: np.full(tiles.labels.shape, np.nan) for name in BASELINES}
    for k in range(split.folds):
        held = fold == k
        allowed = away_from(tiles, held, split.gap_cm)
        for name in BASELINES:
            found[name][held] = predict_baseline(name, tiles, allowed, seed)[held]
    return OutOfFold(fold, found)


def report_target(
    tiles: TileSet, target: int, runs: Sequence[OutOfFold], *, leaky: bool = False
) -> TargetReport:
    """Score one property over the seeds, against readings alone."""
    measured = tiles.measured[:, target]
    per_seed = {
        name: [score(run.found[name][:, target], measured) for run in runs] for name in (MODEL, *BASELINES)
    }
    r2 = {name: [one.r2 for one in scores] for name, scores in per_seed.items()}
    residuals = [run.found[MODEL][:, target] - measured for run in runs]
    intervals = {name: _interval(runs, name, target, measured) for name in per_seed}
    return TargetReport(
        scores={name: Scores.mean(scores) for name, scores in per_seed.items()},
        r2_per_seed=r2,
        r2_gain={name: paired_difference(r2[MODEL], r2[name]) for name in BASELINES},
        half_width_90=half_width(np.concatenate(residuals)),
        coverage_90=intervals[MODEL].coverage,
        intervals=intervals,
        better_baseline=max(BASELINES, key=lambda name: float(np.mean(r2[name]))),
        leaky=leaky,
    )


def _interval(runs: Sequence[OutOfFold], name: str, target: int, measured: Floats) -> Interval:
    return Interval.mean([unseen_interval(run.found[name][:, target] - measured, run.fold) for run in runs])


def _folds(tiles: TileSet, split: SplitConfig, seed: int) -> Ints:
    return assign_folds(held_out_parts(tiles, split), split.folds, seed)
