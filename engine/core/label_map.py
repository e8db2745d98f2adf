"""The segment map of a section: labels of windows, packed while it grows, read back as rows of the section."""

from collections.abc import Iterator
from typing import NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt

from lithostream.engine.core.spill import Spill

LEVEL = 1  # of zstd: half the time of zlib's fastest, and half the size; higher ones are no smaller
LABELS, NUMBERS = "labels", "numbers"  # names in a window's record

Labels = npt.NDArray[np.int32]


def packed(labels: Labels) -> npt.NDArray[np.uint8]:
    """Compress a window's labels, int32 [h, W], to about a twentieth of a byte each."""
    content = imagecodecs.zstd_encode(labels.astype(np.int32, copy=False).tobytes(), level=LEVEL)
    return np.frombuffer(content, np.uint8)


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
        for labels, number in self._windows():
            yield number[labels]

    def preview(self, step: int) -> Iterator[npt.NDArray[np.uint32]]:
        """Yield every `step`-th pixel of every `step`-th row, uint32 [h, w]."""
        row = 0
        for labels, number in self._windows():
            yield number[labels[-row % step :: step, ::step]]
            row += len(labels)

    def _windows(self) -> Iterator[tuple[Labels, npt.NDArray[np.uint32]]]:
        """Yield the labels of each window, and what each of them is called in the section."""
        for index in range(len(self.windows)):
            record = self.windows.read(index)
            content = imagecodecs.zstd_decode(record[LABELS].tobytes())
            number = np.concatenate([[0], record[NUMBERS] + 1]).astype(np.uint32)
            yield np.frombuffer(content, np.int32).reshape(-1, self.width_px), number
