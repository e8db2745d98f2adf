"""From regions of a view to prompts: for each a point well inside, and its box."""

import numpy as np
import numpy.typing as npt
from numba import njit

from lithostream.kernels.arrays import check_array

STRAIGHT, DIAGONAL = 3, 4  # steps of the chamfer distance (Borgefors 1986, doi 10.1016/S0734-189X(86)80047-0)

Floats = npt.NDArray[np.float32]


def prompts(labels: npt.NDArray[np.int32]) -> Floats:
    """Find for each region the pixel of it that is furthest from its border.

    A region's centroid may lie outside of it (a ring, a bow); this pixel does not. The edge of the view is a border.
    Of pixels equally far the nearest to the centroid is taken, then the first in row order.

    Parameters
    ----------
    labels : int32 [H, W]
        0 is no region.

    Returns
    -------
    float32 [P, 2]
        x, y in px, of the labels above 0 that occur, ascending.

    Raises
    ------
    ContractError
        `labels` is not an int32 [H, W].
    """
    check_array("labels", labels, dtype=np.int32, shape=(None, None))
    names, dense = _dense(labels)
    depth = _depth(dense)
    found = np.zeros((len(names), 2), np.int64)
    _furthest(dense, depth, found)
    return found.astype(np.float32)


def boxes(labels: npt.NDArray[np.int32]) -> Floats:
    """Bound each region, in the order of `prompts`: float32 [P, 4] of first x, first y, end x, end y in px.

    Raises
    ------
    ContractError
        `labels` is not an int32 [H, W].
    """
    check_array("labels", labels, dtype=np.int32, shape=(None, None))
    names, dense = _dense(labels)
    low = np.full((len(names) + 1, 2), max(labels.shape, default=0), np.int64)
    high = np.zeros((len(names) + 1, 2), np.int64)
    y, x = np.indices(labels.shape)
    for axis, place in enumerate((x, y)):
        np.minimum.at(low[:, axis], dense.ravel(), place.ravel())
        np.maximum.at(high[:, axis], dense.ravel(), place.ravel() + 1)
    return np.concatenate([low[1:], high[1:]], axis=1).astype(np.float32)


def _dense(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Labels above 0 that occur, and the view [H, W] in their places from 1."""
    names = np.unique(labels)
    names = names[names > 0]
    dense = np.where(labels > 0, np.searchsorted(names, labels) + 1, 0)
    return names, np.ascontiguousarray(dense, dtype=np.int64)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba is untyped
def _depth(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Chamfer distance [H, W] to the nearest pixel of another label, or beyond the edge."""
    height, width = labels.shape
    depth = np.full((height, width), STRAIGHT * (height + width), np.int64)
    for sweep in range(2):
        back = -1 if sweep == 0 else 1
        for i in range(height):
            y = i if sweep == 0 else height - 1 - i
            for j in range(width):
                x = j if sweep == 0 else width - 1 - j
                for dy, dx in ((0, back), (back, -1), (back, 0), (back, 1)):
                    step = STRAIGHT if dy == 0 or dx == 0 else DIAGONAL
                    ny, nx = y + dy, x + dx
                    inside = 0 <= ny < height and 0 <= nx < width and labels[ny, nx] == labels[y, x]
                    depth[y, x] = min(depth[y, x], depth[ny, nx] + step if inside else step)
    return depth


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _furthest(
    labels: npt.NDArray[np.int64], depth: npt.NDArray[np.int64], found: npt.NDArray[np.int64]
) -> None:
    """Fill `found` [P, 2] with x, y of the deepest pixel of each label from 1."""
    height, width = labels.shape
    sums = np.zeros((len(found), 3), np.int64)
    for y in range(height):
        for x in range(width):
            if labels[y, x] > 0:
                own = sums[labels[y, x] - 1]
                own[0] += 1
                own[1] += x
                own[2] += y
    best = np.zeros(
        (len(found), 2), np.int64
    )  # depth, and squared distance to the centroid times the square of the area
    for y in range(height):
        for x in range(width):
            label = labels[y, x] - 1
            if label < 0:
                continue
            area, x_sum, y_sum = sums[label]
            away = (area * x - x_sum) ** 2 + (area * y - y_sum) ** 2
            if depth[y, x] > best[label, 0] or (depth[y, x] == best[label, 0] and away < best[label, 1]):
                best[label, 0], best[label, 1] = depth[y, x], away
                found[label, 0], found[label, 1] = x, y
