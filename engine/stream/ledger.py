"""What an output folder holds: one row for each committed section, in SQLite beside the folders."""

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lithostream.engine.errors import ConfigError

LEDGER = "ledger.sqlite"
_SCHEMA = """CREATE TABLE IF NOT EXISTS sections (
    name TEXT NOT NULL, version INTEGER NOT NULL, folder TEXT NOT NULL UNIQUE, key TEXT NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY (name, version))"""


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
    """The rows of one output folder. A row that was added is there after a loss of power.

    Parameters
    ----------
    out : Path
        A folder on a local disk: SQLite's log needs shared memory.

    Raises
    ------
    ConfigError
        The file is damaged, or of something else.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / LEDGER
        try:
            self._database = sqlite3.connect(self.path, isolation_level=None)
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
        rows = [row for row in self.rows() if row.name == name]
        return rows[-1] if rows else None

    def rows(self) -> list[Committed]:
        """Every version of every section, by name, then version."""
        found = self._database.execute(
            "SELECT name, version, folder, key, entry FROM sections ORDER BY name, version"
        )
        return [
            Committed(name, version, folder, key, json.loads(entry))
            for name, version, folder, key, entry in found
        ]

    def add(self, one: Committed) -> None:
        """Mark a version as done."""
        self._database.execute("BEGIN IMMEDIATE")
        values = (one.name, one.version, one.folder, one.key, json.dumps(one.entry))
        self._database.execute("INSERT INTO sections VALUES (?, ?, ?, ?, ?)", values)
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Write the log into the file."""
        self._database.close()
