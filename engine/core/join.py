"""Bring the readings of a sensor log onto depth intervals, by overlap, never by row number."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import LogError
from lithostream.engine.io.mscl import SensorLog

Floats = npt.NDArray[np.float64]

TOUCH_CM = 1e-9  # less overlap than this is rounding: boxes that only touch do not overlap


class Joined(NamedTuple):
    """A log on intervals.

    Attributes
    ----------
    value : float64 [I]
        Overlap-weighted mean, NaN where no reading overlaps.
    weight : float64 [I]
        Summed overlap of all readings / interval length, at most 1 (footprints may overlap one another, so a
        densely logged interval is simply full).
    section_end : bool [I]
        An overlapping reading lies near a section end, where sensors read through the end cap.
    """

    value: Floats
    weight: Floats
    section_end: npt.NDArray[np.bool_]


def join(log: SensorLog, target: str, top_cm: Floats, base_cm: Floats) -> Joined:
    """Join one column of a log to intervals.

    A reading stands for the box of its footprint around its depth. It counts in each interval with the length
    that box and interval have in common; a reading that is NaN counts nowhere.

    Parameters
    ----------
    log : SensorLog
    target : str
        A key of `log.values`.
    top_cm, base_cm : float64 [I]
        Intervals, on the depth axis of the log.

    Raises
    ------
    LogError
        The log has no such column, or its depths restart in each of several sections.
    ValueError
        An interval whose base is not below its top.
    """
    if target not in log.values:
        raise LogError(
            f"no usable column for {target}", file=log.path, fix=f"the log has: {', '.join(log.values)}"
        )
    if log.depth_kind == "section" and log.section is not None and len(np.unique(log.section)) > 1:
        raise LogError(
            "depths restart in each of several sections",
            file=log.path,
            fix="name the section (key `section` of the manifest) so that its rows alone are used",
        )
    if not np.all(base_cm > top_cm):
        raise ValueError("every interval needs base_cm > top_cm")
    known = np.isfinite(log.values[target])
    depth, reading = log.depth_cm[known], log.values[target][known]
    near_end, half = log.near_section_end[known], log.footprint_cm[target] / 2
    first = np.searchsorted(depth + half, top_cm, side="right")
    last = np.searchsorted(depth - half, base_cm, side="left")
    value, weight = np.full(len(top_cm), np.nan), np.zeros(len(top_cm))
    section_end = np.zeros(len(top_cm), np.bool_)
    for row, (start, stop) in enumerate(zip(first, last, strict=True)):
        box = depth[start:stop]
        shared = np.minimum(box + half, base_cm[row]) - np.maximum(box - half, top_cm[row])
        shared = np.where(shared > TOUCH_CM, shared, 0.0)
        total = float(shared.sum())
        if total > 0:
            value[row] = float(shared @ reading[start:stop]) / total
            weight[row] = min(1.0, total / (base_cm[row] - top_cm[row]))
            section_end[row] = bool(np.any(near_end[start:stop] & (shared > 0)))
    return Joined(value, weight, section_end)
