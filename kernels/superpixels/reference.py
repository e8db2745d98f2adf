"""SLIC in plain Python and NumPy, for reading and for the tests; bit for bit the labels of the fast one."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.superpixels.plan import FIXED, ITERATIONS, WEIGHT_SHIFT, SeedGrid, plan_grid

Ints = npt.NDArray[np.int64]


def slic(
    image: npt.NDArray[np.uint8],
    *,
    n_segments: int,
    compactness: float,
    mask: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int32]:
    """Superpixel labels int32 [H, W]; see `lithostream.kernels.superpixels.slic`."""
    height, width, _ = image.shape
    labels = np.zeros((height, width), np.int32)
    plan = plan_grid(image.shape, mask, n_segments, compactness)
    if plan is None:
        return labels
    y0, x0, y1, x1 = plan.box
    inside = np.ones((y1 - y0, x1 - x0), np.bool_) if mask is None else mask[y0:y1, x0:x1]
    colours = image[y0:y1, x0:x1].astype(np.int64)
    labels[y0:y1, x0:x1] = _merge_small(
        _pieces(_settled(_cluster(colours, inside, plan))), colours, plan.min_size
    )
    return labels


def _cluster(colours: Ints, inside: npt.NDArray[np.bool_], plan: SeedGrid) -> Ints:
    """Cluster of each pixel, int64 [h, w]; -1 outside the mask. May be in several pieces."""
    height, width, channels = colours.shape
    rows, cols = plan.cells
    grid_y, grid_x = np.arange(height)[:, None] * rows // height, np.arange(width)[None, :] * cols // width
    cells = np.where(inside, grid_y * cols + grid_x, -1)
    scale = np.array([FIXED, FIXED] + [plan.unit] * channels)
    features = np.dstack((*np.mgrid[:height, :width], colours))  # int64 [h, w, 2 + C]
    counts, centres = _means(cells, features, rows * cols, scale)
    alive = counts > 0
    sampled = np.where((np.arange(height) % plan.stride == 0)[:, None], cells, -1)
    counts, means = _means(sampled, features, rows * cols, scale)
    centres = np.where(counts[:, None] > 0, means, centres)
    for i in range(ITERATIONS):
        clusters = _nearest(cells, features * scale, centres, alive, plan)
        clusters[np.arange(height) % plan.stride != i % plan.stride] = -1
        counts, means = _means(clusters, features, rows * cols, scale)
        centres = np.where(counts[:, None] > 0, means, centres)
    return _nearest(cells, features * scale, centres, alive, plan)


def _nearest(
    cells: Ints, features: Ints, centres: Ints, alive: npt.NDArray[np.bool_], plan: SeedGrid
) -> Ints:
    """Nearest of the nine centres around each cell; a tie goes to its own, then to the lower number."""
    rows, cols = plan.cells
    own_y, own_x = cells // cols, cells % cols
    best, nearest = np.full(cells.shape, np.iinfo(np.int64).max), cells.copy()
    for up, left in ((0, 0), *((j // 3 - 1, j % 3 - 1) for j in range(9))):
        cy, cx = own_y + up, own_x + left
        exists = (cells >= 0) & (cy >= 0) & (cy < rows) & (cx >= 0) & (cx < cols)
        candidate = np.where(exists, cy * cols + cx, 0)
        distance = np.abs(_weighted(features, plan) - _weighted(centres, plan)[candidate]).sum(-1)
        closer = exists & alive[candidate] & (distance < best)
        best[closer], nearest[closer] = distance[closer], candidate[closer]
    return nearest


def _weighted(features: Ints, plan: SeedGrid) -> Ints:
    """Scale y and x, in 1/16 px, so that one sample value weighs `plan.unit`."""
    weights = np.array([plan.weight] * 2 + [1 << WEIGHT_SHIFT] * (features.shape[-1] - 2))
    weighted: Ints = features * weights >> WEIGHT_SHIFT
    return weighted


def _means(regions: Ints, features: Ints, count: int, scale: Ints | int = FIXED) -> tuple[Ints, Ints]:
    """Pixels int64 [K] and rounded mean features int64 [K, F], times `scale`, of the regions 0..K-1."""
    sizes, sums = np.zeros(count, np.int64), np.zeros((count, features.shape[-1]), np.int64)
    inside = regions >= 0
    np.add.at(sizes, regions[inside], 1)
    np.add.at(sums, regions[inside], features[inside])
    divisor = np.maximum(sizes, 1)[:, None]
    return sizes, (sums * scale + divisor // 2) // divisor


def _settled(clusters: Ints) -> Ints:
    """Let a pixel unlike its four neighbours join the cluster that two of them share, or else the left one.

    Pixels at an edge of the image or the mask stay.
    """
    around = np.pad(clusters, 1, constant_values=-1)
    up, down, left, right = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    lone = clusters >= 0
    for neighbour in (up, down, left, right):
        lone &= (neighbour >= 0) & (neighbour != clusters)
    shared = np.where((right == up) | (right == down), right, np.where(up == down, up, left))
    return np.where(lone, shared, clusters)


def _pieces(clusters: Ints) -> Ints:
    """Return the 4-connected pieces, numbered by first pixel in row order, int64 [h, w]; -1 outside the mask."""
    pieces = np.full_like(clusters, -1)
    count = 0
    for start in zip(*np.nonzero(clusters >= 0), strict=True):
        if pieces[start] >= 0:
            continue
        pieces[start] = count
        stack = [start]
        while stack:
            y, x = stack.pop()
            for to in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                near = 0 <= to[0] < clusters.shape[0] and 0 <= to[1] < clusters.shape[1]
                if near and pieces[to] < 0 and clusters[to] == clusters[start]:
                    pieces[to] = count
                    stack.append(to)
        count += 1
    return pieces


def _merge_small(regions: Ints, colours: Ints, min_size: int) -> Ints:
    """Let every small region choose a neighbour, join all choices, and repeat; labels 1..K, 0 outside."""
    while True:
        count = int(regions.max()) + 1
        sizes, means = _means(regions, colours, count)
        lowest = list(range(count))  # lowest region number that each region is joined with
        for region, neighbours in _adjacent(regions).items():
            if sizes[region] < min_size:
                gaps = ((means[neighbours] - means[region]) ** 2).sum(-1)
                _join(lowest, region, neighbours[int(np.argmin(gaps))])
        kept, compact = np.unique(lowest, return_inverse=True)
        if len(kept) == count:
            return regions + 1
        regions = np.where(regions < 0, -1, compact[regions])


def _adjacent(regions: Ints) -> dict[int, list[int]]:
    """Neighbours of each region, ascending."""
    pairs: set[tuple[int, int]] = set()
    for a, b in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        border = (a != b) & (a >= 0) & (b >= 0)
        pairs |= set(zip(a[border].tolist(), b[border].tolist(), strict=True))
    adjacent: dict[int, list[int]] = {}
    for one, other in sorted(pairs | {(b, a) for a, b in pairs}):
        adjacent.setdefault(one, []).append(other)
    return adjacent


def _join(lowest: list[int], one: int, other: int) -> None:
    a, b = lowest[one], lowest[other]
    lowest[:] = [min(a, b) if label in (a, b) else label for label in lowest]
