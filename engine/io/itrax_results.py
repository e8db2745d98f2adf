"""Result files of Itrax scanners: XRF peak areas by position, latin-1, tab-separated, the header in line 3.

Positions are mm on the axis of the scan's document, so in cm they are section offsets. `validity` (and
`revalidity`) is 1 where the spectrum was good. Evaluating spectra again can set it to 1 throughout: in the
files of Yanou Lake, 65 of 191 rows of one section lost their 0, and hold a tenth of the iron of the others. So a
row that any evaluation beside the file calls invalid is masked.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import LogError
from lithostream.engine.io.log_table import LogTable, read_table
from lithostream.engine.io.sensor_log import SensorLog, depth_order, near_ends

POSITION, VALIDITY, REVALIDITY = "position (mm)", "validity", "revalidity"
ELEMENTS = {"Ca": "xrf_calcium", "Fe": "xrf_iron", "Mn": "xrf_manganese", "Ti": "xrf_titanium"}
MM_PER_CM = 10.0

_HEADER_START = b"filename\tposition (mm)\t"
_HEADER_WITHIN_BYTES = 4096
_NAME = re.compile(r"(?P<scan>.+_)?results?\.txt", re.IGNORECASE)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def is_results(path: Path) -> bool:
    """Recognise a result file by its header.

    Raises
    ------
    LogError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _HEADER_START in file.read(_HEADER_WITHIN_BYTES)
    except OSError as error:
        raise LogError(f"cannot be read: {error.strerror}", file=path, fix="check the path") from error


def evaluations(folder: Path) -> list[Path]:
    """List the result files of an Itrax folder, the one to use first: without a scan's name before one with it."""
    found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    named = sorted(((match["scan"] or "").casefold(), path.name, path) for match, path in found)
    return [path for _, _, path in named if path.is_file() and is_results(path)]


def read_results(path: Path) -> SensorLog:
    """Read the peak areas of calcium, iron, manganese and titanium.

    A reading stands for one step of the scan: the beam is a slit of 0.2 mm, moved on in steps.

    Raises
    ------
    LogError
        Naming file, line and column: a column is missing, text among numbers, no readings, or only one.
    """
    table = read_table(path, _is_header, _no_units)
    position = _position_mm(table)
    if len(position) < 2:
        raise LogError(
            f"{len(position)} readings: a scan has at least two", file=path, fix="export the scan again"
        )
    invalid, notes = _invalid(table, position)
    values, masked, rejected = _elements(table, invalid)
    order, order_notes = depth_order(position, "section", None)
    depth = position[order] / MM_PER_CM
    step_cm = float(np.median(np.diff(np.unique(depth))))
    return SensorLog(
        path=path,
        depth_cm=depth,
        depth_kind="section",
        section=None,
        values={name: column[order] for name, column in values.items()},
        footprint_cm=dict.fromkeys(values, step_cm),
        near_section_end=near_ends(depth, None),
        notes=(*table.notes, *order_notes, *notes, *masked),
        rejected=rejected,
    )


def _is_header(cells: Sequence[str]) -> bool:
    return [cell.strip() for cell in cells[:2]] == ["filename", POSITION]


def _no_units(_: Sequence[str]) -> bool:
    return False


def _column(table: LogTable, name: str) -> int | None:
    """Place of the one column of a name; None where there is none."""
    if table.names.count(name) > 1:
        raise LogError(
            f"{table.names.count(name)} columns {name!r}", file=table.path, fix="leave one of them"
        )
    return table.names.index(name) if name in table.names else None


def _position_mm(table: LogTable) -> Floats:
    column = _column(table, POSITION)
    assert column is not None  # _is_header saw it
    position = table.numbers(column)
    lost = np.flatnonzero(np.isnan(position))
    if len(lost):
        raise LogError(
            "a reading without position",
            file=table.path,
            place=f"line {table.rows[lost[0]][0]}, column {POSITION!r}",
            fix="fill in the position, or remove the row",
        )
    return position


def _flagged(table: LogTable) -> Bools:
    """Rows [N] that this evaluation does not call valid."""
    column, again = _column(table, VALIDITY), _column(table, REVALIDITY)
    if column is None:
        raise LogError(
            f"no column {VALIDITY!r}",
            file=table.path,
            fix="export the results again with this column: without it bad spectra cannot be told from good ones",
        )
    flagged: Bools = table.numbers(column) != 1
    if again is not None:
        flagged |= table.numbers(again) != 1
    return flagged


def _invalid(table: LogTable, position: Floats) -> tuple[Bools, list[str]]:
    """Rows [N] that some evaluation of this scan flags, and a note per evaluation that adds any."""
    invalid = _flagged(table)
    notes = [f"{invalid.sum()} rows flagged as not valid masked"] if invalid.any() else []
    for path in evaluations(table.path.parent):
        if path.samefile(table.path):
            continue
        other = read_table(path, _is_header, _no_units)
        more = np.isin(position, _position_mm(other)[_flagged(other)]) & ~invalid
        if more.any():
            notes.append(f"{more.sum()} further rows masked that {path.name} flags as not valid")
            invalid |= more
    return invalid, notes


def _elements(table: LogTable, invalid: Bools) -> tuple[dict[str, Floats], list[str], dict[str, str]]:
    """Peak areas [N] per target, NaN where masked."""
    places = {name: place for name in ELEMENTS if (place := _column(table, name)) is not None}
    if not places:
        raise LogError(
            f"no column of {', '.join(ELEMENTS)}",
            file=table.path,
            fix="evaluate the spectra again with these elements",
        )
    values: dict[str, Floats] = {}
    notes: list[str] = []
    rejected: dict[str, str] = {}
    for name, place in places.items():
        target = TARGETS[ELEMENTS[name]]
        area = np.where(invalid, np.nan, table.numbers(place))
        outside = (area < target.low) | (area > target.high)
        area[outside] = np.nan
        if outside.any():
            span = f"{target.low:g} to {target.high:g} {target.unit}"
            notes.append(f"column {name!r}: {outside.sum()} readings outside {span} masked")
        if np.isfinite(area).any():
            values[target.name] = area
        else:
            rejected[name] = "no valid readings"
    return values, notes, rejected
