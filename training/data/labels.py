"""Readings of a sensor log as labels of rows of depth."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.join import join
from lithostream.engine.io.mscl import SensorLog
from lithostream.training.config import Range

MIN_OVERLAP = 0.5  # a row is labelled when readings cover at least half of its height

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Labels(NamedTuple):
    """Labels of rows.

    Attributes
    ----------
    value : float64 [R, T]
        NaN where there is none.
    interpolated : bool [R, T]
        No reading's footprint covers the row: the value is drawn between its neighbours.
    """

    value: Floats
    interpolated: Bools


def row_labels(
    log: SensorLog,
    targets: tuple[str, ...],
    top_cm: Floats,
    base_cm: Floats,
    credible: Mapping[str, Range],
    interpolate_cm: float | None = None,
) -> Labels:
    """Join the readings of a log to rows of depth.

    A row takes the mean of the footprints that cover at least half of it. A reading that is NaN, lies near a
    section end or outside its `credible` range labels nothing.

    Parameters
    ----------
    log : SensorLog
    targets : tuple of str
        A target that the log does not hold is NaN.
    top_cm, base_cm : float64 [R]
    credible : dict of target to Range
    interpolate_cm : float, optional
        Rows without a label then take the value on the straight line between the credible readings above and
        below their middle, where these are no further apart than this.
    """
    value = np.full((len(top_cm), len(targets)), np.nan)
    interpolated = np.zeros(value.shape, np.bool_)
    for column, target in enumerate(targets):
        if target not in log.values:
            continue
        joined = join(log, target, top_cm, base_cm)
        good = (joined.weight >= MIN_OVERLAP) & ~joined.section_end
        good &= _credible(joined.value, credible.get(target))
        value[good, column] = joined.value[good]
        if interpolate_cm is not None:
            drawn = _between(log, target, 0.5 * (top_cm + base_cm), credible.get(target), interpolate_cm)
            interpolated[:, column] = ~good & np.isfinite(drawn)
            value[:, column] = np.where(good, value[:, column], drawn)
    return Labels(value, interpolated)


def _credible(value: Floats, bounds: Range | None) -> Bools:
    """Tell which values [n] are finite and inside the range."""
    inside: Bools = np.isfinite(value)
    if bounds is not None:
        inside &= (value >= bounds.low) & (value <= bounds.high)
    return inside


def _between(log: SensorLog, target: str, depth_cm: Floats, bounds: Range | None, most_cm: float) -> Floats:
    """Draw the line between neighbouring credible readings: float64 [R], NaN where they are too far apart."""
    use = _credible(log.values[target], bounds) & ~log.near_section_end
    depth, reading = log.depth_cm[use], log.values[target][use]
    below = np.searchsorted(depth, depth_cm, side="left")
    inside = (below > 0) & (below < len(depth))
    below = np.where(inside, below, 1)
    found = np.full(len(depth_cm), np.nan)
    if len(depth) < 2:
        return found
    near = inside & (depth[below] - depth[below - 1] <= most_cm)
    found[near] = np.interp(depth_cm[near], depth, reading)
    return found
