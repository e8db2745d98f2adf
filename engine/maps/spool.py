"""Answers of windows on disk while a map is made: appended, synced, then marked, so that a killed map goes on."""

import errno
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np

from lithostream.engine.maps.predict import Answer

LEDGER, ANSWERS = "ledger.sqlite", "answers.bin"
_LEVEL = 1  # of Zstandard: float bits hardly compress; stretches without data do
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}  # the second: of the index beside the log
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS windows (
        number INTEGER PRIMARY KEY, start INTEGER NOT NULL, length INTEGER NOT NULL, crc INTEGER NOT NULL)"""


class Spool:
    """The answers of one map; used by one thread.

    Parameters
    ----------
    folder : Path
        Of this map alone; is made. What it holds damaged is discarded.

    Raises
    ------
    OSError
        The disk is full.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _connect(folder)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in _DAMAGED:
                raise
            for path in folder.glob(f"{LEDGER}*"):
                path.unlink()
            self._database = _connect(folder)
        (folder / ANSWERS).touch()
        self._file = (folder / ANSWERS).open("rb+")
        rows = self._database.execute(
            "SELECT number, start, length, crc FROM windows ORDER BY start"
        ).fetchall()
        self._places = {
            number: (start, length)
            for number, *(start, length, crc) in rows
            if self._holds(start, length, crc)
        }
        self._end = max((start + length for start, length in self._places.values()), default=0)
        self._file.truncate(self._end)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, number: int, answer: Answer) -> None:
        """Keep a window's answer: once this returns, it outlasts a loss of power.

        Raises
        ------
        OSError
            The disk is full; the window is not marked.
        """
        content = imagecodecs.zstd_encode(b"".join(part.tobytes() for part in answer), level=_LEVEL)
        place = (self._end, len(content))
        self._file.seek(self._end)
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        with _full_disk(self._file.name), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            row = (number, *place, zlib.crc32(content))
            self._database.execute("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?)", row)
        self._places[number], self._end = place, sum(place)

    def read(self, number: int, shape: tuple[int, int]) -> Answer:
        """Return the answer of a window of `shape` that is kept."""
        start, length = self._places[number]
        self._file.seek(start)
        raw = imagecodecs.zstd_decode(self._file.read(length))
        pixels = shape[0] * shape[1]
        numbers = np.frombuffer(raw, np.float32, 2 * pixels).reshape(2, *shape)
        return Answer(numbers[0], numbers[1], np.frombuffer(raw, np.uint8, pixels, 8 * pixels).reshape(shape))

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._database.close()

    def _holds(self, start: int, length: int, crc: int) -> bool:
        self._file.seek(start)
        return zlib.crc32(self._file.read(length)) == crc


def _connect(folder: Path) -> sqlite3.Connection:
    with _full_disk(str(folder)):
        database = sqlite3.connect(folder / LEDGER, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(_SCHEMA)
        return database


@contextmanager
def _full_disk(path: str) -> Iterator[None]:
    """Name a full disk as every other writer does."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in _FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
