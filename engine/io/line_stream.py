"""Live lines from a camera process: everything that arrives lies in a spool before anything else is done with it.

A thread of its own reads the connection, so a slow reader never makes the camera wait: it reads on from the spool.
"""

import errno
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lithostream.engine.errors import DecodeError, SourceError, StoppedError
from lithostream.engine.io.line_connect import RETRY_S, connected
from lithostream.engine.io.line_file import SUFFIX, Growth, LineSource, open_lines
from lithostream.engine.io.line_format import (
    COUNT_BYTES,
    FIX,
    HEADER_CAP,
    LineHeader,
    parse_header,
    take_header,
    whole_records,
)
from lithostream.engine.io.names import safe_name

PATIENCE_S = 30.0  # for a camera process that has not started yet
CHUNK_BYTES = 1 << 20
LOOK_MS = 200  # how soon the receiver sees that it shall stop


@dataclass(frozen=True, slots=True)
class IncomingSection:
    """A section whose lines are arriving.

    Attributes
    ----------
    header : LineHeader
    path : Path
        Its spool.
    source : LineSource
        Open-ended: serves lines as they come.
    """

    header: LineHeader
    path: Path
    source: LineSource


@contextmanager
def receive(
    source: str, spool: Path, *, patience_s: float = PATIENCE_S
) -> Iterator[Iterator[IncomingSection]]:
    """Receive live lines, as long as the context is open.

    Parameters
    ----------
    source : str
        `-` for standard input, `tcp://host:port` or `unix:/path` to connect to, or a file that a camera process
        appends one section to, which is followed where it is.
    spool : Path
        Folder for one `NAME.lines` a section; it is made where it is missing.
    patience_s : float
        For which nobody may listen yet.

    Yields
    ------
    iterator of IncomingSection
        Each as soon as its header is there. It ends with the connection, and raises `DecodeError` for a header that
        is none and `StoppedError` for a full disk.

    Raises
    ------
    SourceError
        Nobody to connect to.
    """
    with ExitStack() as stack:
        if source != "-" and not source.startswith(("tcp:", "unix:")):
            section = _followed(Path(source), time.monotonic() + patience_s)
            stack.callback(section.source.stop)
            yield iter([section])
            return
        if source == "-":
            handle = sys.stdin.fileno()
        else:
            handle = stack.enter_context(connected(source, time.monotonic() + patience_s)).fileno()
        receiver = _Receiver(source, handle, spool)
        stack.callback(receiver.close)
        receiver.start()
        yield receiver.sections()


class _Sections(queue.SimpleQueue[IncomingSection | BaseException | None]):
    """From the receiver to whoever asks for sections; as a context, the end of them, with the error if one ends it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        self.put(error)
        return True  # it is raised where the sections are asked for


class _Receiver(threading.Thread):
    """Reads a connection into spools."""

    def __init__(self, source: str, handle: int, spool: Path) -> None:
        super().__init__(name="line receiver", daemon=True)
        self._source, self._handle, self._spool = source, handle, spool
        self._found, self._stopping = _Sections(), threading.Event()
        self._poll = select.poll()
        self._poll.register(handle, select.POLLIN)

    def sections(self) -> Iterator[IncomingSection]:
        while (one := self._found.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one

    def close(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        with self._found:
            rest: bytes | None = b""
            while rest is not None and (parts := self._header(rest)):
                rest = self._section(*parts)

    def _header(self, rest: bytes) -> tuple[bytes, bytes] | None:
        """Wait for a whole header line; None where the sender closed instead."""
        while not rest or (parts := take_header(rest, self._source)) is None:
            data = self._read()
            if not data:
                if rest:
                    raise DecodeError("it ends within a header", file=self._source, place="header", fix=FIX)
                return None
            rest += data
        return parts

    def _section(self, line: bytes, rest: bytes) -> bytes | None:
        """Receive one section; what follows its end mark, or None where the sender closed before it."""
        header, lines = parse_header(line, self._source), 0
        with Growth() as growth, _writing(self._spool), _new_spool(self._spool, header) as file:
            file.write(line)
            file.flush()
            path = Path(file.name)
            self._found.put(IncomingSection(header, path, open_lines(path, follow=True, growth=growth)))
            while True:
                count, ended = whole_records(rest, header.record_bytes)
                cut = count * header.record_bytes + COUNT_BYTES * ended
                file.write(rest[:cut])
                file.flush()
                rest, lines = rest[cut:], lines + count
                growth.grew(lines)
                data = b"" if ended else self._read()
                if not data:
                    break
                rest += data
            if not ended:
                file.write(rest)  # a torn line is kept, for its reader to tell of
        return rest if ended else None

    def _read(self) -> bytes:
        """Read what has arrived, at least one byte; none where the sender closed or died, or nobody listens any more."""
        while not self._stopping.is_set():
            if self._poll.poll(LOOK_MS):
                try:
                    return os.read(self._handle, CHUNK_BYTES)
                except OSError:  # reset, or no answer for long: the sender is gone
                    return b""
        return b""


def _new_spool(folder: Path, header: LineHeader) -> BinaryIO:
    """Create the spool of a section under its name, or the next that is free."""
    folder.mkdir(parents=True, exist_ok=True)
    name, count = safe_name(header.name), 1
    while True:
        try:
            return (folder / f"{name}{'' if count == 1 else f'-{count}'}{SUFFIX}").open("xb")
        except FileExistsError:
            count += 1


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Name the spool in errors of the disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free space; what has arrived until now is in the spool"
            raise StoppedError("disk full: the lines have no place", file=folder, fix=fix) from error
        raise SourceError(
            f"cannot be written: {error.strerror or error}", file=folder, fix="check the rights and the disk"
        ) from error


def _followed(path: Path, until: float) -> IncomingSection:
    """Follow a file that another process fills, as soon as its header is there."""
    while not _has_header(path):
        if time.monotonic() > until:
            reason = "no header line has come" if path.exists() else "no such file"
            raise SourceError(reason, file=path, fix="start the program that writes the lines")
        time.sleep(RETRY_S)
    source = open_lines(path, follow=True)
    return IncomingSection(source.header, path, source)


def _has_header(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return take_header(file.read(HEADER_CAP), path) is not None
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror}", file=path, fix="give a file, tcp://, unix: or -"
        ) from error
