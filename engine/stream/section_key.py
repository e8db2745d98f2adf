"""What decides a section's result, as one hash: equal keys, equal tables."""

import hashlib
import json
from dataclasses import asdict
from functools import cache
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
    facts = {
        "section": asdict(section),
        "bundle": bundle.sha256,
        "settings": settings.model_dump(exclude=_FREE),
        "program": versions(("lithostream",)),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_content).encode()).hexdigest()


def _content(value: object) -> object:
    """Count a file by what it holds, wherever it lies."""
    if isinstance(value, Path):
        try:
            status = value.stat()
            return _hash(value, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise SourceError(
                f"cannot be read: {error.strerror}", file=value, fix="check the path"
            ) from error
    raise TypeError(f"no key for {type(value).__name__}")


@cache
def _hash(path: Path, _modified_ns: int, _bytes: int) -> str:
    return sha256_file(path)
