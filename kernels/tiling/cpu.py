"""Exact area resampling, compiled.

On an axis of n source and m output pixels, take 1 / (n * m) of the axis as the unit: a source pixel is m
units long, an output pixel n, and every overlap of the two is a whole number of units.
"""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.jit import compiled

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@compiled
def _gather_rows(cell: Bytes, k: int, size_px: int, line: Ints) -> None:
    """Sum the source rows under output row k, weighted by overlap, into `line` int64 [w, 3]."""
    height, width, _ = cell.shape
    line[:] = 0
    start, stop = k * height, (k + 1) * height
    for y in range(start // size_px, (stop - 1) // size_px + 1):
        weight = min(stop, (y + 1) * size_px) - max(start, y * size_px)
        for x in range(width):
            for c in range(3):
                line[x, c] += weight * np.int64(cell[y, x, c])


@compiled
def _reduce_line(line: Ints, height: int, row: Bytes) -> None:
    """Average `line` int64 [w, 3] over the footprints of the output pixels, into `row` uint8 [size_px, 3]."""
    width, size_px = line.shape[0], row.shape[0]
    area = height * width
    for k in range(size_px):
        start, stop = k * width, (k + 1) * width
        r = g = b = np.int64(area // 2)
        for x in range(start // size_px, (stop - 1) // size_px + 1):
            weight = min(stop, (x + 1) * size_px) - max(start, x * size_px)
            r += weight * line[x, 0]
            g += weight * line[x, 1]
            b += weight * line[x, 2]
        row[k, 0], row[k, 1], row[k, 2] = r // area, g // area, b // area


@compiled
def resample_cells(image: Bytes, row_edges: Ints, col_edges: Ints, out: Bytes) -> None:
    """Fill `out` uint8 [R * C, size_px, size_px, 3] with the cells of the grid."""
    size_px = out.shape[1]
    columns = len(col_edges) - 1
    for n in range(len(out)):
        y, x = divmod(n, columns)
        cell = image[row_edges[y] : row_edges[y + 1], col_edges[x] : col_edges[x + 1]]
        height, width, _ = cell.shape
        if height == size_px and width == size_px:
            out[n] = cell
            continue
        line = np.empty((width, 3), np.int64)
        for k in range(size_px):
            _gather_rows(cell, k, size_px, line)
            _reduce_line(line, height, out[n, k])
