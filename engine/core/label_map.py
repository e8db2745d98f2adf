"""The segment map of a section while it grows: a few bytes a row, whatever the length of the core."""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]


class LabelMap:
    """Label images of windows, held compressed and read back as rows of the section.

    Parameters
    ----------
    width_px : int
    """

    def __init__(self, width_px: int) -> None:
        self.width_px = width_px
        self.height_px = 0
        self._strips: list[bytes] = []

    def append(self, labels: Labels) -> None:
        """Add the next window's labels, int32 [h, W]; 0 is no core, its segments count from 1."""
        if labels.shape[1:] != (self.width_px,):
            raise ValueError(f"expected rows of {self.width_px} px, got {labels.shape}")
        self.height_px += len(labels)
        self._strips.append(zlib.compress(np.ascontiguousarray(labels, np.int32).tobytes(), level=1))

    def numbered(self, segments: Sequence[npt.NDArray[np.int64]]) -> "NumberedMap":
        """Give every window's label its segment of the section.

        Parameters
        ----------
        segments : sequence of int64 [S_w]
            For each window, the segment that its label 1, 2, ... belongs to, from 0.
        """
        if len(segments) != len(self._strips):
            raise ValueError(f"expected {len(self._strips)} windows, got {len(segments)}")
        return NumberedMap(self.height_px, self.width_px, tuple(self._strips), tuple(segments))


class NumberedMap:
    """Which segment every pixel of a section belongs to.

    Parameters
    ----------
    height_px, width_px : int
    strips : tuple of bytes
        Compressed labels of each window.
    segments : tuple of int64 [S_w]
        Segment of each window's labels.
    """

    def __init__(
        self,
        height_px: int,
        width_px: int,
        strips: tuple[bytes, ...],
        segments: tuple[npt.NDArray[np.int64], ...],
    ) -> None:
        self.height_px, self.width_px = height_px, width_px
        self._strips, self._segments = strips, segments

    def rows(self) -> Iterator[npt.NDArray[np.uint32]]:
        """Yield the section's rows, window after window, uint32 [h, W]; 0 is no core, else segment + 1."""
        for strip, segments in zip(self._strips, self._segments, strict=True):
            labels = np.frombuffer(zlib.decompress(strip), np.int32).reshape(-1, self.width_px)
            yield np.concatenate([[0], segments + 1]).astype(np.uint32)[labels]

    def preview(self, step: int) -> npt.NDArray[np.uint32]:
        """Every `step`-th pixel of every `step`-th row, uint32 [h, w]."""
        seen, row = [], 0
        for labels in self.rows():
            seen.append(labels[-row % step :: step, ::step])
            row += len(labels)
        return np.concatenate(seen)
