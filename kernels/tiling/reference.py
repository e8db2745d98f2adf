"""Plain NumPy oracle of the tiles: repeat each pixel, then sum blocks, all in integers."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt


def tiles(
    image: npt.NDArray[np.uint8],
    row_edges: npt.NDArray[np.int64],
    col_edges: npt.NDArray[np.int64],
    size_px: int,
) -> npt.NDArray[np.uint8]:
    """Return what `lithostream.kernels.tiling.tiles` returns for valid arguments."""
    cells = [
        resample(image[y0:y1, x0:x1], size_px)
        for y0, y1 in pairwise(row_edges)
        for x0, x1 in pairwise(col_edges)
    ]
    shape = (len(row_edges) - 1, len(col_edges) - 1, size_px, size_px, 3)
    return np.array(cells, np.uint8).reshape(shape)


def resample(cell: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Resample one cell, uint8 [h, w, 3] to uint8 [size_px, size_px, 3].

    Once every pixel is split into `size_px` equal parts per axis, an output pixel is a block of h x w parts.
    """
    height, width, _ = cell.shape
    parts = np.repeat(cell.astype(np.int64), size_px, axis=0)  # [h * size_px, w, 3]
    total = parts.reshape(size_px, height, width, 3).sum(axis=1)  # [size_px, w, 3]
    parts = np.repeat(total, size_px, axis=1)  # [size_px, w * size_px, 3]
    total = parts.reshape(size_px, size_px, width, 3).sum(axis=2)  # [size_px, size_px, 3]
    area = height * width
    mean: npt.NDArray[np.uint8] = ((total + area // 2) // area).astype(np.uint8)
    return mean
