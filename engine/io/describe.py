"""Bring together all that is known about one image: manifest, sidecar, Itrax document, name, tag."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lithostream.engine.core.section import Section
from lithostream.engine.io import itrax
from lithostream.engine.io.geotek import GeotekSidecar, find_sidecar, read_sidecar
from lithostream.engine.io.images import open_image
from lithostream.engine.io.iodp import parse_iodp_name
from lithostream.engine.io.manifest import Defaults, ManifestSection
from lithostream.engine.io.scale import Statement, place_image, tag_statement
from lithostream.engine.io.usgs import parse_usgs_name

DEPTH_METHOD = "section offset + hole_top_m"

Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class _Identity:
    """What the name of an image says about it."""

    hole: str | None = None
    core: str | None = None
    section: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sources:
    """Everything that was read about an image."""

    image: Path
    stated: ManifestSection | None
    sidecar: GeotekSidecar | None
    document: itrax.ItraxDocument | None

    @property
    def entry(self) -> Defaults:
        return self.stated.entry if self.stated else Defaults()

    @property
    def files(self) -> tuple[Path, ...]:
        found = (
            self.sidecar.path if self.sidecar else None,
            self.document.path if self.document else None,
            self.stated.manifest if self.stated else None,
        )
        return tuple(path for path in found if path)


def describe_image(image: Path, stated: ManifestSection | None = None) -> Section:
    """Make the record of one image.

    Scale and top are decided in `scale`; of everything else a manifest's word comes first, then the
    sidecar's or the Itrax document's, then that of the file name.

    Raises
    ------
    SourceError
        A file that cannot be read, or no scale that can be trusted (`ScaleError`).
    """
    xml = find_sidecar(image)
    sources = _Sources(image, stated, read_sidecar(xml) if xml else None, itrax.document_of(image))
    entry, sidecar, document = sources.entry, sources.sidecar, sources.document
    white_level = _first(entry.white_level, sidecar.white_level if sidecar else None)
    picture = open_image(image, depth_axis=entry.depth_axis or "y", white_level=white_level)
    height_px, width_px = picture.height_px, picture.width_px
    if sidecar:
        sidecar.check_size(height_px, width_px)
    statements, scale_notes = _statements(sources, max(height_px, width_px))
    tag = tag_statement(image, picture.resolution_px_per_cm)
    placement = place_image(image, [*statements, tag] if tag else statements)
    identity = _identity(sources)
    return Section(
        name=image.resolve().parent.name if document else image.stem,
        image=image,
        px_per_cm=placement.px_per_cm,
        scale_source=placement.scale_source,
        top_cm=placement.top_cm,
        depth_axis=entry.depth_axis or (itrax.depth_axis(height_px, width_px) if document else "y"),
        depth_reversed=document is not None if entry.depth_reversed is None else entry.depth_reversed,
        hole=identity.hole,
        core=identity.core,
        section=identity.section,
        hole_top_m=entry.hole_top_m,
        depth_scale=entry.depth_scale,
        depth_method=None if entry.hole_top_m is None else DEPTH_METHOD,
        scanner=_first(
            entry.scanner,
            "Itrax" if document else None,
            sidecar.scanner if sidecar else None,
            "Geotek" if sidecar else None,
        ),
        white_level=white_level,
        core_cm=document.core_cm if document else None,
        log=_first(stated.log if stated else None, _log_beside(image)),
        planes=stated.planes if stated else (),
        calibration=stated.calibration if stated else None,
        sidecars=sources.files,
        notes=identity.notes + scale_notes,
    )


def _log_beside(image: Path) -> Path | None:
    """Find the sensor log that was stored with an image: its stem, then `_mscl.csv` or `_mscl.out`."""
    beside = (image.with_name(f"{image.stem}_mscl{suffix}") for suffix in (".csv", ".out"))
    return next((path for path in beside if path.is_file()), None)


def _first(*values: Known | None) -> Known | None:
    return next((value for value in values if value is not None), None)


def _statements(sources: _Sources, length_px: int) -> tuple[list[Statement], tuple[str, ...]]:
    """Collect what is said about scale and top; a profile that cannot be true gives way to a manifest."""
    statements = [said.statement for said in (sources.sidecar, sources.stated) if said]
    document = sources.document
    if document is None:
        return statements, ()
    replaceable = document.optical_mm is None and sources.entry.px_per_cm is not None
    if replaceable and not itrax.profile_fits(document, length_px):
        return statements, (f"{document.path.name} does not fit {itrax.PROFILE_MM_PER_PX} mm per pixel",)
    statements.append(itrax.statement(sources.image, document, length_px))
    return statements, () if document.optical_mm else (itrax.profile_note(document, length_px),)


def _identity(sources: _Sources) -> _Identity:
    named, entry = _from_name(sources.image.stem), sources.entry
    notes = list(named.notes)
    sidecar, document = sources.sidecar, sources.document
    read_core = _first(sidecar.core if sidecar else None, document.core if document else None)
    read_section = _first(sidecar.section if sidecar else None, document.section if document else None)
    if read_core and named.core and read_core != named.core:
        notes.append(f"core is {named.core} in the file name, {read_core} in the sidecar")
    return _Identity(
        _first(entry.hole, named.hole),
        _first(entry.core, read_core, named.core),
        _first(entry.section, read_section, named.section),
        tuple(notes),
    )


def _from_name(stem: str) -> _Identity:
    usgs, iodp = parse_usgs_name(stem), parse_iodp_name(stem)
    if usgs:
        return _Identity(core=usgs.core, section=usgs.section, notes=(f"USGS survey {usgs.survey}",))
    if iodp:
        face = "" if iodp.angle_deg is None else f", whole-round face at {iodp.angle_deg} degrees"
        note = f"IODP expedition {iodp.expedition}, label {iodp.text_id}{face}"
        return _Identity(iodp.hole, iodp.core, iodp.section, (note,))
    return _Identity()
