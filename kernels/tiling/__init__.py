"""Tiles: the cells of a grid, each resampled to the square that a model takes."""

import os
from typing import Final

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array, on_gpu, output
from lithostream.kernels.errors import ContractError

__all__ = ["tiles"]

BYTES_PER_THREAD: Final = 1 << 20
"""Read and written; less is not worth starting a thread."""


def tiles(
    image: npt.NDArray[np.uint8],
    row_edges: npt.NDArray[np.int64],
    col_edges: npt.NDArray[np.int64],
    size_px: int,
    *,
    out: npt.NDArray[np.uint8] | None = None,
    stream: object | None = None,
) -> npt.NDArray[np.uint8]:
    """Cut an image into the cells of a grid and bring each to `size_px` by exact area resampling.

    An output pixel is the area-weighted mean of the source pixels that its footprint covers, down- as well
    as up-sampling, rounded half up. All sums are whole numbers, so the bytes are the same on any machine and for
    any number of threads; a cell that has the size already is left as it is.

    Parameters
    ----------
    image : uint8 [H, W, 3]
        Any strides.
    row_edges, col_edges : int64 [R + 1], int64 [C + 1]
        Pixel edges of the grid, on the host, strictly increasing, within 0..H and 0..W. One edge alone bounds no
        cell.
    size_px : int
        Edge of a tile, at least 1.
    out : uint8 [R, C, size_px, size_px, 3], optional
        C-contiguous array to fill and return; must not overlap `image`.
    stream : cupy.cuda.Stream, optional
        CuPy stream to queue the work on; NumPy arrays take none.

    Returns
    -------
    uint8 [R, C, size_px, size_px, 3]
        Tile (r, c) is cell (r, c). **Without `out`, where every cell has the size already, this is a view**: it
        shares the memory of `image` and changes with it, NumPy's is read-only (CuPy knows no such arrays), and
        a reshape to [R * C, ...] copies it. Else it is C-contiguous and the reshape is free.

    Raises
    ------
    ContractError
        Where an argument breaks the contract above.
    DeviceMismatchError, BackendUnavailableError
        If some arrays lie on a GPU, or all do and it cannot be used.

    Notes
    -----
    A view moves no bytes. Otherwise each cell is read once and each tile written once: 3 bytes per source pixel
    and 3 per output pixel. Resampling h x w pixels to s x s takes about 3 s (h / s + 1) w + 3 s (w / s + 1) s
    products. Scratch: at most 48 (w + s) bytes a thread, 8 (length + 3 s) for each length of cell that occurs, and
    a copy of one cell a thread where the pixels of a row are not packed. A thread takes cell after cell; one more
    for each MiB read and written, up to the cores.
    """
    gpu = on_gpu(stream=stream, image=image, out=out)
    check_array("image", image, dtype=np.uint8, shape=(None, None, 3))
    _check_edges("row_edges", row_edges, image.shape[0])
    _check_edges("col_edges", col_edges, image.shape[1])
    if size_px < 1:
        raise ContractError(f"size_px: expected at least 1, got {size_px}")
    if gpu:
        from lithostream.kernels.tiling import cuda

        return cuda.tiles(image, row_edges, col_edges, size_px, out, stream)
    shape = (len(row_edges) - 1, len(col_edges) - 1, size_px, size_px, 3)
    if out is None and (np.diff(row_edges) == size_px).all() and (np.diff(col_edges) == size_px).all():
        return _view(image, row_edges, col_edges, shape)
    out = output("out", out, dtype=np.uint8, shape=shape)
    moved = 3 * int(row_edges[-1] - row_edges[0]) * int(col_edges[-1] - col_edges[0]) + out.nbytes
    threads = min(os.cpu_count() or 1, 1 + moved // BYTES_PER_THREAD)
    _native.tiles(image, row_edges, col_edges, threads, out)
    return out


def _view(
    image: npt.NDArray[np.uint8],
    row_edges: npt.NDArray[np.int64],
    col_edges: npt.NDArray[np.int64],
    shape: tuple[int, ...],
) -> npt.NDArray[np.uint8]:
    """Tiles that are the cells themselves; splitting an axis never copies."""
    rows, columns, size_px = shape[:3]
    part = image[row_edges[0] : row_edges[-1], col_edges[0] : col_edges[-1]]
    cells = part.reshape(rows, size_px, columns, size_px, 3).swapaxes(1, 2)
    cells.flags.writeable = False
    return cells


def _check_edges(name: str, edges: npt.NDArray[np.int64], limit: int) -> None:
    check_array(name, edges, dtype=np.int64, shape=(None,))
    if not isinstance(edges, np.ndarray):
        raise ContractError(f"{name}: expected a NumPy array, for the grid lies on the host, got CuPy's")
    if len(edges) == 0:
        raise ContractError(f"{name}: expected at least one edge, got none")
    if np.any(edges[1:] <= edges[:-1]):
        k = int(np.argmax(edges[1:] <= edges[:-1]))
        raise ContractError(f"{name}: expected strictly increasing, got {edges[k]}, {edges[k + 1]} at {k}")
    if edges[0] < 0 or edges[-1] > limit:
        raise ContractError(f"{name}: expected within 0..{limit}, got {edges[0]}..{edges[-1]}")
