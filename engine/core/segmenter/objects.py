"""From masks that overlap to objects and their parts: a hierarchy in which each place has one innermost object."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.segmenter.masks import OUTSIDE, MaskSet
from lithostream.engine.core.segmenter.pieces import pieces_of
from lithostream.engine.core.segmenter.view import CELL, View
from lithostream.kernels.arrays import to_host
from lithostream.kernels.jit import compiled

MOST = 1024  # best masks of a view that are looked at
LEAST_CELLS = 4  # a smaller mask is not resolved
WHOLE = 0.9  # a mask over more of the image in view says nothing
APART, WITHIN = (
    0.2,
    0.8,
)  # shares of the smaller mask that lie in the larger: at most, two objects; at least, a part
SAME = 0.7  # a part over more of its object is the same object once more
ISLAND = 0.3  # of a mask's largest piece; smaller pieces are left out
GROUP = 0.7  # an object made up of better ones to this share is a group of them
CONTRAST = 45.0  # colour difference to the rest of its object that makes a part a segment, in sample values

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Objects(NamedTuple):
    """Objects of a view.

    Attributes
    ----------
    logits : float32 [K, S, S]
        Of their masks; outer objects before their parts.
    parent : int64 [K]
        The object each lies in; -1 for none.
    shown : int32 [4 S, 4 S]
        Innermost object at each px of the view, from 1; 0 is none.
    """

    logits: npt.NDArray[np.float32]
    parent: Ints
    shown: npt.NDArray[np.int32]


def find_objects(masks: MaskSet, view: View) -> Objects:
    """Choose which masks are objects of their own.

    From the best mask on, one is dropped that crosses a better one or repeats it. The rest are nested or apart.
    Whole objects come first: a part remains if its object is a group of better ones, or if its colour differs from the
    rest of its object; else it becomes one with it. All of it is decided on the view alone, so two windows that see the same
    object treat it alike.
    """
    rows, cols = (-(-edge // CELL) for edge in view.valid)
    logits = _without_islands(masks.logits[:MOST])
    inside = (logits > 0).reshape(len(logits), logits.shape[1] * logits.shape[2])
    area = np.count_nonzero(inside, axis=1)
    able = np.flatnonzero((area >= LEAST_CELLS) & (area <= WHOLE * rows * cols))
    able = able[_consistent(_bits(inside[able]))]
    able = able[np.lexsort((able, -area[able]))]  # large first; a parent before its parts
    inside, area = inside[able], area[able]
    parent = _parents(inside, area)
    able_logits, quality = logits[able], masks.quality[able].astype(np.float64)
    keep, above = _separate(inside, parent, quality, _cell_colour(view))
    place = np.cumsum(keep) - 1
    parents = np.where(above[keep] >= 0, place[above[keep]], -1).astype(np.int64)
    return Objects(able_logits[keep], parents, _paint(able_logits[keep], quality[keep], parents))


def _without_islands(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Take out of each mask what is connected to none of its larger pieces."""
    cleaned = logits.copy()
    for mask in cleaned:
        pieces = pieces_of((mask > 0).astype(np.int64))
        areas = np.bincount(pieces.ravel())
        areas[0] = 0
        mask[(areas < ISLAND * areas.max())[pieces] & (pieces > 0)] = OUTSIDE
    return cleaned


def _bits(inside: Bools) -> npt.NDArray[np.uint8]:
    return np.packbits(inside, axis=1)


_ONES = np.array([byte.bit_count() for byte in range(256)], np.int64)


@compiled
def _consistent(bits: npt.NDArray[np.uint8]) -> Ints:
    """Places of the masks, best first, that neither cross nor repeat a better one."""
    count = len(bits)
    area = np.zeros(count, np.int64)
    kept = np.empty(count, np.int64)
    found = 0
    for one in range(count):
        for byte in bits[one]:
            area[one] += _ONES[byte]
        fits = True
        for place in range(found):
            other = kept[place]
            common = 0
            for byte in range(bits.shape[1]):
                common += _ONES[bits[one, byte] & bits[other, byte]]
            small, large = min(area[one], area[other]), max(area[one], area[other])
            nested = common >= WITHIN * small and small <= SAME * large
            if common > APART * small and not nested:
                fits = False
                break
        if fits:
            kept[found] = one
            found += 1
    return kept[:found]


