"""Segments of neighbouring windows that are one object."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.segmenter.merge import dense, find
from lithostream.engine.core.segmenter.objects import Objects
from lithostream.engine.core.segmenter.refine import Refined
from lithostream.engine.core.segmenter.view import View

SAME = 0.5  # IoU inside the strip that both windows saw, at least

Ints = npt.NDArray[np.int64]


class Seam(NamedTuple):
    """What a window saw along one of its edges.

    Attributes
    ----------
    inside : uint8 [N, B]
        Bits of each object's mask, on a raster fixed to the edge.
    segment : int64 [N]
        The object's segment in the window, from 0.
    """

    inside: npt.NDArray[np.uint8]
    segment: Ints


def seam(objects: Objects, refined: Refined, view: View, edge_px: int, halo_px: int, height_px: int) -> Seam:
    """Keep the masks of a window's segments within a halo of one of its edges.

    Parameters
    ----------
    objects : Objects
    refined : Refined
    view : View
    edge_px : int
        The section's row where two windows meet.
    halo_px : int
        Rows on each side of it that both saw.
    height_px : int
        Rows of the section.
    """
    cell = view.cell_px
    steps = np.arange(-int(halo_px // cell), int(halo_px // cell)) + 0.5
    rows = edge_px + steps * cell
    rows = rows[(rows >= 0) & (rows < height_px)]
    side = objects.logits.shape[1]
    at = np.minimum(((rows - view.row_px) / cell).astype(np.int64), side - 1)
    segment = np.flatnonzero(refined.object >= 0)
    inside = (objects.logits[refined.object[segment]][:, at] > 0).reshape(len(segment), len(at) * side)
    return Seam(np.packbits(inside, axis=1), segment)


def match(above: Seam, below: Seam) -> Ints:
    """Pair the segments that are one object: int64 [P, 2] of (segment above, segment below).

    Two are one where the IoU of their masks in the strip is at least `SAME` and each is the other's best.
    """
    if not len(above.segment) or not len(below.segment):
        return np.zeros((0, 2), np.int64)
    one, other = (np.unpackbits(part.inside, axis=1).astype(np.float32) for part in (above, below))
    common = one @ other.T
    union = one.sum(axis=1)[:, None] + other.sum(axis=1) - common
    iou = common / np.maximum(union, 1)
    best = iou.argmax(axis=1)
    rows = np.arange(len(one))
    mutual = (iou.argmax(axis=0)[best] == rows) & (iou[rows, best] >= SAME)
    return np.stack([above.segment[mutual], below.segment[best[mutual]]], axis=1)


def number(counts: Sequence[int], pairs: Sequence[Ints]) -> list[Ints]:
    """Give the segments of a section their numbers, one for each object.

    Parameters
    ----------
    counts : sequence of int
        Segments of each window.
    pairs : sequence of int64 [P, 2]
        `match` of each window with the next, one fewer than windows.

    Returns
    -------
    list of int64 [S_w]
        For each window the number of each segment, 0.. in the order of windows and segments.
    """
    if len(pairs) != max(len(counts) - 1, 0):
        raise ValueError(f"expected {len(counts) - 1} seams, got {len(pairs)}")
    ends = np.cumsum(np.array(counts, np.int64))
    root = np.arange(ends[-1] if len(ends) else 0)
    for window, same in enumerate(pairs):
        for above, below in same:
            one = find(root, ends[window] - counts[window] + above)
            other = find(root, ends[window] + below)
            root[max(one, other)] = min(one, other)
    roots = np.array([find(root, node) for node in range(len(root))], np.int64)
    return np.split(dense(roots), ends[:-1]) if len(ends) else []


def total(number: Ints, parts: npt.NDArray[np.float64 | np.int64]) -> npt.NDArray[np.float64]:
    """Sum rows of one number, float64 [N, C] of [S, C]; windows in order, so the bits are always the same."""
    sums = np.zeros((int(number.max()) + 1 if len(number) else 0, *parts.shape[1:]))
    np.add.at(sums, number, parts)
    return sums


def together(
    number: Ints, weight: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation [N, C] of segments from those [S, C] of their pieces.

    `weight` [S] is the pixels that each mean is of; 0 leaves a piece out, and NaN is what nothing gives.
    """
    used = (weight > 0)[:, None]
    sums = total(number, weight[:, None])
    whole = np.where(sums > 0, sums, np.nan)
    joint = total(number, np.where(used, weight[:, None] * mean, 0)) / whole
    spread = weight[:, None] * (np.square(std) + np.square(mean - joint[number]))
    return joint, np.sqrt(total(number, np.where(used, spread, 0)) / whole)
