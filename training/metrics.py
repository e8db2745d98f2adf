"""Scores of predictions against readings, and intervals that held-out residuals support."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from lithostream.engine.config import StrictModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COVERAGE = 0.9


class Scores(StrictModel):
    """Errors in the unit of the property; `r2` is 1 - residual over total sum of squares."""

    rows: int
    r2: float
    rmse: float
    mae: float

    @classmethod
    def mean(cls, parts: Sequence["Scores"]) -> "Scores":
        """Average scores of the same rows."""
        r2, rmse, mae = np.mean([(one.r2, one.rmse, one.mae) for one in parts], axis=0).tolist()
        return cls(rows=parts[0].rows, r2=r2, rmse=rmse, mae=mae)


class Difference(StrictModel):
    """Mean of paired differences and its 95 % t-interval; no interval from a single pair."""

    mean: float
    low: float | None
    high: float | None


def score(found: Floats, measured: Floats) -> Scores:
    """Compare predictions [R] with readings [R]; rows that miss either do not count."""
    known = np.isfinite(found) & np.isfinite(measured)
    error, reading = found[known] - measured[known], measured[known]
    total = float(np.sum((reading - reading.mean()) ** 2))
    return Scores(
        rows=len(error),
        r2=1.0 - float(error @ error) / total,
        rmse=math.sqrt(float(np.mean(error**2))),
        mae=float(np.mean(np.abs(error))),
    )


def paired_difference(ours: list[float], theirs: list[float]) -> Difference:
    """Mean of `ours - theirs` over seeds. Seeds share the data, so this is not the spread between cores."""
    gaps = np.subtract(ours, theirs)
    mean, count = float(gaps.mean()), len(gaps)
    if count < 2:
        return Difference(mean=mean, low=None, high=None)
    half = float(student_t.ppf(0.975, count - 1) * gaps.std(ddof=1) / math.sqrt(count))
    return Difference(mean=mean, low=mean - half, high=mean + half)


def half_width(residuals: Floats) -> float:
    """Half width that covers `COVERAGE` of further residuals exchangeable with these [n].

    The ceil((n + 1) * 0.9)-th smallest absolute residual (Vovk et al. 2005, split conformal prediction), the
    largest where n is too small for one.
    """
    ordered = np.sort(np.abs(residuals[np.isfinite(residuals)]))
    rank = min(math.ceil(COVERAGE * (len(ordered) + 1)), len(ordered))
    return float(ordered[rank - 1])


def unseen_coverage(residuals: Floats, fold: Ints) -> float:
    """Share of residuals [R] inside the half width that the other folds [R] give."""
    known = np.isfinite(residuals)
    residuals, fold = residuals[known], fold[known]
    inside = [np.abs(residuals[fold == k]) <= half_width(residuals[fold != k]) for k in np.unique(fold)]
    return float(np.concatenate(inside).mean())
