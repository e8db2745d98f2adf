"""The segment map of a section: labels of windows, packed while it grows, read back as rows of the section."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.spill import Spill

LABELS, NUMBERS = "labels", "numbers"  # names in a window's record

Labels = npt.NDArray[np.int32]


def packed(labels: Labels) -> npt.NDArray[np.uint8]:
    """Compress a window's labels, int32 [h, W]: a few bytes a row."""
    return np.frombuffer(zlib.compress(np.ascontiguousarray(labels, np.int32).tobytes(), level=1), np.uint8)


class NumberedMap(NamedTuple):
    """Which segment every pixel of a section belongs to.

    Attributes
    ----------
    height_px, width_px : int
    windows : Spill
        A record for each window, of `LABELS`: its labels [h, W] packed, 0 is no core, its segments count from 1; and of
        `NUMBERS`: for each label the segment of the section, int64 [S], from 0.
    """

    height_px: int
    width_px: int
    windows: Spill

    def rows(self) -> Iterator[npt.NDArray[np.uint32]]:
        """Yield the section's rows, window after window, uint32 [h, W]; 0 is no core, else segment + 1."""
        for index in range(len(self.windows)):
            record = self.windows.read(index)
            labels = np.frombuffer(zlib.decompress(record[LABELS].tobytes()), np.int32).reshape(
                -1, self.width_px
            )
            yield np.concatenate([[0], record[NUMBERS] + 1]).astype(np.uint32)[labels]

    def preview(self, step: int) -> Iterator[npt.NDArray[np.uint32]]:
        """Yield every `step`-th pixel of every `step`-th row, uint32 [h, w]."""
        row = 0
        for labels in self.rows():
            yield labels[-row % step :: step, ::step]
            row += len(labels)
