"""The report of a run, made from what the run wrote: it can be made again at any time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import ConfigError
from lithostream.engine.report.content import Quarantined, ReportRun, ReportSection
from lithostream.engine.report.html import render_report
from lithostream.engine.stream.run_record import RUN_RECORD
from lithostream.engine.stream.section_folder import INTERVALS, MINERAL_MAP, STRIP

REPORT = "report.html"
TRUE_VOLUME = "_volume_pct"

Truth = Mapping[str, npt.NDArray[np.float64]]


def write_report(run_folder: Path, truth: Mapping[str, Truth] | None = None) -> Path:
    """Write `report.html` into a run's folder.

    Parameters
    ----------
    run_folder : Path
        Folder that `lithostream run` wrote.
    truth : mapping of section name to columns, optional
        Truth over the intervals of a generated core: targets, and minerals as `<name>_volume_pct`.

    Raises
    ------
    ConfigError
        The folder holds no run, or an incomplete one.
    """
    record = _record(run_folder)
    sections = tuple(
        _section(run_folder, entry, (truth or {}).get(entry["name"], {})) for entry in record["sections"]
    )
    bundle = record["bundle"]
    facts = {
        "domain": bundle["domain"],
        "runtime": record["backend"],
        "finished (UTC)": record["finished_utc"],
    }
    path = run_folder / REPORT
    render_report(
        ReportRun(
            title="Core report",
            bundle_name=bundle["name"],
            bundle_sha256=bundle["sha256"],
            facts={**facts, "machine": record["machine"]["system"]},
            versions=record["versions"],
            settings={name: str(value) for name, value in record["settings"].items()},
            sections=sections,
            quarantined=tuple(Quarantined(**entry) for entry in record["quarantined"]),
        ),
        path,
    )
    return path


def _record(run_folder: Path) -> dict[str, Any]:
    path = run_folder / RUN_RECORD
    fix = "give the folder that `lithostream run --out` wrote"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"not the record of a run: {error}", file=path, fix=fix) from error
    return record


def _section(run_folder: Path, entry: dict[str, Any], truth: Truth) -> ReportSection:
    folder = run_folder / entry["folder"]
    inputs = {f"input {Path(item['file']).name}": f"SHA-256 {item['sha256']}" for item in entry["inputs"]}
    return ReportSection(
        name=entry["name"],
        intervals=_intervals(folder / INTERVALS),
        strip=folder / STRIP,
        mineral_map=folder / MINERAL_MAP if (folder / MINERAL_MAP).exists() else None,
        facts={**inputs, "scanner": entry["scanner"] or "not stated", "seconds": str(entry["seconds"])},
        notes=tuple(entry["notes"]),
        true_properties={name: values for name, values in truth.items() if name in TARGETS},
        true_volume_pct={
            name.removesuffix(TRUE_VOLUME): values
            for name, values in truth.items()
            if name.endswith(TRUE_VOLUME)
        },
    )


def _intervals(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"cannot be read: {error}", file=path, fix="run the section again") from error
