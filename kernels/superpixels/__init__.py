"""SLIC superpixels in integer arithmetic: the same labels on every machine."""

import math
import os

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array, on_gpu, output
from lithostream.kernels.errors import ContractError
from lithostream.kernels.superpixels.plan import plan_grid

__all__ = ["slic"]

MAX_PIXELS = 2**28
MAX_COMPACTNESS = 1000.0
PIXELS_PER_THREAD = 2**19
"""Under it a second thread saves less than it costs to start and to wait for, on a busy machine."""


def slic(
    image: npt.NDArray[np.uint8],
    *,
    n_segments: int,
    compactness: float,
    mask: npt.NDArray[np.bool_] | None = None,
    out: npt.NDArray[np.int32] | None = None,
    stream: object | None = None,
) -> npt.NDArray[np.int32]:
    """Divide an image into compact regions of similar colour.

    Each pixel joins the nearest of the up to nine superpixels that started in its own grid cell and the
    cells around it, by the sum of the channels' differences + compactness / step * (|dy| + |dx|) in px, in
    15-bit fixed point; a tie goes to the one of its own cell, then to the lower. The centres start at the
    means of their cells and move to the mean of their pixels in ten rounds, each over every sixth row (in
    cells under 24 px high over every fourth part of a cell's rows); then every pixel chooses. A pixel unlike
    its four neighbours joins the cluster that two of them share, or else the left one. Connected pieces under
    a quarter of the mean size join the neighbour of the nearest mean colour. Labels are numbered by their first pixel in row order.

    Parameters
    ----------
    image : uint8 [H, W, C]
        One to four channels, compared as they are; at most 2**28 pixels.
    n_segments : int
        Superpixels asked for, at least 1; the result has about as many, and more where texture tears
        superpixels into pieces.
    compactness : float
        Colour difference (in sample values) that weighs as much as one grid step; above 0, at most 1000.
    mask : bool [H, W], optional
        Pixels to label; all where absent.
    out : int32 [H, W], optional
        C-contiguous array to fill and return.
    stream : cupy.cuda.Stream, optional
        CuPy stream to queue the work on; NumPy arrays take none.

    Returns
    -------
    int32 [H, W]
        0 outside the mask, else 1..K without holes; every label is one 4-connected piece.

    Raises
    ------
    ContractError
        Naming the argument that does not fit.
    DeviceMismatchError
        If some arrays are NumPy's and some CuPy's.
    BackendUnavailableError
        If all arrays lie on a GPU and it cannot be used.

    Notes
    -----
    Per pixel C bytes must be read and 4 written. A comparison with a centre takes about 8 + 4 C operations on 16
    bits; at every sixth row a pixel meets 9 centres 10 / 6 + 1 times, so for C = 3 there are about 480 a pixel.
    Memory beside the result, from the first round on: C bytes a pixel; while pieces are merged 8 more per run of
    equal label in a row, and per piece about 100 and 8 a thread. Uses up to all cores, fewer where no more
    threads can be had; the labels do not depend on how many. Copies an image or mask that is not C-contiguous.
    On a GPU the labels are the same; scratch there is 4 bytes per pixel of the mask's box, 72 per grid cell and 64
    per connected piece, and the host waits once per round of merging.

    Source: Achanta et al. (2012), SLIC superpixels compared to state-of-the-art superpixel methods,
    doi 10.1109/TPAMI.2012.120; search by grid cell: Ren et al. (2015), gSLICr, arXiv 1509.04232; city-block
    distance and row sampling: as in fast-slic, github.com/Algy/fast-slic.
    """
    gpu = on_gpu(stream=stream, image=image, mask=mask, out=out)
    check_array("image", image, dtype=np.uint8, shape=(None, None, None))
    height, width, channels = image.shape
    if not 1 <= channels <= 4 or height * width > MAX_PIXELS:
        raise ContractError(
            f"image: expected 1 to 4 channels and at most 2**28 pixels, got {list(image.shape)}"
        )
    if mask is not None:
        check_array("mask", mask, dtype=np.bool_, shape=(height, width))
    if not isinstance(n_segments, int | np.integer) or n_segments < 1:
        raise ContractError(f"n_segments: expected a whole number from 1, got {n_segments}")
    if not (math.isfinite(compactness) and 0 < compactness <= MAX_COMPACTNESS):
        raise ContractError(
            f"compactness: expected above 0 and at most {MAX_COMPACTNESS:g}, got {compactness}"
        )
    if gpu:
        from lithostream.kernels.superpixels import cuda

        found: npt.NDArray[np.int32] = cuda.slic(
            image, n_segments=int(n_segments), compactness=compactness, mask=mask, out=out, stream=stream
        )
        return found
    labels = output("out", out, dtype=np.int32, shape=(height, width))
    plan = plan_grid((height, width, channels), mask, int(n_segments), compactness)
    if plan is None:
        labels.fill(0)
        return labels
    own_mask = None if mask is None else np.ascontiguousarray(mask)
    threads = min(os.cpu_count() or 1, 1 + height * width // PIXELS_PER_THREAD)
    grid = (plan.box, plan.cells, plan.stride, plan.unit, plan.weight, plan.min_size)
    _native.slic(np.ascontiguousarray(image), own_mask, *grid, threads, labels)
    return labels
