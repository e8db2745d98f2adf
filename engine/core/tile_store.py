"""Tiles of windows in their records, and as those of the section."""

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.results import TileResult
from lithostream.engine.core.spill import Spill

_PREFIX = "tile_"


def tile_record(tiles: TileResult) -> dict[str, npt.NDArray[Any]]:
    """Columns of a window's tiles, for its record."""
    return {f"{_PREFIX}{field.name}": getattr(tiles, field.name) for field in fields(tiles)}


def read_tiles(windows: Spill, count: int) -> TileResult:
    """Read the tiles of all windows, `count` of them."""
    columns: dict[str, npt.NDArray[Any]] = {}
    first = 0
    for index in range(len(windows)):
        record = windows.read(index)
        for field in fields(TileResult):
            part = record[f"{_PREFIX}{field.name}"]
            column = columns.setdefault(field.name, np.empty((count, *part.shape[1:]), part.dtype))
            column[first : first + len(part)] = part
        first += len(part)
    return TileResult(**columns)
