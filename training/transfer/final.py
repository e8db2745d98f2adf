"""The model that ships: the members of the folds together, with one calibration, one threshold and one distance."""

from dataclasses import dataclass

import numpy as np

from lithostream.training.transfer.blocks import Repeat
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import Study
from lithostream.training.transfer.features import extended_rows
from lithostream.training.transfer.protocol import (
    ENSEMBLE,
    SEED,
    Member,
    fit_model,
    located_part,
    pretext_masks,
)
from lithostream.training.transfer.scores import Calibration, best_threshold, fit_calibration
from lithostream.training.transfer.tables import Floats

DISTANCE_QUANTILE = 0.99  # of the training rows: what lies further out is unknown ground
RIDGE = 1e-6  # on the diagonal of the correlation of predictors, should two be the same


@dataclass(frozen=True, slots=True)
class Final:
    """A model of all located rows.

    Attributes
    ----------
    name : str
    members : tuple of M members
        Of every fold.
    weights : float64 [M]
        Of the members' scores in the mean, sum 1.
    calibration : Calibration
        Of the mean score, from rows that the scoring members had not seen.
    threshold : float
        Of the largest balanced accuracy there.
    folds : tuple of tuple of members
        The same members by the fold that they have not seen.
    """

    name: str
    members: tuple[Member, ...]
    weights: Floats
    calibration: Calibration
    threshold: float
    folds: tuple[tuple[Member, ...], ...]

    def fold_score(self, fold: int, extended: Floats) -> Floats:
        """Score rows [N, P + L] by the members that have not seen a fold, float64 [N]."""
        members = self.folds[fold]
        scores = np.array([member.score(extended) for member in members])
        score: Floats = self.weights[: len(members)] * len(self.folds) @ scores
        return score

    def predict(self, extended: Floats) -> tuple[Floats, Floats]:
        """Return probability and its standard deviation between members for rows [N, P + L], float64 [N] each."""
        scores = np.array([member.score(extended) for member in self.members])
        probability = self.calibration(self.weights @ scores)
        each = self.calibration(scores)
        mean = self.weights @ each
        return probability, np.sqrt(self.weights @ (each - mean) ** 2)


@dataclass(frozen=True, slots=True)
class Distance:
    """Mahalanobis distance from the training rows: |(x - mean) @ matrix|.

    Attributes
    ----------
    mean : float64 [P]
    matrix : float64 [P, P]
    limit : float
    """

    mean: Floats
    matrix: Floats
    limit: float

    def __call__(self, raw: Floats) -> Floats:
        """Distance of rows [N, P], float64 [N]."""
        distance: Floats = np.linalg.norm((raw - self.mean) @ self.matrix, axis=1)
        return distance


def fit_distance(raw: Floats) -> Distance:
    """Fit the distance to rows [N, P]."""
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    standard = (raw - mean) / spread
    variance, axes = np.linalg.eigh(standard.T @ standard / len(raw) + RIDGE * np.eye(raw.shape[1]))
    matrix = axes / np.sqrt(variance) / spread[:, None]
    distances = np.linalg.norm((raw - mean) @ matrix, axis=1)
    return Distance(mean, matrix, float(np.quantile(distances, DISTANCE_QUANTILE)))


def fit_final(study: Study, config: TransferConfig) -> tuple[dict[str, Final], Repeat]:
    """Fit every model to the located rows: a member, or as many as a net has, for each fold of one partition."""
    part = located_part(study, config)
    (repeat,) = part.repeats
    rows = extended_rows(study, config).part(part.rows)
    near = pretext_masks(study, part.rows, repeat, config.blocks.buffer_m, inner=False)
    folds = {
        name: [tuple(own) for own in fit_model(name, config, rows, repeat.outer, near, SEED)]
        for name in (*config.baselines.by_name(), *config.nets)
    }
    folds[ENSEMBLE] = [
        deep + forest for deep, forest in zip(folds[config.deep], folds["random_forest"], strict=True)
    ]
    finals = {}
    for name, own in folds.items():
        weights = _weights(own[0], halves=name == ENSEMBLE)
        unseen = np.empty(len(part.rows))
        for held, members in zip(repeat.held, own, strict=True):
            scores = np.array([member.score(rows.extended[held]) for member in members])
            unseen[held] = weights @ scores
        calibration = fit_calibration(unseen, rows.labels)
        threshold = best_threshold(calibration(unseen), rows.labels)
        finals[name] = Final(
            name,
            tuple(member for members in own for member in members),
            np.tile(weights, len(own)) / len(own),
            calibration,
            threshold,
            tuple(own),
        )
    return finals, repeat


def _weights(members: tuple[Member, ...], *, halves: bool) -> Floats:
    """Weights of the members of a fold: equal, or half for the nets and half for the forest behind them."""
    if not halves:
        return np.full(len(members), 1 / len(members))
    return np.array([0.5 / (len(members) - 1)] * (len(members) - 1) + [0.5])
