"""Where events go: a file, a pipe, a socket or standard output; whole lines, and no faster than they are read."""

import os
import select
import socket
import stat
import time
from pathlib import Path

from lithostream.engine.errors import ConfigError, StoppedError

STDOUT = "-"
STOP_GRACE_S = 2.0  # for which a run that is being stopped waits for its readers
_TICK_MS = 100
_BLOCK = 1 << 16


class Sink:
    """One reader's end: a file, a pipe, a socket or standard output.

    Parameters
    ----------
    name : str
        For messages.
    handle : int
        Open for writing, and owned from now on.
    """

    def __init__(self, name: str, handle: int) -> None:
        self.name, self._handle = name, handle
        self._is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        # A pipe that can take anything takes this much at once, so no write blocks: what blocks is `_wait`.
        self._at_once = None if self._is_file else select.PIPE_BUF
        self._ready = select.poll()
        self._ready.register(handle, select.POLLOUT)
        self._torn = False
        self._deadline: float | None = None

    def write(self, line: bytes) -> None:
        """Write a line as soon as the reader makes room for it.

        Raises
        ------
        StoppedError
            The reader has gone, or the run was stopped while it waited for it.
        """
        if self._torn:
            raise self._gone()
        rest = memoryview(line)
        try:
            while rest:
                self._wait()
                self._torn = True  # until it is whole: whatever ends this, half a line is never gone on with
                rest = rest[os.write(self._handle, rest[: self._at_once]) :]
        except ConnectionError as error:
            raise self._gone() from error
        self._torn = False

    def hurry(self) -> None:
        """Wait for the reader no longer than `STOP_GRACE_S` from now on."""
        self._deadline = time.monotonic() + STOP_GRACE_S

    def settle(self) -> None:
        """Let what was written outlast a loss of power, where that is a file."""
        if self._is_file:
            os.fdatasync(self._handle)

    def close(self) -> None:
        """Give the handle back; a reader sees the end."""
        os.close(self._handle)

    def _wait(self) -> None:
        while not self._ready.poll(_TICK_MS):
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise StoppedError(
                    f"the reader of events does not read {self.name}", fix="end the reader, then run again"
                )

    def _gone(self) -> StoppedError:
        return StoppedError(
            f"the reader of events has gone from {self.name}: finished sections are whole",
            fix="start the reader, then run the same command again",
        )


def open_sink(place: str, head: bytes) -> Sink:
    """Open one sink.

    Parameters
    ----------
    place : str
        A file, which is appended to, a named pipe or a Unix socket that is there, or "-" for standard output. A pipe
        is waited for until somebody reads it.
    head : bytes
        How every line begins: a file that does not is something else.

    Raises
    ------
    ConfigError
        It cannot be opened, or holds something else.
    """
    if place == STDOUT:
        return Sink("standard output", os.dup(1))
    path = Path(place)
    try:
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        if stat.S_ISSOCK(mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
                link.connect(place)
                return Sink(place, link.detach())
        if stat.S_ISFIFO(mode):
            return Sink(place, os.open(path, os.O_WRONLY))
        if stat.S_ISREG(mode) and path.exists():
            _cut_torn_line(path, head)
        return Sink(place, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
    except OSError as error:
        raise ConfigError(
            f"events cannot be written there: {error.strerror}",
            file=path,
            fix="check the path; a socket needs somebody who listens",
        ) from error


def _cut_torn_line(path: Path, head: bytes) -> None:
    """Remove the half line that a killed run left at the end of its file."""
    with path.open("rb+") as file:
        size = last = os.fstat(file.fileno()).st_size
        if file.read(len(head)) != head[:size]:
            raise ConfigError("holds something else than events", file=path, fix="name another file")
        newline = -1
        while newline < 0 and last:
            first = max(0, last - _BLOCK)
            file.seek(first)
            newline = file.read(last - first).rfind(b"\n")
            last = first
        file.truncate(last + newline + 1)
