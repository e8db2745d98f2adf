"""Superpixels refined by masks: which segment every pixel of a window belongs to."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.segmenter.merge import dense, merge
from lithostream.engine.core.segmenter.objects import Objects
from lithostream.engine.core.segmenter.pieces import areas_of, join_lesser, join_small, names_of, pieces_of
from lithostream.engine.core.segmenter.view import View
from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError
from lithostream.kernels.segments import SegmentStats

SPLIT_CELLS = 4  # a superpixel is cut by a mask's outline where both parts have as many cells of the mask
SPLIT_SHARE = 0.2  # and are this part of it
MERGE = 100.0  # colour difference, in sample values, of superpixels in no mask that are one region
LESSER = 0.25  # of the area of an object beside it; a smaller region in no mask is a part of it that its mask left over
SMALL = 0.25  # of a superpixel's mean area; smaller pieces join a neighbour

Labels = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]


class Refined(NamedTuple):
    """Segments of a window.

    Attributes
    ----------
    labels : int32 [H, W]
        1..S, numbered by their first pixel in row order; 0 is no core.
    area_px : int64 [S]
    parent : int64 [S]
        Label of the segment around each one whose object it is a part of; 0 for none.
    object : int64 [S]
        Index of its object in `Objects`; -1 where no mask lies and superpixels stand.
    """

    labels: Labels
    area_px: Ints
    parent: Ints
    object: Ints


def refine(superpixels: Labels, stats: SegmentStats, objects: Objects, view: View, row_px: int) -> Refined:
    """Give every pixel of the core its segment.

    A superpixel goes to the object that most of it lies in, so borders are those of superpixels, finer than the
    masks; one that an outline really cuts is divided there. Superpixels in no mask merge by colour; a region of them that is
    small beside an object it touches is what the mask left over, and joins it.
    A segment of an object may be several pieces: a crack or a shadow parts its pixels, not the object. All others are
    4-connected.

    Parameters
    ----------
    superpixels : int32 [H, W]
        0 is no core, else 1..N.
    stats : SegmentStats
        Of the superpixels' colours, N rows.
    objects : Objects
    view : View
    row_px : int
        The section's first row in `superpixels`.

    Raises
    ------
    ContractError
        Arrays that do not fit.
    """
    check_array("superpixels", superpixels, dtype=np.int32, shape=(None, None))
    if superpixels.size and superpixels.max() > len(stats.count):
        raise ContractError(f"stats: expected {superpixels.max()} rows, got {len(stats.count)}")
    area = np.bincount(superpixels.ravel(), minlength=len(stats.count) + 1)
    if not area[1:].any():
        empty = np.zeros(0, np.int64)
        return Refined(np.zeros_like(superpixels), empty, empty, empty)
    seen = _seen(objects.shown, superpixels.shape, view, row_px)
    first, second = _votes(superpixels, seen, np.maximum(SPLIT_CELLS * view.cell_px**2, SPLIT_SHARE * area))
    merged = merge(superpixels, stats, threshold=MERGE, among=(first[1:] == 0) | (second[1:] == 0))
    chosen = np.where(seen == second[superpixels], seen, first[superpixels])
    regions = len(objects.parent) + np.concatenate([[0], merged])
    named = np.where(chosen > 0, chosen, regions[superpixels]).astype(np.int64)
    named[superpixels == 0] = 0
    named = join_lesser(named, len(objects.parent), superpixels, stats.mean, LESSER)
    return _finish(named, len(objects.parent), objects.parent, area[1:][area[1:] > 0].mean())


def _seen(shown: Labels, shape: tuple[int, ...], view: View, row_px: int) -> Labels:
    """Object that the view shows at each pixel of the window, int32 [H, W]."""
    rows = (np.arange(shape[0]) + (row_px - view.row_px + 0.5)) / view.step_px
    cols = (np.arange(shape[1]) + 0.5) / view.step_px
    rows, cols = (np.minimum(places.astype(np.int64), len(shown) - 1) for places in (rows, cols))
    found: Labels = shown[rows[:, None], cols]
    return found


def _votes(superpixels: Labels, seen: Labels, least: npt.NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Object of most of each superpixel (0 is none), and of most of the rest if that is `least` px; else -1."""
    base = int(seen.max()) + 1
    key = (superpixels.astype(np.int64) * base + seen).ravel()
    starts = np.flatnonzero(np.diff(key, prepend=-1))  # runs of a key are long, so few keys are sorted
    keys, inverse = np.unique(key[starts], return_inverse=True)
    count = np.bincount(inverse, np.diff(starts, append=len(key))).astype(np.int64)
    order = np.lexsort((keys, -count, keys // base))
    owner, name, count = keys[order] // base, keys[order] % base, count[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    first, second = np.zeros(len(least), np.int64), np.full(len(least), -1, np.int64)
    first[owner[rank == 0]] = name[rank == 0]
    cut = (rank == 1) & (count >= least[owner]) & (owner > 0)
    second[owner[cut]] = name[cut]
    return first, second


def _finish(named: Ints, objects: int, parent: Ints, mean_area: float) -> Refined:
    """Settle pieces: small ones join a neighbour, others become segments; number them."""
    pieces = pieces_of(named)
    areas, name = areas_of(pieces), names_of(pieces, named)
    group = join_small(pieces, areas, SMALL * mean_area)
    name = name[group]  # the root is the piece that was large
    own = name <= objects
    segment = dense(np.where(own, name, objects + 1 + group))
    labels = np.concatenate([[0], segment + 1]).astype(np.int32)[pieces]
    found = np.full(segment.max() + 1, -1, np.int64)
    found[segment[own]] = name[own] - 1
    return Refined(labels, np.bincount(segment, areas).astype(np.int64), _parents(found, parent), found)


def _parents(found: Ints, parent: Ints) -> Ints:
    """Label of the segment of the nearest object around, for segments of the objects `found`."""
    label = np.zeros(len(parent) + 1, np.int64)
    label[found[found >= 0]] = np.flatnonzero(found >= 0) + 1
    around = np.zeros(len(parent) + 1, np.int64)
    for one, outer in enumerate(parent):
        if outer >= 0:
            around[one] = label[outer] or around[outer]
    return around[found]  # the last one, for -1, is 0
