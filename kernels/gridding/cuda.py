"""Inverse distance weighting on a GPU; the kernels are in `cuda.cu`."""

import math
from typing import Any, Final

import numpy as np

from lithostream.kernels.arrays import output
from lithostream.kernels.gridding import LARGEST_COORDINATE, LARGEST_VALUE, check_values
from lithostream.kernels.loader import cupy, gpu_module

TILE: Final = 16
"""Side of a tile in cells, one thread each, as kTile in `cuda.cu`."""

AREA: Final = 128
"""Side of an area in cells, a multiple of `TILE`."""

ROOM: Final = 8192
"""Points an area can name; one that can reach more leaves its tiles to look at all points."""

AREA_THREADS: Final = 512
INSPECT_THREADS: Final = 256
INSPECT_BLOCKS: Final = 512

FAST_K: Final = 12
"""Most neighbours of the kernel `cells_12`."""

BAD_POINT, BAD_VALUE, GAP = 1, 2, 4

Start = tuple[float, float, float, float]
"""x0, y0, dx, dy of a grid."""


def idw(
    points: Any,
    values: Any,
    start: Start,
    size: tuple[int, int],
    k: int | None,
    power: float,
    radius: float,
    out: Any,
    stream: Any,
) -> Any:
    """Return what `lithostream.kernels.gridding.idw` returns, for arguments proven there but for the numbers.

    The host waits once, to know that the numbers are valid, and again where some values are NaN, to drop the
    points that have none; the rest is queued. Distances, weights and sums are doubles, in the order of the CPU: with
    power 2 the bits are the CPU's, with others `pow` may differ in its last digits, hence float32 in the last bit.

    Each area of 128 x 128 cells reads all points some twenty times, each cell its candidates twice, where cells are
    many per point about 1.6 k; where more than 512 can be among the neighbours of a tile of 16 x 16, its cells read those of the area, and beyond 8192
    all points. k above 32 reads the candidates some 35 times. Scratch: 4 bytes per point, 8192 points at most, and area:
    2 bytes per cell or less; inputs that are not C-contiguous or have NaN are copied.
    """
    xp = cupy()
    with stream or xp.cuda.get_current_stream():
        kernels = gpu_module("gridding")
        points, values = xp.ascontiguousarray(points), xp.ascontiguousarray(values)
        found = _inspect(kernels, points, values)
        if found & (BAD_POINT | BAD_VALUE):
            check_values(points.get(), values.get())
        if found & GAP:
            known = xp.flatnonzero(~xp.isnan(values).all(axis=1))
            points, values = points[known], values[known]
        out = output("out", out, dtype=np.float32, shape=(values.shape[1], *size), empty=xp.empty)
        if len(points) == 0:
            out.fill(math.nan)
        elif out.size:
            limit = len(points) if k is None else min(k, len(points))
            rule = np.int32(not found & GAP), np.float64(power)
            _fill(kernels, points, values, (start, size), limit, radius, rule, out)
    return out


def _inspect(kernels: Any, points: Any, values: Any) -> int:
    """Return the flags of what is wrong or missing, in one pass on the GPU."""
    found = cupy().zeros(1, np.int32)
    size = max(points.size, values.size)
    if size:
        blocks = min(INSPECT_BLOCKS, -(-size // INSPECT_THREADS))
        arguments = points, np.int64(points.size), values, np.int64(values.size)
        limits = np.float64(LARGEST_COORDINATE), np.float64(LARGEST_VALUE)
        kernels.get_function("inspect")((blocks,), (INSPECT_THREADS,), (*arguments, *limits, found))
    return int(found.get()[0])


def _fill(
    kernels: Any,
    points: Any,
    values: Any,
    grid: tuple[Start, tuple[int, int]],
    limit: int,
    radius: float,
    rule: tuple[Any, Any],
    out: Any,
) -> None:
    """Queue the kernels: which points an area can reach, then its cells; `rule` is completeness and power."""
    xp = cupy()
    (count, channels), (start, (height, width)) = values.shape, grid
    room = min(count, ROOM)
    areas = -(-height // AREA) * -(-width // AREA)
    names, counts = xp.empty(areas * room, np.int32), xp.empty(areas, np.int32)
    shared = (
        *(points, np.int32(count), *map(np.float64, start)),
        *(np.int64(height), np.int64(width), np.int32(limit), np.float64(radius * radius)),
        *(np.int32(AREA), np.int32(room), names, counts),
    )
    kernels.get_function("areas")((areas,), (AREA_THREADS,), shared)
    tiles = -(-height // TILE) * -(-width // TILE)
    kernels.get_function("cells_12" if limit <= FAST_K else "cells_32")(
        (tiles,), (TILE * TILE,), (*shared, values, np.int32(channels), *rule, out)
    )
