"""Typed errors: which file, where in it, why, and what to do about it."""

from collections.abc import Mapping
from pathlib import Path


class LithostreamError(Exception):
    """Base of every error a user can cause.

    Parameters
    ----------
    reason : str
        What is wrong, with the values found.
    file : Path, optional
        The file it was found in.
    place : str, optional
        Where in the file: a line and column, a tag, a strip, a key.
    fix : str
        What the user can do.
    """

    def __init__(self, reason: str, *, file: Path | str | None = None, place: str = "", fix: str) -> None:
        self.reason = reason
        self.file = None if file is None else str(file)
        self.place = place
        self.fix = fix
        where = ": ".join(part for part in (self.file, place) if part)
        super().__init__(f"{where + ': ' if where else ''}{reason} (fix: {fix})")

    def as_json(self) -> dict[str, str | None]:
        """Return the parts as a JSON-ready mapping."""
        return {
            "error": type(self).__name__,
            "file": self.file,
            "place": self.place,
            "reason": self.reason,
            "fix": self.fix,
        }


class ConfigError(LithostreamError):
    """A setting, a command line or a configuration file is wrong."""


class SourceError(LithostreamError):
    """An input cannot be identified or opened."""


class DecodeError(SourceError):
    """An image is damaged, hostile or of a kind that is not read."""


class ScaleError(SourceError):
    """Scale or depth is missing, or two sources contradict each other."""


class LogError(SourceError):
    """A sensor log cannot be read without guessing."""


class BundleError(LithostreamError):
    """A model bundle is incomplete, altered or does not fit."""


class BackendError(LithostreamError):
    """No inference runtime, or more than one, or one that does not answer truthfully."""


class BackendMemoryError(BackendError):
    """A session ran out of memory: a smaller batch, or another runtime, may still answer."""


class StoppedError(LithostreamError):
    """The run was stopped from outside in a state that a rerun continues from."""


def from_json(values: Mapping[str, str | None]) -> LithostreamError:
    """Return the error that `LithostreamError.as_json` describes."""
    kinds = (value for value in globals().values() if isinstance(value, type))
    known = {kind.__name__: kind for kind in kinds if issubclass(kind, LithostreamError)}
    return known[str(values["error"])](
        str(values["reason"]),
        file=values["file"],
        place=values["place"] or "",
        fix=str(values["fix"]),
    )
