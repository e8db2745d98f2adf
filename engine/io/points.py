"""Tables of points: CSV or GeoPackage, with their columns by name, their units and their coordinates."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import SourceError
from lithostream.engine.io.cells import MISSING_NUMBERS, MISSING_WORDS, number_of
from lithostream.engine.io.geopackage import read_points
from lithostream.engine.maps.manifest import Predictor

TABLES = (".csv", ".txt", ".gpkg")
PLACES = (
    ("x", "y"),
    ("easting", "northing"),
    ("este", "norte"),
    ("e", "n"),
    ("longitude", "latitude"),
    ("lon", "lat"),
    ("long", "lat"),
)
_HEADER = re.compile(r"(?P<name>.*?)\s*\[(?P<unit>[^\]]*)\]\s*")
MAX_BYTES = 1 << 30  # of a table, which is held whole

Floats = npt.NDArray[np.float64]


class Column(NamedTuple):
    """A column: its unit, empty where none is stated, and its cells as text."""

    unit: str
    cells: list[str]


@dataclass(frozen=True, slots=True)
class PointTable:
    """A table as it stands in its file.

    Attributes
    ----------
    path : Path
    columns : dict of str to Column
    first_line : int
        Where the first row is, for messages.
    place : (float64 [N], float64 [N]), optional
        X and y; NaN where a row has none.
    place_from : str
        What they were read from.
    crs : str, optional
        Of a GeoPackage.
    """

    path: Path
    columns: dict[str, Column]
    first_line: int
    place: tuple[Floats, Floats] | None
    place_from: str
    crs: str | None

    def __len__(self) -> int:
        if self.place is not None:
            return len(self.place[0])
        return len(next(iter(self.columns.values())).cells)


def read_table(path: Path, predictors: Sequence[Predictor] = ()) -> PointTable:
    """Read a table.

    Parameters
    ----------
    path : Path
        CSV with a header, its cells parted by comma, semicolon or tab, or a GeoPackage of points.
    predictors : sequence of Predictor
        Their columns are no coordinates, whatever their names; they tell a second row of units from numbers.

    Raises
    ------
    SourceError
        It cannot be read, or a row is longer or shorter than the header.
    """
    if path.suffix.lower() == ".gpkg":
        layer = read_points(path)
        columns = {
            name: Column("", [_text(value) for value in values]) for name, values in layer.columns.items()
        }
        return PointTable(path, columns, 1, (layer.x, layer.y), "geometry", layer.crs)
    header, rows = _csv_rows(path)
    names, units = zip(*(_named(cell) for cell in header), strict=True)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"several columns are called {', '.join(twice)}", file=path, fix="rename them")
    first_line, wanted = 2, {one.name for one in predictors} & set(names)
    if rows and _are_units([rows[0][names.index(name)] for name in wanted]):
        units, first_line = (
            tuple(one or other.strip() for one, other in zip(units, rows.pop(0), strict=True)),
            3,
        )
    cells = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    columns = {name: Column(unit, column) for name, unit, column in zip(names, units, cells, strict=True)}
    place, place_from = _places(columns, {one.name for one in predictors}, path, first_line)
    return PointTable(path, columns, first_line, place, place_from, None)


def _csv_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    def refuse(reason: str, place: str = "") -> SourceError:
        return SourceError(reason, file=path, place=place, fix="write it as CSV, UTF-8, with a header")

    try:
        if path.stat().st_size > MAX_BYTES:
            raise refuse(f"larger than {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        rows = list(csv.reader(text.splitlines(), delimiter=separator, strict=True))
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", file=path, fix="check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise refuse(f"cannot be read: {error}") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if not any(header):
        raise refuse("has no header")
    filled = [(line, row) for line, row in enumerate(rows[1:], 2) if any(cell.strip() for cell in row)]
    for line, row in filled:
        if len(row) != len(header):
            raise refuse(f"{len(row)} cells, the header has {len(header)}", f"row {line}")
    return header, [row for _, row in filled]


def _named(cell: str) -> tuple[str, str]:
    found = _HEADER.fullmatch(cell)
    return (found["name"], found["unit"].strip()) if found else (cell, "")


def _are_units(cells: Iterable[str]) -> bool:
    """Tell a row of units from one of values: none of it is a number, and some of it is text."""
    texts = [text for text in (cell.strip().lower() for cell in cells) if text not in MISSING_WORDS]
    return bool(texts) and all(number_of(text.lstrip("<>")) is None for text in texts)


def _places(
    columns: dict[str, Column], taken: Iterable[str], path: Path, first_line: int
) -> tuple[tuple[Floats, Floats] | None, str]:
    free = {name.casefold(): name for name in columns if name not in taken}
    for one, two in PLACES:
        if one in free and two in free:
            names = free[one], free[two]
            x, y = (_coordinates(columns[name].cells, name, path, first_line) for name in names)
            return (x, y), ", ".join(names)
    return None, ""


def _coordinates(cells: Sequence[str], name: str, path: Path, first_line: int) -> Floats:
    numbers = []
    for row, cell in enumerate(cells, first_line):
        number = np.nan if cell.strip().lower() in MISSING_WORDS else number_of(cell)
        if number is None:
            raise SourceError(
                f"{cell[:40]!r} is no number",
                file=path,
                place=f"column {name}, row {row}",
                fix="correct the coordinate",
            )
        numbers.append(np.nan if number in MISSING_NUMBERS else number)
    return np.array(numbers, np.float64)


def _text(value: object) -> str:
    """Text of a value of a GeoPackage that reads as the same number."""
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return ""
    return repr(float(value)) if isinstance(value, np.floating) else str(value)
