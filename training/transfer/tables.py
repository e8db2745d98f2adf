"""Tables of numbers, read by column name."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import SourceError

FIX = "correct the table or the column names of the study"

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class ColumnError(SourceError):
    """A table has no column of a name, or several."""


def read_columns(file: Path, columns: Sequence[str]) -> Floats:
    """Read columns of a table by name, whatever their order, float64 [len(rows), len(columns)].

    The separator is a semicolon where the header holds one, else a comma. Empty lines are no rows.

    Raises
    ------
    ColumnError
        A column is absent, or there twice.
    SourceError
        The file cannot be read, a row is longer or shorter than the header, or a value is not a
        finite number.
    """

    def refuse(reason: str, place: str = "") -> SourceError:
        return SourceError(reason, file=file, place=place, fix=FIX)

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read: {error}", file=file, fix="check the path") from error
    filled = [(number, line) for number, line in enumerate(lines, 1) if line.strip(" ,;\t")]
    if len(filled) < 2:
        raise refuse("holds no rows")
    separator = ";" if ";" in filled[0][1] else ","
    rows = [*csv.reader((line for _, line in filled), delimiter=separator)]
    header = [name.strip() for name in rows[0]]
    for name in columns:
        if header.count(name) != 1:
            how = "several columns are" if name in header else "no column is"
            there = "" if name in header else f"; there are {', '.join(header)}"
            raise ColumnError(
                f"{how} called {name!r}{there}", file=file, place=f"line {filled[0][0]}", fix=FIX
            )
    order = [header.index(name) for name in columns]
    values = np.empty((len(rows) - 1, len(columns)))
    for into, row, (number, _) in zip(values, rows[1:], filled[1:], strict=True):
        if len(row) != len(header):
            raise refuse(f"{len(row)} cells, the header has {len(header)}", f"line {number}")
        for place, column in enumerate(order):
            into[place] = _number(row[column])
            if not np.isfinite(into[place]):
                raise refuse(
                    f"{row[column][:40]!r} is not a finite number", f"line {number}, column {header[column]}"
                )
    return values


def read_labels(values: Floats, file: Path, column: str, most: int | None = None) -> Integers:
    """Take labels [N] that are whole numbers from 0, to `most` where it is given.

    Raises
    ------
    SourceError
        One is something else.
    """
    wrong = (values < 0) | (values != np.round(values)) | (values > (np.inf if most is None else most))
    if wrong.any():
        which = "0, or 1 for a deposit" if most == 1 else "a whole number from 0"
        raise SourceError(
            f"{values[wrong][0]:g} is no label: it is {which}", file=file, place=f"column {column}", fix=FIX
        )
    labels: Integers = values.astype(np.int64)
    return labels


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
