"""The whole map, small: means over squares of pixels, for the picture in the report."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.maps.components import ONE
from lithostream.engine.maps.predict import NODATA, OUT_OF_DOMAIN, Answer
from lithostream.engine.maps.windows import Box

EDGE_PX = 1000  # of the longer side, at most

Floats = npt.NDArray[np.float64]


class Overview:
    """Collects the means of a map's windows, which may come in any order.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the grid.

    Attributes
    ----------
    step : int
        Pixels along the side of a square.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.step = -(-max(shape) // EDGE_PX)
        small = -(-shape[0] // self.step), -(-shape[1] // self.step)
        self._sum, self._count, self._outside = (np.zeros(small, np.int64) for _ in range(3))
        self.missing = 0

    def add(self, box: Box, answer: Answer) -> None:
        """Take the answer of a box of the grid."""
        known = np.isfinite(answer.probability)
        whole = np.rint(np.where(known, answer.probability, 0).astype(np.float64) * ONE).astype(np.int64)
        self._gather(self._sum, box, whole)
        self._gather(self._count, box, known.astype(np.int64))
        self._gather(self._outside, box, (answer.flags & OUT_OF_DOMAIN > 0).astype(np.int64))
        self.missing += int((answer.flags & NODATA > 0).sum())

    @property
    def probability(self) -> Floats:
        """Mean probability of each square, NaN where none of its pixels has one."""
        return np.where(self._count > 0, self._sum / ONE / np.maximum(self._count, 1), np.nan)

    @property
    def outside(self) -> npt.NDArray[np.bool_]:
        """Squares of which most is out of the model's domain."""
        return (self._count > 0) & (2 * self._outside > self._count)

    @property
    def answered(self) -> int:
        """Pixels with an answer."""
        return int(self._count.sum())

    @property
    def out_of_domain(self) -> int:
        """Pixels out of the model's domain."""
        return int(self._outside.sum())

    def _gather(self, into: npt.NDArray[np.int64], box: Box, values: npt.NDArray[np.int64]) -> None:
        for axis, start in ((0, box.top), (1, box.left)):
            cuts = np.flatnonzero((start + np.arange(values.shape[axis])) % self.step == 0)
            values = np.add.reduceat(values, np.unique([0, *cuts]), axis=axis)
        row, column = box.top // self.step, box.left // self.step
        into[row : row + values.shape[0], column : column + values.shape[1]] += values
