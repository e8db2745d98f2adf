"""Text tables as core loggers and spreadsheets write them: header found, units apart, numbers strict."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import LogError

DELIMITERS = ("\t", ";", ",")
HEADER_WITHIN_ROWS = 30  # a title and blank lines may come first
MISSING_TEXT = ("", "nan", "na", "n/a")
MISSING_VALUES = (-999.25, -9999.0)  # LAS; USGS and GIS exports

_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")

Floats = npt.NDArray[np.float64]
Row = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class LogTable:
    """A table of text with one header.

    Attributes
    ----------
    path : Path
    names : list of str
        Header cells.
    units : list of str
        Cells of the units row, empty where there is none.
    rows : list of (line, cells)
        Data rows, each as long as `names`.
    notes : tuple of str
        What was skipped or assumed.
    """

    path: Path
    names: list[str]
    units: list[str]
    rows: list[Row]
    notes: tuple[str, ...]

    def numbers(self, column: int) -> Floats:
        """Read a column as numbers: float64 [N], NaN where missing.

        Raises
        ------
        LogError
            Naming line and column of a cell that is no number, or a comma that may mean two things.
        """
        texts = [cells[column] for _, cells in self.rows]
        for (line, _), text in zip(self.rows, texts, strict=True):
            if text.casefold() not in MISSING_TEXT and not _NUMBER.fullmatch(text):
                raise LogError(
                    f"{text!r} is not a number",
                    file=self.path,
                    place=f"line {line}, column {self.names[column]!r}",
                    fix="correct the cell, or leave it empty",
                )
        if any("," in text for text in texts):
            self._check_decimal_comma()
        values = np.array([_value(text) for text in texts], np.float64)
        values[np.isin(values, MISSING_VALUES)] = np.nan
        return values

    def _check_decimal_comma(self) -> None:
        """Take commas as decimal marks only where the whole table leaves no other reading."""
        numbers = [(line, text) for line, cells in self.rows for text in cells if _NUMBER.fullmatch(text)]
        commas = [(line, text) for line, text in numbers if "," in text]
        points = any("." in text for _, text in numbers)
        if points or all(_MAYBE_THOUSANDS.fullmatch(text) for _, text in commas):
            raise LogError(
                f"the comma in {commas[0][1]!r} may be a decimal mark or a thousands separator",
                file=self.path,
                place=f"line {commas[0][0]}",
                fix="write numbers with a decimal point and no thousands separator",
            )


def read_table(
    path: Path, is_header: Callable[[list[str]], bool], is_units: Callable[[list[str]], bool]
) -> LogTable:
    """Read a table separated by tabs, semicolons or commas; UTF-8, else latin-1.

    Parameters
    ----------
    path : Path
    is_header, is_units : callable
        Recognise the header among the first rows, and the units row right below it.

    Raises
    ------
    LogError
        Unreadable, no header, or a row of another length.
    """
    text, encoding = _decode(path)
    for delimiter in DELIMITERS:
        rows = _split(path, text, delimiter)
        for index, (_, cells) in enumerate(rows[:HEADER_WITHIN_ROWS]):
            if len(cells) > 1 and is_header(cells):
                return _table(path, rows[index:], is_units, encoding)
    raise LogError(
        "no header with a depth column was found",
        file=path,
        fix="give the table a header with a depth column, as SB_DEPTH_cm, SECT_DEPTH_cm or 'Core Depth (m)'",
    )


def _decode(path: Path) -> tuple[str, str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(f"cannot be read: {error.strerror}", file=path, fix="check the path") from error
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


def _split(path: Path, text: str, delimiter: str) -> list[Row]:
    """Cut into rows that hold anything. Tab files come from loggers, which do not quote."""
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter)
    try:
        rows = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise LogError(
            f"not a table: {error}", file=path, place=f"line {reader.line_num}", fix="export it as text again"
        ) from error
    return [(line, cells) for line, cells in rows if any(cell.strip() for cell in cells)]


def _table(path: Path, rows: list[Row], is_units: Callable[[list[str]], bool], encoding: str) -> LogTable:
    names = [cell.strip() for cell in rows[0][1]]
    while not names[-1]:
        names.pop()
    repeats = [_fit(path, rows[0], len(names))]
    units, body = [""] * len(names), rows[1:]
    if body and is_units(body[0][1]):
        units = _fit(path, body[0], len(names))
        repeats.append(units)
        body = body[1:]
    fitted = [(row[0], _fit(path, row, len(names))) for row in body]
    data = [row for row in fitted if row[1] not in repeats]
    notes = [] if encoding == "UTF-8" else [f"read as {encoding}"]
    if len(data) < len(fitted):
        notes.append(f"{len(fitted) - len(data)} repeated header or units rows skipped")
    return LogTable(path, names, units, data, tuple(notes))


def _fit(path: Path, row: Row, length: int) -> list[str]:
    """Cells of a row, without empty ones beyond the header."""
    line, cells = row
    cells = [cell.strip() for cell in cells]
    if len(cells) < length or any(cells[length:]):
        raise LogError(
            f"{len(cells)} cells under {length} column names",
            file=path,
            place=f"line {line}",
            fix="complete the row; where a decimal comma splits numbers, separate columns by tab or ';'",
        )
    return cells[:length]


def _value(text: str) -> float:
    return np.nan if text.casefold() in MISSING_TEXT else float(text.replace(",", "."))
