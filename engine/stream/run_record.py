"""What a run did: `run.json`, and a reason for each input without a result."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lithostream.engine.bundle import Bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Plane, Section
from lithostream.engine.errors import LithostreamError
from lithostream.engine.io.names import unique_names
from lithostream.engine.machine import versions
from lithostream.engine.stream.section_key import content_sha256

PACKAGES = (
    "lithostream",
    "numpy",
    "numba",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt-cu13",
    "pyarrow",
    "tifffile",
    "imagecodecs",
    "simplejpeg",
)
RUN_RECORD = "run.json"
QUARANTINE = "quarantine"


@dataclass(slots=True)
class RunRecord:
    """What a run did; written as `run.json`.

    Attributes
    ----------
    out : Path
        The run's folder.
    bundle : Bundle
    settings : RunSettings
    backend : str
        Inference runtime and version that the run began with; a section names its own.
    sections : list of dict
        Per finished section: folder, inputs with SHA-256, notes, seconds.
    quarantined : list of dict
        Inputs without a result, each with its reason.
    notes : list of str
        Of the inference: backends left out, memory that ran out.
    """

    out: Path
    bundle: Bundle
    settings: RunSettings
    backend: str
    sections: list[dict[str, object]] = field(default_factory=list)
    quarantined: list[dict[str, str | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some inputs quarantined."""
        return 3 if self.quarantined else 0


def section_entry(
    section: Section, planes: Sequence[Plane], notes: tuple[str, ...], seconds: float
) -> dict[str, object]:
    """Say what a section was made of, by which rules, in how long."""
    inputs = [section.image, *section.sidecars] + ([section.log] if section.log else [])
    inputs += [plane.image for plane in planes]
    inputs += section.calibration.files if section.calibration else ()
    return {
        "name": section.name,
        "inputs": [{"file": str(path), "sha256": content_sha256(path)} for path in inputs],
        "px_per_cm": section.px_per_cm,
        "scale_source": section.scale_source,
        "top_cm": section.top_cm,
        "depth_axis": section.depth_axis,
        "depth_reversed": section.depth_reversed,
        "scanner": section.scanner,
        "notes": list(notes),
        "seconds": round(seconds, 3),
    }


def quarantine(record: RunRecord, name: str, error: LithostreamError) -> None:
    """Write why an input has no result, under a name that is free."""
    taken = [str(entry["name"]) for entry in record.quarantined]
    name = unique_names([*taken, name])[-1]
    entry = {"name": name, **error.as_json()}
    record.quarantined.append(entry)
    folder = record.out / QUARANTINE
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


def write_record(record: RunRecord, seconds: float) -> None:
    """Write `run.json`, at once."""
    manifest = record.bundle.manifest
    values = {
        "schema_version": 1,
        "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "bundle": {
            "name": manifest.name,
            "path": str(record.bundle.path),
            "sha256": record.bundle.sha256,
            "domain": manifest.domain.description,
        },
        "backend": record.backend,
        "precision": record.settings.precision,
        "notes": record.notes,
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "settings": record.settings.model_dump(),
        "sections": record.sections,
        "quarantined": record.quarantined,
    }
    begun = record.out / f".{RUN_RECORD}"  # killed, or the disk full, the record before stays whole
    begun.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    begun.replace(record.out / RUN_RECORD)
