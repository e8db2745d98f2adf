"""The readings of one log, whatever instrument and file format they came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

DepthKind = Literal["section", "core"]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.str_]

SECTION_END_CM = 3.0  # half the widest footprint: nearer than this a loop reads past the end cap


@dataclass(frozen=True, slots=True)
class SensorLog:
    """Readings of one log, sorted by depth.

    Attributes
    ----------
    path : Path
    depth_cm : float64 [N]
    depth_kind : {"section", "core"}
        Whether depths are section offsets or run through the whole core.
    section : int64 or str [N], optional
        Section of each reading, where the log names it.
    values : dict of target name to float64 [N]
        In the units of `TARGETS`; NaN where missing or masked.
    footprint_cm : dict of target name to float
        Full width of the box that one reading stands for.
    near_section_end : bool [N]
        Nearer than 3 cm to the first or last depth of its section.
    notes : tuple of str
        What was masked, sorted, skipped or assumed.
    rejected : dict of column name to reason
        Columns that hold a target but no measurement of it.
    """

    path: Path
    depth_cm: Floats
    depth_kind: DepthKind
    section: Labels | None
    values: dict[str, Floats]
    footprint_cm: dict[str, float]
    near_section_end: npt.NDArray[np.bool_]
    notes: tuple[str, ...]
    rejected: dict[str, str]


def depth_order(
    depth: Floats, kind: DepthKind, labels: Labels | None
) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Stable order by depth (by section first where depths restart), and what was unusual before."""
    group = np.zeros(len(depth), np.intp)
    if labels is not None and kind == "section":
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        group = np.argsort(np.argsort(first))[inverse]
    order = np.lexsort((depth, group))
    step = np.diff(depth)[np.diff(group) == 0]
    notes = []
    if len(step) and np.all(step < 0):
        notes.append("the log runs from bottom to top: sorted")
    elif np.any(step < 0):
        notes.append(f"{(step < 0).sum()} readings lie above the one before them: sorted")
    repeated = (np.diff(depth[order]) == 0) & (np.diff(group[order]) == 0)
    if np.any(repeated):
        notes.append(f"{repeated.sum()} readings repeat a depth: all kept")
    return order, notes


def near_ends(depth: Floats, labels: Labels | None) -> npt.NDArray[np.bool_]:
    """Tell which readings lie nearer than 3 cm to the first or last of their section, bool [N]."""
    groups = np.zeros(len(depth), np.int64) if labels is None else labels
    near = np.zeros(len(depth), np.bool_)
    for label in np.unique(groups):
        rows = groups == label
        ends = depth[rows].min(), depth[rows].max()
        near[rows] = np.minimum(depth[rows] - ends[0], ends[1] - depth[rows]) < SECTION_END_CM
    return near
