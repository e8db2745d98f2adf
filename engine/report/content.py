"""What a report says: plain records that its makers fill and its writers read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """One finished section.

    Attributes
    ----------
    name : str
        Name of the section.
    intervals : pa.Table
        Its interval table (`engine.core.tables`), at least one row.
    strip : Path or uint8 [h, w, 3]
        Picture from the first interval's top to the last one's base (`engine.report.strip`).
    mineral_map : Path, optional
        The same stretch in the colours of the leading minerals (`engine.report.mineral_map`).
    facts : mapping of str to str
        Rows of the facts table beyond what the interval table says: image, log, hashes, seconds.
    notes : tuple of str
        Decisions, conversions and doubts, one line each.
    true_properties : mapping of str to float64 [I]
        Truth per target of a generated core; targets that the table does not hold are not shown.
    true_volume_pct : mapping of str to float64 [I]
        Truth per mineral of a generated core, volume %: none, or at least every mineral of the table.
    """

    name: str
    intervals: pa.Table
    strip: Path | npt.NDArray[np.uint8]
    mineral_map: Path | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    true_properties: Mapping[str, Floats] = field(default_factory=dict)
    true_volume_pct: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One input without a result; the fields of a run record's entry.

    Attributes
    ----------
    name : str
        Name of the input.
    error : str
        Kind of error.
    file, place : str or None
        Where it was found.
    reason, fix : str
        What is wrong, and what to do.
    """

    name: str
    error: str
    file: str | None
    place: str | None
    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class ReportRun:
    """One run.

    Attributes
    ----------
    title : str
        Heading.
    bundle_name, bundle_sha256 : str
        The model that predicted.
    facts : mapping of str to str
        Further facts of the run: the model's domain, runtime, machine, when.
    versions, settings : mapping of str to str
        By package; by setting.
    sections : tuple of ReportSection
    quarantined : tuple of Quarantined
    """

    title: str
    bundle_name: str
    bundle_sha256: str
    facts: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    sections: tuple[ReportSection, ...]
    quarantined: tuple[Quarantined, ...] = ()
