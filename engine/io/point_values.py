"""Values in tables of points: numbers, those beyond a detection limit, those that are missing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import SourceError
from lithostream.engine.io.cells import MISSING_NUMBERS, MISSING_WORDS, number_of
from lithostream.engine.io.points import PointTable
from lithostream.engine.io.units import same_unit
from lithostream.engine.maps.manifest import Predictor

Floats = npt.NDArray[np.float64]


class PredictorRows(NamedTuple):
    """Predictors of a table's rows.

    Attributes
    ----------
    values : float32 [N, P]
        0 where missing.
    valid : bool [N]
        Rows that have every predictor.
    censored : bool [N]
        Rows of which a value is beyond a detection limit.
    notes : tuple of str
        What was made of such values, column by column.
    """

    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    censored: npt.NDArray[np.bool_]
    notes: tuple[str, ...]


def predictor_rows(table: PointTable, predictors: Sequence[Predictor]) -> PredictorRows:
    """Take the predictors out of a table, by name.

    A value below a detection limit, written `<0.5`, or negative where the predictor cannot be, is taken as half of the
    limit; one above, `>100`, as the limit. Empty cells, words for it and -9999, -99999 and -999.25 are missing.

    Raises
    ------
    SourceError
        A predictor has no column, or one in another unit; or a cell is none of that.
    """
    missing = [one.name for one in predictors if one.name not in table.columns]
    if missing:
        raise SourceError(
            f"no column for {', '.join(missing)}; there are {', '.join(table.columns)}",
            file=table.path,
            fix="name the columns as the bundle's predictors",
        )
    count = len(table)
    values, valid = np.zeros((count, len(predictors)), np.float32), np.ones(count, np.bool_)
    censored, notes = np.zeros(count, np.bool_), []
    for number, predictor in enumerate(predictors):
        unit, cells = table.columns[predictor.name]
        if unit and not same_unit(unit, predictor.unit):
            raise SourceError(
                f"{predictor.name} is in {unit!r}, the model takes {predictor.unit or 'a number without unit'!r}",
                file=table.path,
                place=f"column {predictor.name}",
                fix="convert the values, or correct the unit in the header",
            )
        read = [_value(cell, predictor, table, row) for row, cell in enumerate(cells)]
        with np.errstate(over="ignore"):  # beyond float32: infinite, so missing
            column = np.array([value for value, _ in read], np.float64).astype(np.float32)
        beyond, known = np.array([flag for _, flag in read], np.bool_), np.isfinite(column)
        values[:, number] = np.where(known, column, 0)
        valid &= known
        censored |= beyond
        if not known.all():
            notes.append(f"{predictor.name}: {int((~known).sum())} values are missing")
        if beyond.any():
            notes.append(
                f"{predictor.name}: {int(beyond.sum())} values beyond detection, taken as half of the lower limit or as the upper limit"
            )
    return PredictorRows(values, valid, censored, tuple(notes))


def duplicates(x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    """Tell which rows lie exactly where an earlier one does."""
    place = np.stack([x, y], axis=1)
    known = np.isfinite(place).all(axis=1)
    _, first = np.unique(place, axis=0, return_index=True)
    again = np.ones(len(place), np.bool_)
    again[first] = False
    return again & known


def _value(cell: str, predictor: Predictor, table: PointTable, row: int) -> tuple[float, bool]:
    """Value of a cell, NaN where missing, and whether it is beyond a detection limit."""
    text = cell.strip()
    if text.lower() in MISSING_WORDS:
        return np.nan, False
    limit = text[0] if text[0] in "<>" else ""
    number = number_of(text[len(limit) :])
    if number is None or (limit == "<" and number < 0):
        raise SourceError(
            f"{text[:40]!r} is no number"
            if number is None
            else f"{text[:40]!r}: half of a limit below 0 is above it",
            file=table.path,
            place=f"column {predictor.name}, row {row + table.first_line}",
            fix="write a number with a decimal point, <LIMIT, or nothing where it is missing",
        )
    if not limit and number in MISSING_NUMBERS:
        return np.nan, False
    if limit == ">":
        return number, True
    if limit == "<" or (predictor.non_negative and number < 0):
        return abs(number) / 2, True
    return number, False
