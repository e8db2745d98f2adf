"""Merging of superpixels by colour: the cheap step before masks, and all there is without them."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError
from lithostream.kernels.jit import compiled
from lithostream.kernels.segments import SegmentStats

Ints = npt.NDArray[np.int64]


def merge(
    labels: npt.NDArray[np.int32],
    stats: SegmentStats,
    *,
    threshold: float,
    among: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int32]:
    """Merge neighbouring superpixels of similar colour.

    Borders are taken from the weakest to the strongest, by the difference of the superpixels' means; the regions on
    both sides become one where the difference of *their* means, as far as they have grown, is at most `threshold`.
    Equal differences are taken in the order of the labels. So a region grows along a slow change of colour only as
    far as its mean allows.

    Parameters
    ----------
    labels : int32 [H, W]
        1..S; 0 is no core.
    stats : SegmentStats
        Of `labels`, S rows.
    threshold : float
        Euclidean difference of colours, in sample values; below 0 nothing is merged.
    among : bool [S], optional
        Superpixels that may merge; the others stay as they are.

    Returns
    -------
    int32 [S]
        New label of each superpixel, 1..R in the order of the first superpixel. Regions are 4-connected if
        superpixels are.

    Raises
    ------
    ContractError
        Labels and statistics that do not fit, or a threshold that is no number.

    Notes
    -----
    Sorting the borders is the cost: E log E for E pairs of neighbours, of which there are about 3 S.

    Source: the order and the union of components are those of Felzenszwalb and Huttenlocher (2004), Efficient graph-based
    image segmentation, doi 10.1023/B:VISI.0000022288.19776.77; the test by means is Nock and Nielsen's (2004),
    Statistical region merging, doi 10.1109/TPAMI.2004.110, with a fixed bound.
    """
    check_array("labels", labels, dtype=np.int32, shape=(None, None))
    if np.isnan(threshold):
        raise ContractError("threshold: expected a number, got NaN")
    if labels.size and labels.max() > len(stats.count):
        raise ContractError(f"stats: expected {labels.max()} rows, got {len(stats.count)}")
    pairs, _ = borders(labels)
    if among is not None:
        pairs = pairs[among[pairs - 1].all(axis=1)]
    gap = np.square(stats.mean[pairs[:, 0] - 1] - stats.mean[pairs[:, 1] - 1]).sum(axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], gap))
    bound = threshold * threshold if threshold >= 0 else -1.0
    weight = stats.count.astype(np.float64)
    root = _grow(pairs[order] - 1, stats.mean * weight[:, None], weight.copy(), bound)
    return (dense(root) + 1).astype(np.int32)


def borders(labels: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Find the pairs of labels above 0 that touch at an edge of a pixel, and along how many.

    Returns
    -------
    pairs : int64 [E, 2]
        Lower label first, ascending.
    length : int64 [E]
    """
    sides = []
    for one, other in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
        apart = (one != other) & (one > 0) & (other > 0)
        sides.append(np.stack([one[apart], other[apart]], axis=1).astype(np.int64))
    both = np.sort(np.concatenate(sides), axis=1)
    keys, length = np.unique((both[:, 0] << 32) | both[:, 1], return_counts=True)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1), length.astype(np.int64)


def dense(names: Ints) -> Ints:
    """Give names the numbers 0, 1, ... in the order in which they appear, int64 [N]."""
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    found: Ints = rank[inverse]
    return found


@compiled
def find(parent: Ints, node: int) -> int:
    """Root of a node; the way there is shortened."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def _grow(pairs: Ints, sums: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], bound: float) -> Ints:
    """Root of each superpixel once every pair had its turn; `sums` and `weight` become those of the roots."""
    parent = np.arange(len(weight))
    for edge in range(len(pairs)):
        one, other = find(parent, pairs[edge, 0]), find(parent, pairs[edge, 1])
        if one == other:
            continue
        gap = 0.0
        for channel in range(sums.shape[1]):
            gap += (sums[one, channel] / weight[one] - sums[other, channel] / weight[other]) ** 2
        if gap > bound:
            continue
        low, high = min(one, other), max(one, other)
        parent[high] = low
        weight[low] += weight[high]
        sums[low] += sums[high]
    for node in range(len(parent)):
        parent[node] = find(parent, node)
    return parent
