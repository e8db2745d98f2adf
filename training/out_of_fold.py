"""Predictions of rows by models that saw neither them nor their neighbours."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.depth_model import widened
from lithostream.training.baselines import BASELINES, predict_baseline
from lithostream.training.config import SplitConfig
from lithostream.training.data.profile import Rows, in_profile, on_scale
from lithostream.training.data.splits import assign_folds, away_from, check_measured, held_out_parts
from lithostream.training.depth import fit_depth_model, predict_profile

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Predictions of one seed, on the scale that targets are scored on.

    Attributes
    ----------
    fold : int64 [R]
    found : dict of model name to float64 [R, T]
    spread : dict of model name to float64 [R, T]
        What a model's interval is proportional to; a model without has intervals of constant width.
    distance : dict of model name to float64 [R]
        From the training rows, of models that have a spread.
    best_epochs : tuple of int
        Where the network of each fold stopped.
    """

    fold: Ints
    found: dict[str, Floats]
    spread: dict[str, Floats] = field(default_factory=dict)
    distance: dict[str, Floats] = field(default_factory=dict)
    best_epochs: tuple[int, ...] = ()

    def joined(self, other: "OutOfFold") -> "OutOfFold":
        """Put the models of another one, of the same folds, after these."""
        return OutOfFold(
            self.fold,
            self.found | other.found,
            self.spread | other.spread,
            self.distance | other.distance,
            self.best_epochs + other.best_epochs,
        )


def folds_of(rows: Rows, split: SplitConfig, seed: int) -> Ints:
    """Fold of each row, int64 [R]."""
    return assign_folds(held_out_parts(rows, split), split.folds, seed)


def baseline_folds(rows: Rows, split: SplitConfig, seed: int, logarithmic: Bools) -> OutOfFold:
    """Predict by baselines, those on the `logarithmic` [T] scale."""
    fold = folds_of(rows, split, seed)
    found = {name: np.full(rows.labels.shape, np.nan) for name in BASELINES}
    for k in range(split.folds):
        held = fold == k
        allowed = away_from(rows, held, split.gap_cm)
        for name in BASELINES:
            found[name][held] = predict_baseline(name, rows, allowed, seed, logarithmic)[held]
    return OutOfFold(fold, found)


def depth_folds(name: str, rows: Rows, split: SplitConfig, seed: int, logarithmic: Bools) -> OutOfFold:
    """Predict by depth models, filed under `name`."""
    fold, at = folds_of(rows, split, seed), in_profile(rows)
    found, spread = np.full((2, *rows.labels.shape), np.nan)
    distance = np.full(len(rows.labels), np.nan)
    for k in range(split.folds):
        held = fold == k
        allowed = away_from(rows, held, split.gap_cm)
        check_measured(rows, allowed, logarithmic)
        model = fit_depth_model(rows.profile, at[allowed], rows.labels[allowed], logarithmic)
        seen = predict_profile(model, rows.profile)
        found[held] = on_scale(seen.value[at[held]], logarithmic)
        spread[held] = seen.spread[at[held]] / model.label_std
        distance[held] = seen.distance[at[held]]
    # In deviations of all labels: in its own, a fold that holds out the extremes would call itself the surest.
    spread *= np.nanstd(on_scale(rows.labels, logarithmic), axis=0)
    return OutOfFold(fold, {name: found}, {name: spread}, {name: distance})


def spread_limit(distance: Floats) -> float:
    """Distance that no held-out row [n] of a known core reaches beyond.

    A core whose colours are known but mean another property cannot be told from a known one.
    """
    return float(distance.max())


def unseen_spread(run: OutOfFold, name: str, label_std: Floats) -> tuple[Floats, Bools]:
    """Spread [R, T] of a model that has one, widened in strange rows, and which rows these are, bool [R].

    Each fold is judged by the distances of the others, as a run's rows are by those of held-out ones.
    """
    spread, distance = run.spread[name].copy(), run.distance[name]
    strange = np.zeros(len(distance), np.bool_)
    for k in np.unique(run.fold):
        held = run.fold == k
        limit = spread_limit(distance[~held])
        spread[held] = widened(spread[held], distance[held], limit, label_std)
        strange[held] = distance[held] > limit
    return spread, strange
