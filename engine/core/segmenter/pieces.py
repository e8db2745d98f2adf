"""Connected pieces of a label image, and what becomes of the small ones."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.segmenter.merge import borders, find
from lithostream.kernels.jit import compiled

Labels = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]


def join_small(pieces: Labels, areas: Ints, least: float) -> Ints:
    """Root of each piece, after those under `least` px, the smallest first, joined along their longest border."""
    pairs, length = borders(pieces)
    both = np.concatenate([pairs, pairs[:, ::-1]]) - 1
    order = np.lexsort((both[:, 1], -np.tile(length, 2), both[:, 0]))
    both = both[order]
    starts = np.searchsorted(both[:, 0], np.arange(len(areas)))
    has = starts < np.searchsorted(both[:, 0], np.arange(len(areas)), side="right")
    target = np.full(len(areas), -1, np.int64)
    target[has] = both[starts[has], 1]
    small = np.flatnonzero((areas < least) & has)
    small = small[np.lexsort((small, areas[small]))]
    return _absorb(small, target, areas.astype(np.int64), least)


def join_lesser(
    named: Ints, objects: int, superpixels: Labels, colour: npt.NDArray[np.float64], share: float
) -> Ints:
    """Name pieces of none of the first `objects` names after an object beside them that is far larger.

    Such a piece has at most `share` of the object's area: it is what the masks left over of it, a rim, a shadow or a
    patch. Of several objects it goes to that of the nearest mean colour, of equal ones to the first.

    Parameters
    ----------
    named : int64 [H, W]
        0 is no core.
    objects : int
    superpixels : int32 [H, W]
    colour : float64 [S, C]
        Mean of each superpixel.
    share : float
    """
    pieces = pieces_of(named)
    areas, name = areas_of(pieces), names_of(pieces, named)
    own = name <= objects
    sums = np.stack(
        [
            np.bincount(pieces.ravel(), np.concatenate([[0.0], channel])[superpixels].ravel(), len(areas) + 1)
            for channel in colour.T
        ],
        axis=1,
    )[1:]
    area = np.bincount(name[own], areas[own], objects + 1)
    total = np.zeros((objects + 1, sums.shape[1]))
    np.add.at(total, name[own], sums[own])
    pairs, _ = borders(pieces)
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T - 1
    beside = ~own[one] & own[other] & (areas[one] <= share * area[np.where(own[other], name[other], 0)])
    one, to = one[beside], name[other[beside]]
    gap = np.square(sums[one] / areas[one, None] - total[to] / area[to, None]).sum(axis=1)
    order = np.lexsort((to, gap))[::-1]  # the nearest last: it stays
    name[one[order]] = to[order]
    found: Ints = np.concatenate([[0], name])[pieces]
    return found


def areas_of(pieces: Labels) -> Ints:
    """Pixels of each piece, int64 [N]."""
    return np.bincount(pieces.ravel())[1:].astype(np.int64)


def names_of(pieces: Labels, named: Ints) -> Ints:
    """Name of each piece, int64 [N]."""
    flat = pieces.ravel()
    place = np.flatnonzero((np.diff(flat, prepend=0) != 0) & (flat > 0))
    name = np.zeros(int(flat.max(initial=0)), np.int64)
    name[flat[place] - 1] = named.ravel()[place]
    return name


@compiled
def _absorb(small: Ints, target: Ints, areas: Ints, least: float) -> Ints:
    root = np.arange(len(areas))
    total, size = areas.copy(), areas.copy()
    for one in small:
        here, there = find(root, one), find(root, target[one])
        if here == there or total[here] >= least:
            continue
        head, tail = (here, there) if size[here] > size[there] else (there, here)
        root[tail] = head
        total[head] += total[tail]
    for one in range(len(root)):
        root[one] = find(root, one)
    return root


@compiled
def pieces_of(named: Ints) -> Labels:
    """4-connected pieces of equal name, int32 [H, W], numbered 1.. by their first pixel; name 0 is none."""
    height, width = named.shape
    labels = np.zeros((height, width), np.int32)
    root = np.arange(named.size + 1)
    count = 0
    for y in range(height):
        for x in range(width):
            name = named[y, x]
            if name == 0:
                continue
            left = x > 0 and named[y, x - 1] == name
            above = y > 0 and named[y - 1, x] == name
            if left:
                labels[y, x] = labels[y, x - 1]
                if above and labels[y - 1, x] != labels[y, x]:
                    one, other = find(root, labels[y, x]), find(root, labels[y - 1, x])
                    root[max(one, other)] = min(one, other)
            elif above:
                labels[y, x] = labels[y - 1, x]
            else:
                count += 1
                labels[y, x] = count
    number = np.zeros(count + 1, np.int32)
    found = 0
    for one in range(1, count + 1):
        if find(root, one) == one:
            found += 1
            number[one] = found
        else:
            number[one] = number[find(root, one)]
    for y in range(height):
        for x in range(width):
            labels[y, x] = number[labels[y, x]]
    return labels
