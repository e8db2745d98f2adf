"""SLIC superpixels on a GPU, bit for bit those of the CPU; the kernels are in `cuda.cu`."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np

from lithostream.kernels.arrays import output
from lithostream.kernels.loader import cupy, gpu_module
from lithostream.kernels.superpixels.plan import ITERATIONS, SeedGrid, plan_grid

TILE: Final = (16, 32)
"""Pixels of a block of the kernels that sum or assign, as kHigh and kWide in `gpu_tile.h`."""

THREADS: Final = 128
"""Threads of such a block, as kThreads in `gpu_tile.h`."""

SIDE: Final = 32
"""Of a tile in which pixels are joined first, as kSide in `cuda.cu`."""

JOIN_THREADS: Final = 256
"""Threads of every other block, as kJoinThreads in `cuda.cu`."""

CHUNK: Final = 256
"""Members numbered by one warp, as kChunk in `gpu_forest.h`."""

CENTRE_BYTES: Final = 16
CLUSTER_SUMS: Final = 7
REGION_BYTES: Final = 12
PIECE_SUMS: Final = 5
EXTENT_BLOCKS: Final = 1024

Launch = Callable[..., None]
"""Takes the name of a kernel, its blocks, the threads of each, and its arguments."""


def slic(
    image: Any,
    *,
    n_segments: int,
    compactness: float,
    mask: Any | None = None,
    out: Any | None = None,
    stream: Any | None = None,
) -> Any:
    """Return what `lithostream.kernels.superpixels.slic` returns, for arguments proven there but for `out`.

    The host waits for the number of connected pieces, once per round of merging for whether anything changed
    (a handful) and, with a mask, for its box. Scratch: 4 bytes per pixel of the mask's box, 72 per grid cell and 64
    per connected piece, all from CuPy's pool; `out` holds the clusters meanwhile. About 37 + 6 C bytes per pixel are
    moved, 4 more in each round of merging, and 3 more with a mask. Copies an image or mask that is not C-contiguous.

    Source: connected pieces by union-find, tiles first, then their borders: Playne and Hawick (2018), A new algorithm
    for parallel connected-component labelling on GPUs, doi 10.1109/TPDS.2018.2799216.
    """
    xp = cupy()
    with stream or xp.cuda.get_current_stream():
        get_function = cache(gpu_module("superpixels").get_function)

        def launch(name: str, blocks: int, threads: int, *arguments: Any) -> None:
            get_function(name)((blocks,), (threads,), arguments)

        labels = output("out", out, dtype=np.int32, shape=image.shape[:2], empty=xp.empty)
        image = xp.ascontiguousarray(image)
        if mask is not None:
            mask = xp.ascontiguousarray(mask)
        extent = None if mask is None else _Extent(mask, launch)
        plan = plan_grid(image.shape, extent, n_segments, compactness)  # type: ignore[arg-type]  # a stand-in
        if plan is None:
            labels.fill(0)
            return labels
        y0, x0, y1, x1 = plan.box
        if (y1 - y0, x1 - x0) != labels.shape:
            labels.fill(0)
        inner = np.s_[y0:y1, x0:x1]  # views: the kernels are told how far apart rows lie
        own_mask = None if mask is None else mask[inner]
        _cluster(image[inner], own_mask, plan, labels[inner], launch)
        _merge(image[inner], plan.min_size, labels[inner], launch)
    return labels


class _Extent:
    """What `plan_grid` asks of a mask, so that no pixel of it leaves the GPU."""

    def __init__(self, mask: Any, launch: Launch) -> None:
        height, width = mask.shape
        found = cupy().asarray(np.array([height, width, 0, 0, 0], np.int32))
        if mask.size:
            blocks = min(EXTENT_BLOCKS, _blocks(mask.size, JOIN_THREADS))
            launch("extent", blocks, JOIN_THREADS, mask, np.int32(mask.size), np.int32(width), found)
        top, left, bottom, right, self.area = found.get().tolist()
        self.sides = np.zeros(bottom, np.bool_), np.zeros(right, np.bool_)
        self.sides[0][top:], self.sides[1][left:] = True, True

    def any(self, axis: int) -> Any:
        """Whether a row (axis 1) or a column (axis 0) lies within the box of the mask."""
        return self.sides[1 - axis]

    def __array_function__(self, function: object, *_: object) -> Any:
        """Answer `np.count_nonzero`, and no other function."""
        return self.area if function is np.count_nonzero else NotImplemented


def _cluster(image: Any, mask: Any | None, plan: SeedGrid, clusters: Any, launch: Launch) -> None:
    """Write the cluster of each pixel, -1 outside the mask."""
    xp = cupy()
    height, width, channels = image.shape
    pitch, (rows, cols) = clusters.strides[0] // 4, plan.cells
    count = rows * cols
    centres = xp.full(count * CENTRE_BYTES, 0xFF, np.uint8)  # none yet
    sums = xp.zeros((count, CLUSTER_SUMS), np.uint64)
    weights = np.int32(plan.weight), np.int32(plan.unit)
    sizes = (np.int32(n) for n in (channels, pitch, height, width, rows, cols))
    masked = np.int32(mask is not None)  # else the image fills the place of a pointer that is never read
    picture = image, image if mask is None else mask, masked, *sizes, *weights

    def round_over(first: int, stride: int, seeding: bool) -> None:
        tiles = _blocks(-(-(height - first) // stride), TILE[0]) * _blocks(width, TILE[1])
        sampling = np.int32(first), np.int32(stride), np.int32(seeding)
        launch("collect", tiles, THREADS, *picture, *sampling, centres, sums)
        moved = np.int32(count), *weights, np.int32(seeding), sums, centres
        launch("move", _blocks(count, JOIN_THREADS), JOIN_THREADS, *moved)

    round_over(0, plan.stride, True)
    if mask is not None:
        round_over(0, 1, True)  # seeds of cells with no mask in those rows
    for i in range(ITERATIONS):
        round_over(i % plan.stride, plan.stride, False)
    tiles = _blocks(height, TILE[0]) * _blocks(width, TILE[1])
    launch("assign", tiles, THREADS, *picture, centres, clusters)


def _merge(image: Any, min_size: int, labels: Any, launch: Launch) -> None:
    """Replace clusters by the numbers of their connected pieces, the small ones merged."""
    xp = cupy()
    height, width, channels = image.shape
    shape = np.int32(labels.strides[0] // 4), np.int32(height), np.int32(width)
    pixels = height * width, JOIN_THREADS

    parent = xp.empty(height * width, np.int32)
    launch(
        "connect_tiles", _blocks(height, SIDE) * _blocks(width, SIDE), JOIN_THREADS, labels, *shape, parent
    )
    border = (width - 1) // SIDE * height + (height - 1) // SIDE * width
    if border:
        launch("connect_borders", _blocks(border, JOIN_THREADS), JOIN_THREADS, labels, *shape, parent)
    launch("flatten", _blocks(*pixels), JOIN_THREADS, np.int32(height * width), parent)
    count = int(_number(parent, launch))

    masses = xp.zeros((count, PIECE_SUMS), np.uint64)
    tiles = _blocks(height, TILE[0]) * _blocks(width, TILE[1])
    launch("weigh", tiles, THREADS, image, np.int32(channels), *shape, parent, labels, masses)
    regions = _join_small(labels, shape, masses, min_size, launch)
    _number(regions, launch)
    launch("label", _blocks(*pixels), JOIN_THREADS, regions, *shape, labels)


def _join_small(pieces: Any, shape: tuple[Any, ...], masses: Any, min_size: int, launch: Launch) -> Any:
    """Return the lowest piece of the region of each piece, int32 [K]."""
    xp = cupy()
    count = len(masses)
    parent = xp.arange(count, dtype=np.int32)
    regions, choice = xp.empty(count * REGION_BYTES, np.uint8), xp.empty(count, np.uint64)
    changed = xp.empty(1, np.int32)
    each = _blocks(count, JOIN_THREADS), JOIN_THREADS, np.int32(count)
    pixels = _blocks(pieces.size, JOIN_THREADS), JOIN_THREADS
    while True:
        launch("describe", *each, np.int32(min_size), parent, masses, regions, choice, changed)
        launch("choose", *pixels, pieces, *shape, parent, regions, choice)
        launch("join_choices", *each, choice, parent, changed)
        if not int(changed[0]):
            return parent
        launch("gather", *each, parent, masses)


def _number(parent: Any, launch: Launch) -> Any:
    """Give the roots of flat trees their numbers, ascending; return how many there are, int32 [] on the GPU."""
    chunks = _blocks(parent.size, CHUNK)
    roots = cupy().empty(chunks, np.int32)
    each = _blocks(chunks * 32, JOIN_THREADS), JOIN_THREADS, parent, np.int32(parent.size), np.int32(chunks)
    launch("count_roots", *each, roots)
    ends = cupy().cumsum(roots, dtype=np.int32)
    launch("number_roots", *each, ends)
    return ends[-1]


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
