"""What a map was made of and what came out: `MAP.json`, by which a finished map is known again."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from lithostream.engine.bundle import sha256_file
from lithostream.engine.config import StrictModel
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.machine import versions
from lithostream.engine.maps.bundle import MapBundle

_PACKAGES = ("lithostream", "onnxruntime", "onnxruntime-gpu", "rasterio", "pyogrio", "matplotlib")


class MapSettings(StrictModel):
    """What a map may vary.

    Attributes
    ----------
    crs : str, optional
        Coordinate reference system of inputs that state none.
    targets : int
        Targets that are listed, the best.
    threads : int
        Windows answered side by side; never changes a result.
    """

    crs: str | None = None
    targets: int = Field(default=100, ge=1, le=10_000)
    threads: int = Field(default=1, ge=1, le=256)


@dataclass(slots=True)
class MapRecord:
    """What a map was made of and what came out.

    Attributes
    ----------
    out : Path
        The map, beside which the other files lie.
    key : str
        SHA-256 of all that decides the map.
    bundle : MapBundle
    settings : MapSettings
    backend : str
        Runtime and version that answered.
    inputs : dict of str to str
        SHA-256 of every file that was read.
    counts : dict of str to int
        Pixels or rows: in all, without data, answered, out of the domain; targets; known sites.
    notes : list of str
    files : dict of str to str
        SHA-256 of every file that was written.
    unchanged : bool
        The map was there already.
    """

    out: Path
    key: str
    bundle: MapBundle
    settings: MapSettings
    backend: str
    inputs: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    unchanged: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what `MAP.json` holds: no time and no path, so that equal maps make equal files."""
        manifest = self.bundle.manifest
        return {
            "schema_version": 1,
            "key": self.key,
            "bundle": {"name": manifest.name, "licence": manifest.licence, "sha256": self.bundle.sha256},
            "threshold": manifest.threshold,
            "distance_limit": manifest.distance_limit,
            "backend": self.backend,
            "versions": versions(_PACKAGES),
            "settings": self.settings.model_dump(exclude={"threads"}),
            "inputs": self.inputs,
            "counts": self.counts,
            "notes": self.notes,
            "files": self.files,
        }


def beside(out: Path, ending: str) -> Path:
    """Path of a file that goes with a map: `MAP_targets.csv` for `MAP.tif` and `_targets.csv`."""
    return out.with_name(out.stem + ending)


def input_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files by their names, which are told apart where they are the same.

    Raises
    ------
    SourceError
        One cannot be read.
    """
    found: dict[str, str] = {}
    for path in paths:
        name = path.name if path.name not in found else str(path)
        try:
            found[name] = sha256_file(path)
        except OSError as error:
            raise SourceError(f"cannot be read: {error.strerror}", file=path, fix="check the path") from error
    return found


def map_key(bundle: MapBundle, settings: MapSettings, backend: str, facts: Mapping[str, object]) -> str:
    """SHA-256 of the inputs, the bundle, the settings, the runtime and the version of this program."""
    decides = {
        **facts,
        "bundle": bundle.sha256,
        "settings": settings.model_dump(exclude={"threads"}),
        "backend": backend,
        "versions": versions(_PACKAGES),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def finished(record: MapRecord) -> bool:
    """Tell whether this very map is in place and whole; if so, what it counted is put into the record.

    Raises
    ------
    ConfigError
        Another map, or something else, is in its place.
    """
    path = beside(record.out, ".json")
    held = held_record(path)
    if not held:
        if record.out.exists():
            raise ConfigError("exists already", file=record.out, fix="choose another --out, or remove it")
        return False
    if held.get("key") != record.key:
        raise ConfigError(
            "is a map of other inputs, settings or another bundle",
            file=record.out,
            fix=f"choose another --out, or remove it and {path.name}",
        )
    files = held["files"]
    there = all((record.out.with_name(name)).is_file() for name in files)
    if not there or any(sha256_file(record.out.with_name(name)) != stated for name, stated in files.items()):
        return False
    record.counts, record.notes, record.files, record.unchanged = held["counts"], held["notes"], files, True
    return True


def write_record(record: MapRecord, path: Path) -> None:
    """Write `MAP.json`."""
    path.write_text(json.dumps(record.as_json(), indent=2) + "\n", encoding="utf-8")


def held_record(path: Path) -> dict[str, Any]:
    """Return what the record of a finished map holds; nothing where it is none."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and held.keys() >= {"key", "files", "counts", "notes"} else {}
