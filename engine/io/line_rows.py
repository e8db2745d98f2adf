"""From encoder counts to image rows: what was lost is filled, what came twice is dropped, and both are counted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import DecodeError
from lithostream.engine.io.images import Slab
from lithostream.engine.io.line_format import COUNT_CAP, Counts, LineHeader
from lithostream.engine.io.pixels import Pixels

MOST_LOST_CM = 1000.0  # no scanner's bed is longer: an encoder that jumps further is broken


class Encoder:
    """Rows that lines belong to, by their encoder counts alone.

    The first line is row 0, and a line of count c is row floor((c - c0) / counts_per_line + 1/2): the nearest.
    A line at or before the last accepted row is dropped: the encoder stood still, trembled or went back. A line
    beyond the next row leaves rows between them that nobody saw.

    Attributes
    ----------
    lines : int
        Lines seen.
    rows : int
        Rows up to the last accepted line.
    lost_lines, overspeed, repeated_lines : int
        Rows without a line; jumps in which they were lost; lines that were dropped.
    """

    def __init__(self, header: LineHeader, path: Path, first_byte: int) -> None:
        self._header, self._path, self._first_byte = header, path, first_byte
        self._origin = 0
        self.lines = self.rows = self.lost_lines = self.overspeed = self.repeated_lines = 0

    def place(self, counts: Counts) -> tuple[npt.NDArray[np.bool_], Counts]:
        """Take the next lines.

        Parameters
        ----------
        counts : int64 [N]
            At least one.

        Returns
        -------
        kept : bool [N]
            Lines that are not dropped.
        rows : int64 [K]
            Where those lie, strictly increasing.

        Raises
        ------
        DecodeError
            The encoder is broken: a jump of over 10 m, more lines than the header allows, a count beyond 2**62.
        """
        if not self.lines:
            self._origin = int(counts[0])
        most, most_lost = self._header.most_lines, int(MOST_LOST_CM * self._header.px_per_cm)
        self._refuse((counts <= -COUNT_CAP) | (counts >= COUNT_CAP), counts, "is beyond 2**62")
        rows = np.floor((counts - self._origin) / self._header.counts_per_line + 0.5)
        before = np.maximum.accumulate(np.concatenate([[self.rows - 1.0], rows[:-1]]))
        missing = rows - before - 1
        self._refuse(
            missing > most_lost, counts, f"leaves out more than {MOST_LOST_CM:g} cm, {most_lost} lines"
        )
        self._refuse(rows >= most, counts, f"lies beyond the {most} lines that the section may hold")
        kept = missing >= 0
        placed: Counts = rows[kept].astype(np.int64)
        self.lines += len(counts)
        self.repeated_lines += len(counts) - len(placed)
        self.lost_lines += int(missing[kept].sum())
        self.overspeed += int(np.count_nonzero(missing > 0))
        self.rows = int(placed[-1]) + 1 if len(placed) else self.rows
        return kept, placed

    def notes(self) -> tuple[str, ...]:
        """Say what was lost and dropped."""
        lost = f"{self.lost_lines} lines lost in {self.overspeed} jumps of the encoder: black, and no core"
        repeated = f"{self.repeated_lines} lines dropped: the encoder stood still or went back"
        return (lost,) * bool(self.lost_lines) + (repeated,) * bool(self.repeated_lines)

    def _refuse(self, bad: npt.NDArray[np.bool_], counts: Counts, reason: str) -> None:
        if not bad.any():
            return
        index = int(bad.argmax())
        line = self.lines + index
        raise DecodeError(
            f"encoder count {counts[index]} {reason}",
            file=self._path,
            place=f"line {line + 1} at byte {self._first_byte + line * self._header.record_bytes}",
            fix="check the encoder, its cable, and width_px, channels and counts_per_line in the header",
        )


class SlabAssembler:
    """Lines gathered into slabs; rows that no line belongs to are black, not image, and marked as lost.

    Parameters
    ----------
    width_px, rows : int
        Of a full slab.
    """

    def __init__(self, width_px: int, rows: int) -> None:
        self._shape = (rows, width_px, 3)
        self._first = 0
        self._clear()

    def _clear(self) -> None:
        self._rgb = np.zeros(self._shape, np.uint8)
        self._lost = np.ones(self._shape[0], np.bool_)
        self._filled = 0

    def add(self, rows: Counts, pixels: Pixels) -> Iterator[Slab]:
        """Take lines, and serve the slabs that they fill.

        Parameters
        ----------
        rows : int64 [N]
            Where they lie in the image, strictly increasing over all calls.
        pixels : uint8 [N, W, C]
        """
        while len(rows):
            here = int(np.searchsorted(rows, self._first + self._shape[0]))
            at, beyond = rows[:here] - self._first, here < len(rows)
            self._rgb[_together(at)] = pixels[:here]
            self._lost[at] = False
            rows, pixels = rows[here:], pixels[here:]
            self._filled = self._shape[0] if beyond else int(at[-1]) + 1
            if self._filled == self._shape[0]:
                yield from self.flush()

    def flush(self) -> Iterator[Slab]:
        """Serve what there is, if there is any."""
        if not self._filled:
            return
        rgb, lost = self._rgb[: self._filled], self._lost[: self._filled]
        if self._filled == self._shape[0]:
            self._clear()
        else:  # a few lines do not keep the memory of a whole slab
            rgb, lost, self._filled = rgb.copy(), lost.copy(), 0
            self._rgb[: len(rgb)], self._lost[: len(rgb)] = 0, True
        alpha = np.repeat(~lost[:, None], self._shape[1], axis=1) if lost.any() else None
        first, self._first = self._first, self._first + len(rgb)
        yield Slab(first, rgb, alpha, None if alpha is None else lost)


def _together(at: Counts) -> Counts | slice:
    """Rows without a gap as a slice, which copies at the speed of memory."""
    if len(at) and int(at[-1] - at[0]) == len(at) - 1:
        return slice(int(at[0]), int(at[-1]) + 1)
    return at
