"""TOML manifests: a person states what the files do not say.

root = "/data/cruise"        # optional: where the files lie; default the manifest's own folder
[defaults]                   # optional: any key of a section but `file` and `plane`
scanner = "Geoscan"
[[section]]
file = "GC01_01.tif"
px_per_cm = 200
top_cm = 0.0
[[section.plane]]            # optional: a grey TIFF or PNG of the same core, as often as there are
name = "ct"
file = "GC01_01_ct.tif"
px_per_cm = 25.4
top_cm = 0.0
[section.card]               # optional: a card in the section's own image (or `[defaults.card]`, where it never moves)
corners_cm = [[139.4, 8.1], [139.4, 1.8], [136.0, 1.8], [136.0, 8.1]]
[calibration]                # optional: how colours become reflectance, for every section of the manifest
transfer = "linear"          # or "srgb", "embedded", an exponent, an ICC profile (.icc, .icm), a table (.csv)
flat = "plate.tif"           # optional: an even plate (or .csv); with `flat_reflectance` it is the white too
[calibration.card]           # optional: the card that is the reference of all; else each section's own is
file = "card.tif"            # a scan at the scale, axis and white level of the sections
top_cm = 0.0
patches = "card.csv"         # or `corners_cm` of a ColorChecker Classic
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from lithostream.engine.config import StrictModel, explain, load_toml
from lithostream.engine.core.section import CalibrationPlan, Card, DepthAxis, Plane, PlaneName
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.io.names import leaves_folder
from lithostream.engine.io.scale import Statement

MANIFEST_NAME = "manifest.toml"

Number = Annotated[float, Strict()]  # an integer is fine, text or true is not
Finite = Annotated[float, Strict(), Field(allow_inf_nan=False)]


class CardEntry(StrictModel):
    """`[section.card]` or `[defaults.card]`; the keys are those of `Card`."""

    corners_cm: tuple[tuple[Finite, Finite], ...] | None = Field(default=None, min_length=4, max_length=4)
    patches: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.corners_cm is None) == (self.patches is None):
            raise ValueError("a card is placed by corners_cm or by patches, one of them")
        return self


class CardScan(CardEntry):
    """`[calibration.card]`."""

    file: str
    top_cm: Finite = 0.0


class CalibrationEntry(StrictModel):
    """`[calibration]`; the keys are those of `CalibrationPlan`."""

    transfer: Annotated[Finite, Field(gt=0.2, lt=5)] | str = "srgb"
    flat: str | None = None
    flat_reflectance: Finite | None = Field(default=None, gt=0, le=1.2)
    card: CardScan | None = None

    @model_validator(mode="after")
    def _one_reference(self) -> Self:
        if self.flat_reflectance is not None and (self.flat is None or self.card is not None):
            raise ValueError("flat_reflectance makes the plate of `flat` the reference, in place of a card")
        return self


class Defaults(StrictModel):
    """What may be stated for every section at once; the keys are those of `Section`."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    px_per_cm: Number | None = None
    top_cm: Number | None = None
    hole: str | None = None
    core: str | None = None
    section: str | None = None
    hole_top_m: Number | None = Field(default=None, allow_inf_nan=False)
    depth_scale: str | None = None
    depth_axis: DepthAxis | None = None
    depth_reversed: bool | None = None
    scanner: str | None = None
    white_level: int | None = Field(default=None, ge=1, le=65535)
    log: str | None = None
    card: CardEntry | None = None


class PlaneEntry(StrictModel):
    """One `[[section.plane]]`; the keys are those of `Plane`."""

    name: PlaneName
    file: str
    px_per_cm: Finite = Field(gt=0)
    top_cm: Finite
    depth_axis: DepthAxis = "y"
    depth_reversed: bool = False