def _parents(inside: Bools, area: Ints) -> Ints:
    """For masks sorted from the largest, the smallest that each lies in, or -1."""
    parent = np.full(len(area), -1, np.int64)
    for one in range(1, len(area)):
        common = np.count_nonzero(inside[:one, inside[one]], axis=1)
        around = np.flatnonzero(common >= WITHIN * area[one])
        if len(around):
            parent[one] = around[-1]
    return parent


def _separate(
    inside: Bools, parent: Ints, quality: npt.NDArray[np.float64], colour: npt.NDArray[np.float64]
) -> tuple[Bools, Ints]:
    """Which objects stay on their own, and the nearest of those around each."""
    keep, above = np.ones(len(parent), np.bool_), parent.copy()
    group = [_is_group(inside, quality, one, np.flatnonzero(parent == one)) for one in range(len(parent))]
    for one, outer in enumerate(parent):
        if outer < 0:
            continue
        above[one] = outer if keep[outer] else above[outer]
        rest = inside[outer] & ~inside[one]
        gap = np.linalg.norm(colour[inside[one]].mean(axis=0) - colour[rest].mean(axis=0))
        keep[one] = group[outer] or gap >= CONTRAST
    return keep, above


def _is_group(inside: Bools, quality: npt.NDArray[np.float64], one: int, parts: Ints) -> bool:
    if not len(parts):
        return False
    covered = np.count_nonzero(inside[parts].any(axis=0) & inside[one])
    mean = np.average(quality[parts], weights=np.count_nonzero(inside[parts], axis=1))
    return bool(covered >= GROUP * np.count_nonzero(inside[one]) and mean >= quality[one])


def _cell_colour(view: View) -> npt.NDArray[np.float64]:
    """Mean colour at each value of a mask, float64 [S * S, 3] on the host; from exact sums."""
    side = len(view.rgb) // CELL
    sums = view.rgb.reshape(side, CELL, side, CELL, 3).sum(axis=(1, 3), dtype=np.uint16)
    mean: npt.NDArray[np.float64] = to_host(sums).reshape(-1, 3) / CELL**2
    return mean


def _paint(
    logits: npt.NDArray[np.float32], quality: npt.NDArray[np.float64], parent: Ints
) -> npt.NDArray[np.int32]:
    """Innermost object at each px of the view; where two lie side by side and overlap, the better one.

    Outlines are interpolated between the masks' values: at their own resolution they would be off by up to half a cell.
    """
    depth = np.zeros(len(parent), np.int64)
    for one, outer in enumerate(parent):
        depth[one] = depth[outer] + 1 if outer >= 0 else 0
    order = np.lexsort((np.arange(len(parent)), quality, depth))
    shown = np.zeros((logits.shape[1] * CELL, logits.shape[2] * CELL), np.int32)
    _paint_over(shown, logits, order)
    return shown


@compiled
def _paint_over(shown: npt.NDArray[np.int32], logits: npt.NDArray[np.float32], order: Ints) -> None:
    """Paint masks one over the other, by bilinear interpolation about the middles of the cells."""
    side = logits.shape[1]
    for one in order:
        mask = logits[one]
        top, base, left, right = side, -1, side, -1
        for y in range(side):
            for x in range(side):
                if mask[y, x] > 0:
                    top, base = min(top, y), max(base, y)
                    left, right = min(left, x), max(right, x)
        for y in range(max(top - 1, 0) * CELL, min(base + 2, side) * CELL):
            v = min(max((y + 0.5) / CELL - 0.5, 0.0), side - 1.0)
            y0 = min(int(v), side - 2)
            v -= y0
            for x in range(max(left - 1, 0) * CELL, min(right + 2, side) * CELL):
                u = min(max((x + 0.5) / CELL - 0.5, 0.0), side - 1.0)
                x0 = min(int(u), side - 2)
                u -= x0
                above = mask[y0, x0] * (1 - u) + mask[y0, x0 + 1] * u
                below = mask[y0 + 1, x0] * (1 - u) + mask[y0 + 1, x0 + 1] * u
                if above * (1 - v) + below * v > 0:
                    shown[y, x] = one + 1
