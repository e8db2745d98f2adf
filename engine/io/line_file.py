"""A spool `NAME.lines`: one section of the line stream as a file, read whole or while it still grows."""

import bisect
import os
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import DecodeError, SourceError
from lithostream.engine.io.images import Slab
from lithostream.engine.io.line_format import (
    COUNT_BYTES,
    FIX,
    HEADER_CAP,
    Counts,
    LineHeader,
    counts_of,
    parse_header,
    pixels_of,
    take_header,
    whole_records,
)
from lithostream.engine.io.line_rows import Encoder, SlabAssembler
from lithostream.engine.io.pixels import Pixels

SUFFIX = ".lines"
READ_BYTES = 4 << 20  # at once
POLL_S = 0.01  # how soon a line is seen that another process appends


class Growth:
    """What whoever fills a spool tells its reader; as a context, the end of the filling, with the error if one ends it."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._lines: list[int] = []
        self._times: list[float] = []
        self.ended = False
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.finish(error)

    def grew(self, lines: int) -> None:
        """Tell that so many lines lie in the spool, the last of them since now."""
        self._lines.append(lines)
        self._times.append(time.monotonic())
        with self._news:
            self._news.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """Tell that nothing more comes."""
        self.error, self.ended = self.error or error, True
        with self._news:
            self._news.notify_all()

    @property
    def lines(self) -> int:
        """Lines told of."""
        return self._lines[-1] if self._lines else 0

    def wait(self) -> None:
        """Wait for news, or a moment: a spool that another process fills brings none."""
        with self._news:
            self._news.wait(POLL_S)

    def arrived_s(self, line: int) -> float:
        """When a line arrived; now for one that nobody told of."""
        at = bisect.bisect_right(self._lines, line)
        return self._times[at] if at < len(self._times) else time.monotonic()


class _Batch(NamedTuple):
    """Some lines of a spool."""

    counts: Counts
    pixels: Pixels


class LineSource:
    """The lines of a spool as an image whose rows run down-core; see `open_lines`.

    Attributes
    ----------
    path : Path
    header : LineHeader
    height_px, width_px : int
        Of an open-ended source the height is the most that it may hold.
    resolution_px_per_cm : float
    open_ended : bool
        It grows while it is read, and may end early.
    """

    def __init__(self, path: Path, header: LineHeader, first_byte: int, growth: Growth | None) -> None:
        self.path, self.header, self.width_px = path, header, header.width_px
        self.resolution_px_per_cm = header.px_per_cm
        self.open_ended = growth is not None
        self._first_byte, self._growth = first_byte, growth
        self._start()
        self.height_px = self._measured() if growth is None else header.most_lines

    @property
    def conversions(self) -> tuple[str, ...]:
        """Say what was done to the lines; of an open-ended source, once its slabs have been served."""
        grey = ("grey repeated into three channels",) if self.header.channels == 1 else ()
        return grey + self._encoder.notes() + self._ending

    def slabs(self, rows: int) -> Iterator[Slab]:
        """Serve the image from the top, `rows` rows at a time; the last slab may be short.

        Slabs of an open-ended source hold what has arrived, at least one row. They end with the end mark, when
        whoever fills the spool says so, or after `stop`.

        Raises
        ------
        DecodeError
            The encoder is broken, or there is no line at all.
        SourceError
            The file can no longer be read.
        LithostreamError
            Whoever fills the spool cannot go on.
        """
        if rows < 1:
            raise ValueError(f"a slab of {rows} rows")
        rows = min(rows, self.height_px)
        self._start()
        assembler = SlabAssembler(self.width_px, rows)
        for batch in self._batches(rows):
            if batch is None:
                yield from assembler.flush()
                continue
            kept, placed = self._place(batch.counts)
            yield from assembler.add(placed, batch.pixels if kept.all() else batch.pixels[kept])
        yield from assembler.flush()

    @property
    def received_lines(self) -> int:
        """Lines that arrived, read or not."""
        return max(self._growth.lines if self._growth else 0, self._encoder.lines)

    @property
    def repeated_lines(self) -> int:
        """Lines read that were left out: the encoder stood still or went back."""
        return self._encoder.repeated_lines

    def stop(self) -> None:
        """End an open-ended source with what has arrived."""
        if self._growth:
            self._growth.finish()

    def arrived_s(self, row: int) -> float:
        """When a row of an open-ended source arrived, on the clock of `time.monotonic`; a lost one, the line after it."""
        return self._arrived[row]

    def _start(self) -> None:
        self._encoder = Encoder(self.header, self.path, self._first_byte)
        self._ending: tuple[str, ...] = ()
        self._arrived = array("d")

    def _measured(self) -> int:
        """Go over the counts of a finished spool; the rows it holds."""
        for batch in self._batches(READ_BYTES):
            if batch:
                self._encoder.place(batch.counts)
        return self._encoder.rows

    def _place(self, counts: Counts) -> tuple[npt.NDArray[np.bool_], Counts]:
        line, row = self._encoder.lines, self._encoder.rows
        kept, placed = self._encoder.place(counts)
        if self._growth and len(placed):
            times = [self._growth.arrived_s(int(line + index)) for index in np.flatnonzero(kept)]
            self._arrived.frombytes(np.repeat(times, np.diff(placed, prepend=row - 1)).tobytes())
        return kept, placed

    def _batches(self, lines: int) -> Iterator[_Batch | None]:
        """Read whole lines up to the end, at most so many at once; None before each wait for more."""
        record, at = self.header.record_bytes, self._first_byte
        most = max(1, min(lines, READ_BYTES // record))
        try:
            with self.path.open("rb", buffering=0) as file:
                while True:
                    finished = (
                        self._growth is None or self._growth.ended
                    )  # before the look, or its last lines are missed
                    data = os.pread(file.fileno(), most * record + COUNT_BYTES, at)
                    count, ended = whole_records(data, record)
                    if self._growth and self._growth.error:
                        raise self._growth.error
                    if count:
                        yield _Batch(counts_of(data, count, record), pixels_of(data, count, self.header))
                        at += count * record
                    if ended or (finished and not count):
                        break
                    if not count and self._growth:
                        self._check_grown(file, at)
                        yield None
                        self._growth.wait()
                self._end(ended, len(data) - count * record, file, at)
        except OSError as error:
            raise SourceError(
                f"cannot be read: {error.strerror or error}", file=self.path, fix="check the disk"
            ) from error

    def _check_grown(self, file: BinaryIO, at: int) -> None:
        size = os.fstat(file.fileno()).st_size
        if size < at:
            raise DecodeError(
                "became shorter while it was followed",
                file=self.path,
                place=f"byte {size}",
                fix="write each section to a file of its own",
            )

    def _end(self, marked: bool, left_bytes: int, file: BinaryIO, at: int) -> None:
        """Check how the lines end."""
        place = f"byte {at}"
        if not self._encoder.lines:
            raise DecodeError("it holds no line", file=self.path, place=place, fix="scan again")
        if marked and os.fstat(file.fileno()).st_size > at + COUNT_BYTES:
            reason = "bytes follow the end mark: a spool holds one section"
            raise DecodeError(reason, file=self.path, place=f"byte {at + COUNT_BYTES}", fix=FIX)
        if not marked:
            torn = f", and {left_bytes} bytes of a torn one" if left_bytes else ""
            self._ending = (f"ended without an end mark after {self._encoder.lines} lines{torn}",)


def open_lines(path: Path, *, follow: bool = False, growth: Growth | None = None) -> LineSource:
    """Open a spool.

    Parameters
    ----------
    path : Path
    follow : bool
        It still grows: serve its lines as they come. Else it is read up to its last whole line.
    growth : Growth, optional
        Of whoever fills a followed one; without it the file is looked at every 10 ms.

    Raises
    ------
    SourceError
        No such file.
    DecodeError
        Damaged or hostile, or a finished spool without a line.
    """
    try:
        with path.open("rb") as file:
            parts = take_header(file.read(HEADER_CAP), path)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise SourceError(reason, file=path, fix="check the name, the rights and the disk") from error
    if parts is None:
        raise DecodeError("it ends within its header", file=path, place="header", fix="scan again")
    header = parse_header(parts[0], path)
    return LineSource(path, header, len(parts[0]), (growth or Growth()) if follow else None)
