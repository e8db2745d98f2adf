"""Sensor logs of core sections: Geotek `.out`, `.csv` with units in a row or in the header, and Itrax results."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import LogError
from lithostream.engine.io.itrax_results import is_results, read_results
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
from lithostream.engine.io.sensor_log import DepthKind, Floats, Labels, SensorLog, depth_order, near_ends

__all__ = ["DepthKind", "SensorLog", "read_log"]

# A median outside these was written in another unit than the one stated: no core comes near them.
BELIEVABLE_MEDIAN = {
    "density": (0.01, 100.0),
    "p_wave_velocity": (10.0, 1e5),
    "magnetic_susceptibility": (0.0, 1e5),
}


def read_log(path: Path, section: str | None = None) -> SensorLog:
    """Read a log.

    Parameters
    ----------
    path : Path
    section : str, optional
        Where the log numbers its sections: use the rows of this one only, on its own offsets. An Itrax result
        file is of one section.

    Raises
    ------
    LogError
        Naming file, line and column: no depth, no known unit, text among numbers, values that cannot be in
        the unit stated, or a section that is not in the log.
    """
    if is_results(path):
        return read_results(path)
    table = read_table(path, is_header, is_units)
    columns = read_columns(table)
    table, labels, section_notes = _sections(table, columns, section)
    if not table.rows:
        raise LogError("no readings", file=path, fix="export the log again")
    depth, kind = _depth(table, columns, labels, section)
    values, footprint, masked, rejected = _channels(table, columns)
    order, depth_notes = depth_order(depth, kind, labels)
    depth, labels = depth[order], None if labels is None else labels[order]
    return SensorLog(
        path,
        depth,
        kind,
        labels,
        {name: column[order] for name, column in values.items()},
        footprint,
        near_ends(depth, labels),
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
