"""CSV tables of the calibration: patches of a card, and plain columns of numbers.

Patches have the columns name, top_cm, base_cm, left_cm, right_cm (section offset, and distance from the left edge
of the picture turned down-core) and what they are known to reflect: reflectance_r, reflectance_g, reflectance_b
(linear-light sRGB, 0..1) or srgb_r, srgb_g, srgb_b (0..255).
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import SourceError

Floats = npt.NDArray[np.float64]


def read_columns(path: Path, names: Sequence[str]) -> Floats:
    """Read columns of finite numbers, float64 [N, C].

    Raises
    ------
    SourceError
        A column is missing, a cell is no finite number, or the file cannot be read.
    """
    header, rows = _rows(path)
    missing = [name for name in names if name not in header]
    if missing or not rows:
        reason = f"no column {missing[0]!r} in {', '.join(header)}" if missing else "no rows below the header"
        raise SourceError(reason, file=path, place="line 1", fix=f"give the columns {', '.join(names)}")
    return np.array([[_number(path, line, row[name], name) for name in names] for line, row in rows])


def read_names(path: Path) -> tuple[str, ...]:
    """Read the column `name`, which may not repeat itself."""
    header, rows = _rows(path)
    names = tuple((row["name"] or "").strip() for _, row in rows) if "name" in header else ()
    if not names or "" in names or len(set(names)) != len(names):
        raise SourceError("patches without a name of their own", file=path, fix="fill the column name")
    return names


def has_column(path: Path, name: str) -> bool:
    """Whether a table has a column."""
    return name in _rows(path)[0]


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            return list(reader.fieldnames or []), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot be read as CSV: {error}", file=path, fix="save it as UTF-8 CSV") from error


def _number(path: Path, line: int, cell: str | None, column: str) -> float:
    try:
        value = float(cell or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SourceError(
            f"{cell!r} is not a finite number",
            file=path,
            place=f"line {line}, column {column}",
            fix="correct it",
        )
    return value
