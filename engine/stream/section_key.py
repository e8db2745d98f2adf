"""What decides a section's result, as one hash: equal keys, equal tables."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from lithostream.engine.bundle import Bundle, sha256_file
from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.errors import SourceError
from lithostream.engine.machine import versions

# They change no result, or only within the bundle's tolerance.
_FREE = {"slab_rows", "batch", "threads", "backend", "settle_s"}


def section_key(section: Section, bundle: Bundle, settings: RunSettings) -> str:
    """SHA-256 of the inputs' bytes, the section's facts, the bundle, the settings and the version of this program.

    Raises
    ------
    SourceError
        An input cannot be read.
    """
    return _hash_of(section, bundle, settings, content_sha256)


def attempt_key(section: Section, bundle: Bundle, settings: RunSettings) -> str:
    """As `section_key`, by the files' names, sizes and times in place of their bytes: nothing is read.

    Raises
    ------
    SourceError
        An input is not there.
    """
    return _hash_of(section, bundle, settings, lambda path: [path.name, *_status(path)])


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, read once for each time that it was written.

    Raises
    ------
    SourceError
        It cannot be read.
    """
    try:
        return _sha256(path, *_status(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _hash_of(section: Section, bundle: Bundle, settings: RunSettings, file: Callable[[Path], object]) -> str:
    def stated(value: object) -> object:
        """Count a file by what it holds, wherever it lies."""
        if isinstance(value, Path):
            return file(value)
        raise TypeError(f"no key for {type(value).__name__}")

    facts = {
        "section": asdict(section),
        "bundle": bundle.sha256,
        "settings": settings.model_dump(exclude=_FREE),
        "program": versions(("lithostream",)),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=stated).encode()).hexdigest()


def _status(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1024)
def _sha256(path: Path, _modified_ns: int, _bytes: int) -> str:
    return sha256_file(path)


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"cannot be read: {error.strerror}", file=path, fix="check the path")
