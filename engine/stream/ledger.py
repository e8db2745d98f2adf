"""What an output folder holds: one row for each committed section, in SQLite beside the folders."""

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lithostream.engine.errors import ConfigError

LEDGER = "ledger.sqlite"
_SCHEMA = """CREATE TABLE IF NOT EXISTS sections (
    name TEXT NOT NULL, version INTEGER NOT NULL, folder TEXT NOT NULL UNIQUE, key TEXT NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY (name, version))"""

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}  # the second: of the index beside the log


@dataclass(frozen=True, slots=True)
class Committed:
    """One version of a section.

    Attributes
    ----------
    name : str
    version : int
        From 1; another scan, bundle or setting makes the next.
    folder : str
        Beside the ledger.
    key : str
        SHA-256 of all that decides the result.
    entry : dict
        What the run's record says of it.
    """

    name: str
    version: int
    folder: str
    key: str
    entry: dict[str, Any]


class Ledger:
    """The rows of one output folder, for any thread. A row that was added is there after a loss of power.

    Parameters
    ----------
    out : Path
        A folder on a local disk: SQLite's log needs shared memory.

    Raises
    ------
    ConfigError
        The file is damaged, or of something else.
    OSError
        The disk is full.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / LEDGER
        try:
            with _full_disk(self.path):
                self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"cannot be used: {error}",
                file=self.path,
                fix="move it away: folders that pass their checksums are taken up again",
            ) from error

    def latest(self, name: str) -> Committed | None:
        """Newest version of a section."""
        found = self._read("WHERE name = ? ORDER BY version DESC LIMIT 1", (name,))
        return found[0] if found else None

    def rows(self) -> list[Committed]:
        """Every version of every section, by name, then version."""
        return self._read("ORDER BY name, version", ())

    def add(self, one: Committed) -> None:
        """Mark a version as done.

        Raises
        ------
        OSError
            The disk is full; it is not marked.
        """
        values = (one.name, one.version, one.folder, one.key, json.dumps(one.entry))
        with _full_disk(self.path), self._database:  # which commits, or rolls back
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("INSERT INTO sections VALUES (?, ?, ?, ?, ?)", values)

    def close(self) -> None:
        """Write the log into the file."""
        self._database.close()

    def _read(self, which: str, values: tuple[str, ...]) -> list[Committed]:
        found = self._database.execute(
            f"SELECT name, version, folder, key, entry FROM sections {which}", values
        )
        return [
            Committed(name, version, folder, key, json.loads(entry))
            for name, version, folder, key, entry in found
        ]


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Name a full disk as every other writer does."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in _FULL:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
