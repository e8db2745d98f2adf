"""What a score is worth: ranking, calibration, the threshold, and intervals over repeats."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata, t
from sklearn.metrics import average_precision_score, roc_auc_score

from lithostream.training.transfer.tables import Floats, Integers

BINS = 10
METRICS = ("auc", "average_precision", "balanced_accuracy", "f1", "brier", "calibration_error")


class Calibration(NamedTuple):
    """Platt's sigmoid: probability = sigmoid(slope * score + intercept)."""

    slope: float
    intercept: float

    def __call__(self, score: Floats) -> Floats:
        """Return probabilities, float64 of the shape of `score`."""
        probability: Floats = 1 / (1 + np.exp(-np.clip(self.slope * score + self.intercept, -500, 500)))
        return probability


def fit_calibration(score: Floats, labels: Integers) -> Calibration:
    """Fit Platt's sigmoid to scores of unseen rows, with his targets that stay off 0 and 1 (Platt 1999, section 2.2).

    A slope is not negative: a model that ranks unseen rows upside down is given the same probability everywhere.
    """
    count = np.bincount(labels, minlength=2)
    wanted = np.where(labels == 1, (count[1] + 1) / (count[1] + 2), 1 / (count[0] + 2))
    middle, spread = score.mean(), max(float(score.std()), 1e-12)
    standard = (score - middle) / spread

    def loss(at: Floats) -> tuple[float, Floats]:
        logit = at[0] * standard + at[1]
        gap = 1 / (1 + np.exp(-logit)) - wanted
        value = float((np.logaddexp(0, logit) - wanted * logit).sum())
        return value, np.array([gap @ standard, gap.sum()])

    start = np.array([1.0, np.log((count[1] + 1) / (count[0] + 1))])
    slope, intercept = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    return Calibration(float(slope / spread), float(intercept - slope * middle / spread))


def best_threshold(probability: Floats, labels: Integers) -> float:
    """Return the threshold of the largest balanced accuracy, half way between two probabilities."""
    order = np.unique(probability)
    if len(order) < 2:
        return 0.5
    cuts = (order[1:] + order[:-1]) / 2
    right = (probability[None] >= cuts[:, None]) == (labels[None] == 1)
    balanced = (right[:, labels == 1].mean(axis=1) + right[:, labels == 0].mean(axis=1)) / 2
    return float(np.clip(cuts[balanced.argmax()], 1e-6, 1 - 1e-6))


def ranking(score: Floats, labels: Integers) -> dict[str, float]:
    """Return the metrics that need an order alone."""
    return {
        "auc": float(roc_auc_score(labels, score)),
        "average_precision": float(average_precision_score(labels, score)),
    }


def evaluate(probability: Floats, called: Integers, labels: Integers) -> dict[str, float]:
    """Return the metrics of probabilities and of the rows that were called deposits with them."""
    hit, call, true = int((called & labels).sum()), int(called.sum()), int(labels.sum())
    specificity = float((called[labels == 0] == 0).mean())
    return {
        "balanced_accuracy": (hit / true + specificity) / 2,
        "f1": 2 * hit / (call + true),
        "brier": float(((probability - labels) ** 2).mean()),
        "calibration_error": calibration_error(probability, labels),
    }


def calibration_error(probability: Floats, labels: Integers) -> float:
    """Mean gap between probability and frequency, over bins of as many rows each."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    gaps = [abs(probability[part].mean() - labels[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(labels))


def ranks(score: Floats) -> Floats:
    """Return ranks from 0 to 1 within the last axis."""
    ranked: Floats = rankdata(score, axis=-1) / score.shape[-1]
    return ranked


class Interval(NamedTuple):
    """A mean over repeats and its 95 % interval (Student's t).

    The repeats share their rows: the interval is that of another partition of these rows, not of other rows.
    """

    mean: float
    low: float
    high: float


def interval(values: Floats) -> Interval:
    """Return the mean of values [R], R >= 2, and its interval."""
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)
