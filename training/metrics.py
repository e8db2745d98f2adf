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


class Interval(StrictModel):
    """A 90 % interval: mean half width, share of readings inside, and mean interval score; unit of the property."""

    half_width: float
    coverage: float
    score: float

    @classmethod
    def mean(cls, parts: Sequence["Interval"]) -> "Interval":
        """Average intervals of the same rows."""
        width, coverage, score = np.mean(
            [(i.half_width, i.coverage, i.score) for i in parts], axis=0
        ).tolist()
        return cls(half_width=width, coverage=coverage, score=score)


class Difference(StrictModel):
    """Mean of paired differences and its 95 % t-interval; no interval from a single pair."""

    mean: float
    low: float | None
    high: float | None


def score(found: Floats, measured: Floats) -> Scores:
    """Compare predictions [R] with readings [R]; rows that miss either do not count.

    R2 of readings that do not vary is NaN.
    """
    known = np.isfinite(found) & np.isfinite(measured)
    error, reading = found[known] - measured[known], measured[known]
    total = float(np.sum((reading - reading.mean()) ** 2))
    return Scores(
        rows=len(error),
        r2=1.0 - float(error @ error) / total if total > 0 else math.nan,
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


def interval_score(low: Floats, high: Floats, measured: Floats) -> Floats:
    """Score central 90 % intervals [R] against readings [R], in their unit; lower is better: float64 [R].

    (u - l) + 2 / alpha * ((l - x)+ + (x - u)+) at alpha = 0.1 (Gneiting and Raftery 2007, eq. 43,
    doi 10.1198/016214506000001437): a narrow interval is rewarded, a reading outside costs 20 times its distance.
    """
    outside = np.maximum(low - measured, 0.0) + np.maximum(measured - high, 0.0)
    return high - low + 2.0 / (1.0 - COVERAGE) * outside


def interval(residuals: Floats, half_widths: Floats | float) -> Interval:
    """Judge intervals of these half widths [R] by residuals [R]; NaN residuals do not count."""
    width = np.broadcast_to(half_widths, residuals.shape)
    known = np.isfinite(residuals)
    residuals, width = residuals[known], width[known]
    return Interval(
        half_width=float(width.mean()),
        coverage=float(np.mean(np.abs(residuals) <= width)),
        score=float(interval_score(-width, width, residuals).mean()),
    )


def unseen_factors(residuals: Floats, spread: Floats, fold: Ints) -> Floats:
    """Half widths [R] in units of a spread [R] that cover 90 % of the residuals [R] of the other folds [R]."""
    scaled, factor = residuals / spread, np.full(len(residuals), np.nan)
    for k in np.unique(fold):
        factor[fold == k] = half_width(scaled[fold != k])
    return factor
