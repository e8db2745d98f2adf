"""Tiles: the cells of a grid, each resampled to the square that a model takes."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError
from lithostream.kernels.tiling.cpu import resample_cells

__all__ = ["tiles"]


def tiles(
    image: npt.NDArray[np.uint8],
    row_edges: npt.NDArray[np.int64],
    col_edges: npt.NDArray[np.int64],
    size_px: int,
    *,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Cut an image into the cells of a grid and bring each to `size_px` by exact area resampling.

    An output pixel is the area-weighted mean of the source pixels that its footprint covers, down- as well
    as up-sampling, rounded half up. All sums are integers, so the bytes are the same everywhere; a cell that
    has the size already is copied unchanged.

    Parameters
    ----------
    image : uint8 [H, W, 3]
        Any strides.
    row_edges, col_edges : int64 [R + 1], int64 [C + 1]
        Pixel edges of the grid, strictly increasing, within 0..H and 0..W. One edge alone bounds no cell.
    size_px : int
        Edge of a tile, at least 1.
    out : uint8 [R * C, size_px, size_px, 3], optional
        C-contiguous array to fill and return; must not overlap `image`.

    Returns
    -------
    uint8 [R * C, size_px, size_px, 3]
        Row by row over the grid: cell (r, c) is tile r * C + c.

    Raises
    ------
    ContractError
        Where an argument breaks the contract above.

    Notes
    -----
    Cost: about O(cell pixels + size_px * (cell width + size_px)) per cell, on the calling thread.
    """
    check_array("image", image, dtype=np.uint8, shape=(None, None, 3))
    _check_edges("row_edges", row_edges, image.shape[0])
    _check_edges("col_edges", col_edges, image.shape[1])
    if size_px < 1:
        raise ContractError(f"size_px: expected at least 1, got {size_px}")
    shape = ((len(row_edges) - 1) * (len(col_edges) - 1), size_px, size_px, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    check_array("out", out, dtype=np.uint8, shape=shape)
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ContractError("out: expected a writeable C-contiguous array, got one that is not")
    resample_cells(image, row_edges, col_edges, out)
    return out


def _check_edges(name: str, edges: npt.NDArray[np.int64], limit: int) -> None:
    check_array(name, edges, dtype=np.int64, shape=(None,))
    if len(edges) == 0:
        raise ContractError(f"{name}: expected at least one edge, got none")
    if np.any(edges[1:] <= edges[:-1]):
        k = int(np.argmax(edges[1:] <= edges[:-1]))
        raise ContractError(f"{name}: expected strictly increasing, got {edges[k]}, {edges[k + 1]} at {k}")
    if edges[0] < 0 or edges[-1] > limit:
        raise ContractError(f"{name}: expected within 0..{limit}, got {edges[0]}..{edges[-1]}")
