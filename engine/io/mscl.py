"""Sensor logs of core sections: Geotek `.out`, and `.csv` with units in a row or in the header."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import LogError
from lithostream.engine.io.log_columns import (
    CHANNELS,
    CORE_DEPTH,
    SECTION_DEPTH,
    SECTION_NUMBER,
    Column,
    find_column,
    is_header,
    is_units,
    read_columns,
    unit_factor,
)
from lithostream.engine.io.log_table import LogTable, read_table

DepthKind = Literal["section", "core"]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.str_]

SECTION_END_CM = 3.0  # half the widest footprint: nearer than this a loop reads past the end cap
# A median outside these was written in another unit than the one stated: no core comes near them.
BELIEVABLE_MEDIAN = {
    "density": (0.01, 100.0),
    "p_wave_velocity": (10.0, 1e5),
    "magnetic_susceptibility": (0.0, 1e5),
}


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


def read_log(path: Path, section: str | None = None) -> SensorLog:
    """Read a log.

    Parameters
    ----------
    path : Path
    section : str, optional
        Where the log numbers its sections: use the rows of this one only, on its own offsets.

    Raises
    ------
    LogError
        Naming file, line and column: no depth, no known unit, text among numbers, values that cannot be in
        the unit stated, or a section that is not in the log.
    """
    table = read_table(path, is_header, is_units)
    columns = read_columns(table)
    table, labels, section_notes = _sections(table, columns, section)
    if not table.rows:
        raise LogError("no readings", file=path, fix="export the log again")
    depth, kind = _depth(table, columns, labels, section)
    values, footprint, masked, rejected = _channels(table, columns)
    order, depth_notes = _order(depth, kind, labels)
    depth, labels = depth[order], None if labels is None else labels[order]
    return SensorLog(
        path,
        depth,
        kind,
        labels,
        {name: column[order] for name, column in values.items()},
        footprint,
        _near_ends(depth, labels),
        (*table.notes, *section_notes, *depth_notes, *masked),
        rejected,
    )


def _sections(
    table: LogTable, columns: Sequence[Column], section: str | None
) -> tuple[LogTable, Labels | None, list[str]]:
    """Drop calibration rows and, where a section is named, all others."""
    column = find_column(table, columns, SECTION_NUMBER)
    if column is None:
        missing = "the log numbers no sections: only its own two ends are known as ends, and its depths are used as they are"
        return table, None, [missing]
    core = [row for row in table.rows if not row[1][column.index].casefold().startswith("cal")]
    calibration = len(table.rows) - len(core)
    notes = [f"{calibration} calibration rows skipped"] if calibration else []
    if section is not None:
        wanted = _section_key(section)
        kept = [row for row in core if _section_key(row[1][column.index]) == wanted]
        if core and not kept:
            there = sorted({row[1][column.index] for row in core})
            raise LogError(
                f"no rows of section {section!r}; there are: {', '.join(there)}",
                file=table.path,
                place=f"column {column.name!r}",
                fix="name one of these, or another log",
            )
        core = kept
    names = [row[1][column.index] for row in core]
    whole = all(name.isdecimal() for name in names)
    labels: Labels = np.array([int(name) for name in names], np.int64) if whole else np.array(names, np.str_)
    return replace(table, rows=core), labels, notes


def _section_key(text: str) -> str:
    return text.casefold().lstrip("0") or "0"


def _depth(
    table: LogTable, columns: Sequence[Column], labels: Labels | None, section: str | None
) -> tuple[Floats, DepthKind]:
    """Choose the depth column that places every reading, in cm."""
    core = find_column(table, columns, CORE_DEPTH)
    offset = find_column(table, columns, SECTION_DEPTH)
    one_section = labels is not None and (section is not None or len(np.unique(labels)) == 1)
    if section is not None and labels is not None and offset is None:
        raise LogError(
            f"no offsets within section {section!r}",
            file=table.path,
            fix="add a column SECT_DEPTH with its unit",
        )
    if core is not None and not (one_section and offset is not None):
        depth = _centimetres(table, core)
        if labels is None or not _restarts(depth, labels):
            return depth, "core"
    column = offset or core
    assert column is not None  # is_header saw one of the two
    return _centimetres(table, column), "section"


def _centimetres(table: LogTable, column: Column) -> Floats:
    depth = table.numbers(column.index) * unit_factor(table, column, "depth")
    lost = np.flatnonzero(~np.isfinite(depth))
    if len(lost):
        raise LogError(
            "a reading without depth",
            file=table.path,
            place=f"line {table.rows[lost[0]][0]}, column {column.name!r}",
            fix="fill in the depth, or remove the row",
        )
    return depth


def _restarts(depth: Floats, labels: Labels) -> bool:
    """Tell whether sections lie over one another by more than half: offsets, then, and no core depths."""
    spans = sorted(
        (depth[labels == label].min(), depth[labels == label].max()) for label in np.unique(labels)
    )
    return any(lower[0] < (upper[0] + upper[1]) / 2 for upper, lower in pairwise(spans))


def _channels(
    table: LogTable, columns: Sequence[Column]
) -> tuple[dict[str, Floats], dict[str, float], list[str], dict[str, str]]:
    """Read every sensor column; of two for one target the one with the smaller footprint is used."""
    found = [column for column in columns if column.key in CHANNELS]
    if not found:
        known = ", ".join(CHANNELS)
        raise LogError("no column of a known sensor", file=table.path, fix=f"name a column one of: {known}")
    values: dict[str, Floats] = {}
    footprint: dict[str, float] = {}
    notes: list[str] = []
    rejected: dict[str, str] = {}
    for column in sorted(found, key=lambda column: CHANNELS[column.key].footprint_cm):
        target, footprint_cm = CHANNELS[column.key]
        readings, outside = _readings(table, column, target)
        inside = int(np.isfinite(readings).sum())
        span = f"{TARGETS[target].low:g} to {TARGETS[target].high:g} {TARGETS[target].unit}"
        if inside + outside == 0:
            rejected[column.name] = "no readings"
        elif outside > inside:
            rejected[column.name] = f"{outside} of {inside + outside} readings outside {span}"
        elif target in values:
            notes.append(f"column {column.name!r} not used: another column has {target}")
        else:
            values[target], footprint[target] = readings, footprint_cm
            if outside:
                notes.append(f"column {column.name!r}: {outside} readings outside {span} masked")
    return values, footprint, notes, rejected


def _readings(table: LogTable, column: Column, target: str) -> tuple[Floats, int]:
    """Read one sensor column in its target's unit, masked outside its range; count what was masked."""
    readings = table.numbers(column.index) * unit_factor(table, column, target)
    present = readings[np.isfinite(readings) & (readings != 0)]
    low, high = BELIEVABLE_MEDIAN[target]
    if len(present) and not low <= abs(float(np.median(present))) <= high:
        raise LogError(
            f"wrong units: the median is {np.median(present):.6g} {TARGETS[target].unit}",
            file=table.path,
            place=f"column {column.name!r}",
            fix="state the unit these values are in",
        )
    outside = (readings < TARGETS[target].low) | (readings > TARGETS[target].high)
    readings[outside] = np.nan
    return readings, int(outside.sum())


def _order(depth: Floats, kind: DepthKind, labels: Labels | None) -> tuple[npt.NDArray[np.intp], list[str]]:
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


def _near_ends(depth: Floats, labels: Labels | None) -> npt.NDArray[np.bool_]:
    groups = np.zeros(len(depth), np.int64) if labels is None else labels
    near = np.zeros(len(depth), np.bool_)
    for label in np.unique(groups):
        rows = groups == label
        ends = depth[rows].min(), depth[rows].max()
        near[rows] = np.minimum(depth[rows] - ends[0], ends[1] - depth[rows]) < SECTION_END_CM
    return near
