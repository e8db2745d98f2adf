"""Connected pixels of a map that is seen window by window: labels inside a window, and their joining across borders.

Two passes with a table of equivalent labels: Rosenfeld and Pfaltz (1966), doi:10.1145/321356.321357. Sums are of whole
numbers, so that they are the same for any windows.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lithostream.engine.maps.windows import Window
from lithostream.kernels.jit import compiled

ONE = 1 << 24
"""What a probability of 1 counts as in sums: 4e8 pixels of it, a whole map, still fit."""

FIELDS = (
    "pixels",
    "probability",
    "uncertainty",
    "row",
    "column",
    "most",
    "most_at",
    "first",
    "top",
    "left",
    "bottom",
    "right",
)
"""Of a component: four sums after the count, the largest probability and its place, the first place, the box around
it. A place is row x width of the grid + column."""
_SUMS = slice(0, 5)
_MOST, _MOST_AT, _FIRST, _TOP, _LEFT, _BOTTOM, _RIGHT = range(5, 12)

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@compiled
def _root(parent: Labels, label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@compiled
def label(mask: Bools) -> tuple[Labels, int]:
    """Label the pixels of a mask [h, w] that touch by their sides: int32 [h, w], 0 is none, and how many there are."""
    height, width = mask.shape
    labels = np.zeros((height, width), np.int32)
    parent = np.zeros(height * width // 2 + 2, np.int32)
    count = 0
    for row in range(height):
        for column in range(width):
            if not mask[row, column]:
                continue
            above = labels[row - 1, column] if row else 0
            left = labels[row, column - 1] if column else 0
            if above and left:
                one, two = _root(parent, above), _root(parent, left)
                parent[max(one, two)] = min(one, two)
                labels[row, column] = min(one, two)
            elif above or left:
                labels[row, column] = above + left
            else:
                count += 1
                parent[count] = count
                labels[row, column] = count
    final, found = np.zeros(count + 1, np.int32), 0
    for one in range(1, count + 1):  # roots come before those that lead to them
        if parent[one] == one:
            found += 1
            final[one] = found
        else:
            final[one] = final[_root(parent, one)]
    for row in range(height):
        for column in range(width):
            labels[row, column] = final[labels[row, column]]
    return labels, found


@compiled
def measure(
    labels: Labels, count: int, probability: Floats, uncertainty: Floats, top: int, left: int, grid_width: int
) -> Ints:
    """Measure the components of a window at (top, left) of the grid: int64 [count, 12], see `FIELDS`."""
    found = np.zeros((count, 12), np.int64)
    found[:, 5] = -1
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            if labels[row, column] == 0:
                continue
            one = found[labels[row, column] - 1]
            at_row, at_column = top + row, left + column
            place = at_row * grid_width + at_column
            value = np.int64(np.rint(np.float64(probability[row, column]) * ONE))
            if one[0] == 0:
                one[7], one[8], one[9], one[10], one[11] = place, at_row, at_column, at_row, at_column
            one[0] += 1
            one[1] += value
            one[2] += np.int64(np.rint(np.float64(uncertainty[row, column]) * ONE))
            one[3] += at_row
            one[4] += at_column
            if value > one[5]:
                one[5], one[6] = value, place
            one[9], one[11] = min(one[9], at_column), max(one[11], at_column)
            one[10] = max(one[10], at_row)
    return found


def merged(one: Ints, two: Ints) -> Ints:
    """Return the measures of two parts of one component as those of the whole."""
    whole = np.minimum(one, two)
    whole[_SUMS] = one[_SUMS] + two[_SUMS]
    leading = min((one, two), key=lambda part: (-part[_MOST], part[_MOST_AT]))
    whole[_MOST], whole[_MOST_AT] = leading[_MOST], leading[_MOST_AT]
    whole[_BOTTOM], whole[_RIGHT] = max(one[_BOTTOM], two[_BOTTOM]), max(one[_RIGHT], two[_RIGHT])
    return whole


class Components:
    """Joins the components of windows that come in order; holds those that the next row of windows can still join.

    Parameters
    ----------
    width : int
        Columns of the grid.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._parts: list[Ints] = []  # of components that touch a border of their window
        self._parent: list[int] = []
        self._below = np.full(width, -1, np.int64)  # part at the bottom of the row of windows above
        self._bottom = np.full(width, -1, np.int64)  # and of this one
        self._right = np.empty(0, np.int64)

    def add(self, window: Window, mask: Bools, probability: Floats, uncertainty: Floats) -> Iterator[Ints]:
        """Take the next window and yield measures [n, 12] of components that are whole.

        Parameters
        ----------
        window : Window
            In the order of `windows`.
        mask : bool [h, w]
            Pixels that belong to a component; their probability and uncertainty are numbers.
        probability, uncertainty : float32 [h, w]
        """
        own = window.own
        labels, count = label(mask)
        found = measure(labels, count, probability, uncertainty, own.top, own.left, self._width)
        edges = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
        open_ = np.unique(np.concatenate(edges))
        open_ = open_[open_ > 0]
        number = np.full(count + 1, -1, np.int64)
        number[open_] = len(self._parts) + np.arange(len(open_))
        yield np.delete(found, open_ - 1, axis=0)
        self._parts += list(found[open_ - 1])
        self._parent += range(len(self._parent), len(self._parts))
        self._join(self._below[own.left : own.right], number[labels[0]])
        if own.left:
            self._join(self._right, number[labels[:, 0]])
        self._right = number[labels[:, -1]]
        self._bottom[own.left : own.right] = number[labels[-1]]
        if own.right == self._width:
            yield self._close_row()

    def rest(self) -> Ints:
        """Return what is left after the last window."""
        self._bottom[:] = -1
        return self._close_row()

    def _join(self, before: Ints, here: Ints) -> None:
        both = (before >= 0) & (here >= 0)
        for one, two in np.unique(np.stack([before[both], here[both]], axis=1), axis=0):
            first, second = sorted((self._find(int(one)), self._find(int(two))))
            if first != second:
                self._parent[second] = first
                self._parts[first] = merged(self._parts[first], self._parts[second])

    def _find(self, part: int) -> int:
        while self._parent[part] != part:
            self._parent[part] = self._parent[self._parent[part]]
            part = self._parent[part]
        return part

    def _close_row(self) -> Ints:
        """Give up the components that do not reach the bottom of the row of windows, and number the others anew."""
        reaching = {part: self._find(int(part)) for part in np.unique(self._bottom) if part >= 0}
        kept = sorted(set(reaching.values()))
        roots = [part for part, parent in enumerate(self._parent) if part == parent]
        closed = [self._parts[part] for part in sorted(set(roots) - set(kept))]
        place = {part: number for number, part in enumerate(kept)}
        self._below = np.array(
            [place[reaching[part]] if part >= 0 else -1 for part in self._bottom], np.int64
        )
        self._parts, self._parent = [self._parts[part] for part in kept], list(range(len(kept)))
        self._right, self._bottom = np.empty(0, np.int64), np.full(self._width, -1, np.int64)
        return np.array(closed, np.int64).reshape(-1, len(FIELDS))
