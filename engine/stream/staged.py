"""Files of a section, made in a folder of their own while the section before it is put in place."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any


class Staged:
    """What `write` makes, on a thread of a pool.

    Parameters
    ----------
    pool : ThreadPoolExecutor
    write : callable
        Writes files into the folder it is given, and returns what the record says of them.
    folder : Path
        Beside where the files will be, on the same disk; emptied first.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, write: Callable[[Path], dict[str, Any]], folder: Path
    ) -> None:
        self._write, self._folder = write, folder
        self._entry = pool.submit(self._made)

    def wait(self) -> None:
        """Return once they are made, or cannot be."""
        wait([self._entry])

    def move(self, folder: Path) -> dict[str, Any]:
        """Bring the files into a folder, and return what the record says of them; raises what `write` raised."""
        entry = self._entry.result()
        for path in self._folder.iterdir():
            path.rename(folder / path.name)
        return entry

    def close(self) -> None:
        """Remove what was not moved."""
        self._entry.cancel()
        self.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _made(self) -> dict[str, Any]:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        return self._write(self._folder)
