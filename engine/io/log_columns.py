"""The vocabulary of sensor logs: which column is which sensor, in which unit, seen over which length.

A column is used only with a unit that is known, because a number without one is a guess. Two published
releases define theirs elsewhere and are recognised by their exact names beside `sb_depth_cm`: USGS
2019-643-FA (`density` g/cm3, `pwave_vel` m/s, `mag_sus` 1e-5 SI) and OSU M9907 (`MS`, `hiresMS` 1e-5 SI).
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lithostream.engine.errors import LogError
from lithostream.engine.io.log_table import LogTable

# Full widths along the core that one reading stands for. Taken as boxes: the true responses are bell-shaped
# but differ between instruments, and no log states its own.
LOOP_FOOTPRINT_CM = 6.0  # Bartington MS2C loops respond over several cm
POINT_FOOTPRINT_CM = 1.0  # Bartington MS2E point sensor: under 1 cm
GAMMA_FOOTPRINT_CM = 1.0  # 5 mm collimator, widened by the spread of the beam
P_WAVE_FOOTPRINT_CM = 2.0  # face of the transducers


class Channel(NamedTuple):
    """A kind of sensor: what it measures and over which length."""

    target: str
    footprint_cm: float


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a log whose meaning may be known."""

    index: int
    name: str
    key: str
    unit: str


_GAMMA = Channel("density", GAMMA_FOOTPRINT_CM)
_P_WAVE = Channel("p_wave_velocity", P_WAVE_FOOTPRINT_CM)
_LOOP = Channel("magnetic_susceptibility", LOOP_FOOTPRINT_CM)
_POINT = Channel("magnetic_susceptibility", POINT_FOOTPRINT_CM)
CHANNELS: dict[str, Channel] = {
    **dict.fromkeys(("density", "den", "den1", "gammadensity", "bulkdensity", "wetbulkdensity"), _GAMMA),
    **dict.fromkeys(("pwvel", "pwavevel", "pwavevelocity", "vp"), _P_WAVE),
    **dict.fromkeys(("ms", "ms1", "magsus", "magneticsusceptibility", "loopms"), _LOOP),
    **dict.fromkeys(("hiresms", "pointms", "ptms"), _POINT),
}
CORE_DEPTH = ("sbdepth", "coredepth", "depth")
SECTION_DEPTH = ("sectdepth", "sectiondepth", "sectionoffset", "offset")
SECTION_NUMBER = ("sectnum", "sectionnum", "sectionnumber", "sect", "section")

# Factors to cm, or to the unit in TARGETS. Keys as `unit_key` writes them.
UNITS: dict[str, dict[str, float]] = {
    "depth": {"cm": 1.0, "m": 100.0, "mm": 0.1},
    "density": {
        **dict.fromkeys(("g/cc", "gm/cc", "g/cm3", "gm/cm3", "gcm-3", "t/m3"), 1.0),
        **dict.fromkeys(("kg/m3", "kgm-3"), 1e-3),
    },
    "p_wave_velocity": {"m/s": 1.0, "ms-1": 1.0, "km/s": 1e3, "kms-1": 1e3},
    "magnetic_susceptibility": {
        **dict.fromkeys(("si10-5", "si1e-5", "si1e-05", "10-5si", "1e-5si", "1e-05si"), 1.0),
        "si": 1e5,
    },
}
RELEASE_DEPTH = "sb_depth_cm"
RELEASE_UNITS = {
    "density": "g/cm3",
    "pwave_vel": "m/s",
    "mag_sus": "SI 1e-5",
    "ms": "SI 1e-5",
    "hiresms": "SI 1e-5",
}

_ALL_UNITS = {unit for units in UNITS.values() for unit in units}
_KNOWN = {*CHANNELS, *CORE_DEPTH, *SECTION_DEPTH, *SECTION_NUMBER}
_BRACKETS = re.compile(r"(.+?)\s*[\[(]([^\])]*)[\])]")
_LIKE_A_UNIT = re.compile(r".*[/%^].*|(.*[^a-z])?(cgs|si)([^a-z].*)?")


def unit_key(text: str) -> str:
    """Bring spellings of a unit together: `SI x 10^-5`, `SI ×10⁻⁵` and `si 10-5` are one."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    return re.sub(r"[\s^*×x·._]", "", plain).strip("-–—")


def is_header(cells: Sequence[str]) -> bool:
    """Recognise a header by its depth column."""
    return any(_split_name(cell)[0] in CORE_DEPTH + SECTION_DEPTH for cell in cells)


def is_units(cells: Sequence[str]) -> bool:
    """Recognise a units row: a known unit, and no plain number."""
    return any(unit_key(cell) in _ALL_UNITS for cell in cells) and not any(
        cell.strip().lstrip("+-").replace(".", "", 1).isdigit() for cell in cells
    )


def read_columns(table: LogTable) -> list[Column]:
    """Name the columns of a table.

    Raises
    ------
    LogError
        Header and units row contradict each other.
    """
    columns = []
    for index, (name, row_unit) in enumerate(zip(table.names, table.units, strict=True)):
        key, unit = _split_name(name)
        if unit_key(unit) and unit_key(row_unit) and unit_key(unit) != unit_key(row_unit):
            raise LogError(
                f"unit {unit!r} in the header, {row_unit!r} in the units row",
                file=table.path,
                place=f"column {name!r}",
                fix="correct the one that is wrong",
            )
        columns.append(Column(index, name, key, unit if unit_key(unit) else row_unit))
    return columns


def find_column(table: LogTable, columns: Sequence[Column], keys: Sequence[str]) -> Column | None:
    """Find the column of the first key that occurs.

    Raises
    ------
    LogError
        Two columns of that name.
    """
    for key in keys:
        found = [column for column in columns if column.key == key]
        if len(found) > 1:
            raise LogError(
                f"columns {found[0].name!r} and {found[1].name!r} mean the same",
                file=table.path,
                fix="leave one of them",
            )
        if found:
            return found[0]
    return None


def unit_factor(table: LogTable, column: Column, quantity: str) -> float:
    """Factor from the unit of a column to the unit used here.

    Raises
    ------
    LogError
        No unit, or one that is not known for this quantity.
    """
    unit = column.unit if unit_key(column.unit) else _release_unit(table, column)
    known = UNITS[quantity]
    if unit_key(unit) not in known:
        raise LogError(
            f"unit {unit!r} is not known for {quantity}" if unit else f"no unit for {quantity}",
            file=table.path,
            place=f"column {column.name!r}",
            fix=f"write the unit in the header or in a row under it; known: {', '.join(known)}",
        )
    return known[unit_key(unit)]


def _release_unit(table: LogTable, column: Column) -> str:
    in_release = any(name.casefold() == RELEASE_DEPTH for name in table.names)
    return RELEASE_UNITS.get(column.name.casefold(), "") if in_release else ""


def _split_name(name: str) -> tuple[str, str]:
    """Split `Den_gm/cc` or `MS (SI 1e-5)` into a bare key and a unit; the key is whole where it is unknown."""
    match = _BRACKETS.fullmatch(name.strip())
    if match and _bare(match[1]) in _KNOWN:
        return _bare(match[1]), match[2]
    words = re.split(r"[_\s]+", name.strip())
    for cut in range(len(words), 0, -1):
        key, unit = _bare("".join(words[:cut])), " ".join(words[cut:])
        looks_right = not unit or unit_key(unit) in _ALL_UNITS or _LIKE_A_UNIT.fullmatch(unit.casefold())
        if key in _KNOWN and looks_right:
            return key, unit
    return _bare(name), ""


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())
