"""What a training has done so far, kept on disk so that a rerun after a kill goes on to the same result."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lithostream import training
from lithostream.engine.errors import ConfigError

EVERY_S = 60.0  # least time between two states of one network: what a kill costs
SHARE = 50.0  # writing states takes one part in so many of the time at most
KEY = "key.json"

Phase = Literal["search", "final", "done"]


class Epoch(NamedTuple):
    """One pass of a network that is being fitted, for whoever watches.

    Attributes
    ----------
    phase : {"search", "final"}
        Looking for the number of passes on rows set aside, or fitting all rows for that many.
    number, of : int
        Of the pass, from 1, and of the last one.
    training_loss : float
        Mean over the steps, and over the validation splits.
    validation_loss : float, optional
        In the search: what decides, mean over the validation splits.
    learning_rate : float
        After the pass.
    """

    phase: Phase
    number: int
    of: int
    training_loss: float
    validation_loss: float | None
    learning_rate: float


class Saved(NamedTuple):
    """State of one network: tensors by name, and the rest as plain JSON."""

    phase: Phase
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def _unwatched(_name: str, _epoch: Epoch) -> None:
    return None


class Page:
    """State of one network in one file, replaced as a whole; without a path nothing is kept.

    Parameters
    ----------
    name : str
    path : Path, optional
    key : str
        Of the study: a file of another one is not read.
    on_epoch : callable
        Gets `name` and each `Epoch`.
    """

    def __init__(
        self,
        name: str = "",
        path: Path | None = None,
        key: str = "",
        on_epoch: Callable[[str, Epoch], None] = _unwatched,
    ) -> None:
        self.name, self.path, self.key, self.on_epoch = name, path, key, on_epoch
        self._due = time.monotonic() + EVERY_S

    def load(self, phase: Phase) -> Saved | None:
        """Return what is kept of this phase; a damaged file counts as none."""
        if self.path is None:
            return None
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata() or {}
                if about.get("key") != self.key or about.get("phase") != phase:
                    return None
                names = file.keys()
                return Saved(
                    phase, {name: file.get_tensor(name) for name in names}, json.loads(about["facts"])
                )
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def keep(self, epoch: Epoch, state: Callable[[], Saved]) -> None:
        """Tell of an epoch, and write the state where the last one is old."""
        self.on_epoch(self.name, epoch)
        if self.path is not None and time.monotonic() >= self._due:
            self.write(state())

    def write(self, saved: Saved) -> None:
        """Write in place of the state before."""
        if self.path is not None:
            start = time.monotonic()
            tensors = {name: tensor.contiguous() for name, tensor in saved.tensors.items()}
            about = {"key": self.key, "phase": saved.phase, "facts": json.dumps(saved.facts)}
            _replace(self.path, lambda path: save_file(tensors, path, about))
            end = time.monotonic()
            self._due = end + max(EVERY_S, SHARE * (end - start))


class Journal:
    """The pages of a study in one folder.

    Two trainings of one study at once write equal files, and of two studies none reads the other's.

    Parameters
    ----------
    folder : Path
        What lies in it is kept if it is of the same key, else removed.
    key : str
        SHA-256 of all that decides the result.

    Attributes
    ----------
    on_epoch : callable
        Of the pages that are opened from now on.
    found : str
        What was found in the folder, one line; empty where there was nothing.

    Raises
    ------
    ConfigError
        The folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
    ) -> None:
        self.folder, self.key = folder, key
        self.on_epoch: Callable[[str, Epoch], None] = _unwatched
        self.found = _take_over(folder, key)

    def page(self, name: str) -> Page:
        """Page of one network."""
        path = self.folder / f"{name}.safetensors"
        return Page(name, path, self.key, self.on_epoch)

    def remove(self) -> None:
        """Remove the folder: what it led to is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def training_code() -> str:
    """SHA-256 of the code of this package: its version alone stands still in development."""
    found = sorted(path for root in training.__path__ for path in Path(root).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest()


def _take_over(folder: Path, key: str) -> str:
    found = ""
    if folder.exists():
        if _key(folder) == key:
            return f"{folder}: going on from here"
        shutil.rmtree(folder)
        found = f"{folder}: left by another configuration, data or version; starting over"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(f"cannot be made: {error}", file=folder, fix="choose another --out") from error
    _replace(folder / KEY, lambda path: path.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8"))
    return found


def _key(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / KEY).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then rename: it is there whole or not at all, also after a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    made = Path(name)
    try:
        write(made)
        os.fsync(handle)
        made.rename(path)
    finally:
        os.close(handle)
        made.unlink(missing_ok=True)