class Entry(Defaults):
    """One `[[section]]` with the defaults filled in."""

    file: str
    plane: tuple[PlaneEntry, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [plane.name for plane in self.plane]
        if len(set(names)) != len(names):
            raise ValueError(f"name each plane once, not {', '.join(names)}")
        return self


TableModel = TypeVar("TableModel", bound=BaseModel)


class _ManifestFile(StrictModel):
    """The outer shape; the inner tables are validated one by one, so that messages can number them."""

    root: str | None = None
    defaults: dict[str, object] = Field(default_factory=dict)
    calibration: dict[str, object] | None = None
    section: list[dict[str, object]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class ManifestSection:
    """One section of a manifest whose files are known to exist.

    Attributes
    ----------
    manifest : Path
    place : str
        Where it stands in the manifest.
    entry : Entry
    image : Path
    log : Path, optional
    planes : tuple of Plane
    calibration : CalibrationPlan, optional
    """

    manifest: Path
    place: str
    entry: Entry
    image: Path
    log: Path | None
    planes: tuple[Plane, ...] = ()
    calibration: CalibrationPlan | None = None

    @property
    def statement(self) -> Statement:
        """Scale and top as stated."""
        return Statement("manifest", self.manifest, self.place, self.entry.px_per_cm, self.entry.top_cm)


def read_manifest(path: Path) -> list[ManifestSection | SourceError]:
    """Read a manifest: per section its files, or the reason why they cannot be used.

    Raises
    ------
    ConfigError
        Not TOML, an unknown key (with the nearest known one), or a value of the wrong type.
    """
    shape = load_toml(path, _ManifestFile)
    _validated(path, "defaults", Defaults, shape.defaults)
    root = (path.parent / (shape.root or ".")).resolve()
    stated = (
        None
        if shape.calibration is None
        else _validated(path, "calibration", CalibrationEntry, shape.calibration)
    )
    plan = None if stated is None else _plan(path, root, stated)
    entries = [
        (f"section {number}", _validated(path, f"section {number}", Entry, shape.defaults | table))
        for number, table in enumerate(shape.section, start=1)
    ]
    return [_locate(path, place, root, entry, plan) for place, entry in entries]


def _validated(path: Path, place: str, model: type[TableModel], table: dict[str, object]) -> TableModel:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        told = explain(error, model, path)
        raise ConfigError(told.reason, file=path, place=f"{place}, {told.place}", fix=told.fix) from error


def _locate(
    manifest: Path, place: str, root: Path, entry: Entry, plan: CalibrationPlan | None
) -> ManifestSection | SourceError:
    try:
        image = _inside(manifest, f"{place}, file", root, entry.file)
        log = None if entry.log is None else _inside(manifest, f"{place}, log", root, entry.log)
        planes = tuple(_plane(manifest, place, root, plane) for plane in entry.plane)
        own = None if entry.card is None else _card(manifest, f"{place}, card", root, entry.card)
    except SourceError as error:
        return error
    if own and not plan:
        raise ConfigError(
            "a card is placed, but nothing says how samples follow light",
            file=manifest,
            place=f"{place}, card",
            fix="add a table [calibration] with the key transfer",
        )
    own_plan = replace(plan, own_card=own) if plan else None
    return ManifestSection(manifest, place, entry, image, log, planes, own_plan)


def _plan(manifest: Path, root: Path, entry: CalibrationEntry) -> CalibrationPlan:
    """Find the files of `[calibration]`: they concern every section, so a missing one ends the reading."""
    transfer: str | float | Path = entry.transfer
    if isinstance(transfer, str) and Path(transfer).suffix:
        transfer = _inside(manifest, "calibration, transfer", root, transfer)
    flat = None if entry.flat is None else _inside(manifest, "calibration, flat", root, entry.flat)
    if entry.card is None:
        return CalibrationPlan(transfer, flat, entry.flat_reflectance)
    place = "calibration, card"
    card = _card(manifest, place, root, entry.card)
    scan = _inside(manifest, f"{place}, file", root, entry.card.file)
    return CalibrationPlan(transfer, flat, None, card, scan, entry.card.top_cm)


def _card(manifest: Path, place: str, root: Path, entry: CardEntry) -> Card:
    if entry.patches is None:
        return Card(corners_cm=entry.corners_cm)
    return Card(patches=_inside(manifest, f"{place}, patches", root, entry.patches))


def _plane(manifest: Path, place: str, root: Path, entry: PlaneEntry) -> Plane:
    image = _inside(manifest, f"{place}, plane {entry.name}, file", root, entry.file)
    return Plane(image=image, **entry.model_dump(exclude={"file"}))


def _inside(manifest: Path, place: str, root: Path, text: str) -> Path:
    """Resolve a written path that must be a file below `root`."""
    if leaves_folder(text) or not (found := (root / text).resolve()).is_relative_to(root):
        raise SourceError(
            f"{text!r} leaves {root}",
            file=manifest,
            place=place,
            fix="write the path relative to root, without '..', and set root to the folder that holds the files",
        )
    if not found.is_file():
        raise SourceError(f"no file {found}", file=manifest, place=place, fix="correct the name, or set root")
    return found
