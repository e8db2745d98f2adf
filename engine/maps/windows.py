"""Windows of fixed size over a grid of any size, and the blending of answers where windows overlap."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError

Floats = npt.NDArray[np.float32]


class Box(NamedTuple):
    """Rows and columns of a grid: from `top` and `left`, without `bottom` and `right`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left


class Window(NamedTuple):
    """One window.

    Attributes
    ----------
    number : int
        From 0, row by row.
    own : Box
        What it answers alone where nothing is blended; these tile the grid.
    seen : Box
        What it reads: its own pixels and a halo around them, cut off at the grid's edges.
    """

    number: int
    own: Box
    seen: Box


def windows(shape: tuple[int, int], size: tuple[int, int], halo: int = 0) -> Iterator[Window]:
    """Yield the windows of a grid, row by row; they depend on nothing else.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the grid.
    size : (int, int)
        Rows and columns of a window; the last of a row and of a column are cut.
    halo : int
        Pixels around a window that it reads too; at most its smaller side.

    Raises
    ------
    ContractError
        A size is not positive, or the halo does not fit.
    """
    (rows, columns), (height, width) = shape, size
    if min(rows, columns, height, width) < 1 or not 0 <= halo <= min(height, width):
        raise ContractError(f"windows: got {size} with a halo of {halo} over {shape}")
    number = 0
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            own = Box(top, left, min(top + height, rows), min(left + width, columns))
            seen = Box(
                max(own.top - halo, 0),
                max(own.left - halo, 0),
                min(own.bottom + halo, rows),
                min(own.right + halo, columns),
            )
            yield Window(number, own, seen)
            number += 1


def taper(window: Window) -> Floats:
    """Weights of a window's answers, float32 [h, w] of `seen`: 1 inside, falling linearly over the overlap.

    Two neighbours overlap by twice the halo, where the weights of both add up to 1 but for what corners, and windows
    cut at the grid's edge, leave to the normalisation.
    """
    (top, left, bottom, right), seen = window.own, window.seen
    sides = []
    for start, stop, first, last in (
        (seen.top, seen.bottom, top - seen.top, seen.bottom - bottom),
        (seen.left, seen.right, left - seen.left, seen.right - right),
    ):
        place = np.arange(stop - start) + 0.5
        rising = place / (2 * first) if first else np.ones(stop - start)
        falling = (stop - start - place) / (2 * last) if last else np.ones(stop - start)
        sides.append(np.minimum(np.minimum(rising, falling), 1.0))
    return np.outer(*sides).astype(np.float32)


class Blend:
    """Puts the answers of windows with a halo together; holds one row of windows.

    Sums are float64, which holds a product of two float32 whole: where all windows answer a pixel alike, that answer is
    given back bit for bit.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the grid.
    size, halo
        As of `windows`.
    """

    def __init__(self, shape: tuple[int, int], size: tuple[int, int], halo: int) -> None:
        self._shape, self._size, self._halo = shape, size, halo
        self._top = 0
        self._held = min(size[0] + 2 * halo, shape[0])
        self._sum = np.zeros((self._held, shape[1]), np.float64)
        self._weight = np.zeros_like(self._sum)

    def add(self, window: Window, answer: Floats) -> Iterator[tuple[int, Floats]]:
        """Take the next window's answers and yield (first row, rows [n, W]) once no further window changes them.

        Parameters
        ----------
        window : Window
            In the order of `windows`.
        answer : float32 [h, w]
            Over what it has seen.
        """
        check_array("answer", answer, dtype=np.float32, shape=window.seen.shape)
        weight, seen = taper(window), window.seen
        part = np.s_[seen.top - self._top : seen.bottom - self._top, seen.left : seen.right]
        self._sum[part] += weight.astype(np.float64) * answer
        self._weight[part] += weight
        if window.own.right == self._shape[1]:  # the last of its row
            last = window.own.bottom == self._shape[0]
            yield (
                self._top,
                self._finish((self._shape[0] if last else window.own.bottom - self._halo) - self._top),
            )

    def _finish(self, count: int) -> Floats:
        rows: Floats = (self._sum[:count] / self._weight[:count]).astype(np.float32)
        for held in (self._sum, self._weight):
            held[: self._held - count] = held[count:].copy()
            held[self._held - count :] = 0
        self._top += count
        return rows
