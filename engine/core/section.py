"""One scanned core section: what it is, how big its pixels are, and where it lies."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

ScaleSource = Literal["sidecar", "manifest", "instrument profile", "tiff tag"]
DepthAxis = Literal["y", "x"]


def _plane_name(text: str) -> str:
    if text == "rgb" or not re.fullmatch("[a-z][a-z0-9_]*", text):
        raise ValueError(
            "a plane's name is a letter, then letters, digits or _, all small; 'rgb' is the colour"
        )
    return text


PlaneName = Annotated[str, AfterValidator(_plane_name)]


@dataclass(frozen=True, slots=True)
class Plane:
    """A grey image of a section beside its colour, such as CT or a radiograph, at a scale of its own.

    It lies on the colour image by depth, and across the core with its middle on the colour image's middle.

    Attributes
    ----------
    name : str
        What models call it.
    image : Path
    px_per_cm : float
        Pixels per centimetre; square pixels.
    top_cm : float
        Section offset of the edge where depth starts, cm.
    depth_axis : {"y", "x"}
        Image axis along which depth runs.
    depth_reversed : bool
        True where the file runs from bottom to top.
    """

    name: str
    image: Path
    px_per_cm: float
    top_cm: float
    depth_axis: DepthAxis
    depth_reversed: bool


@dataclass(frozen=True, slots=True)
class Card:
    """Where the patches of a grey or colour card lie in a scan; one of `corners_cm` and `patches` is given.

    Attributes
    ----------
    corners_cm : tuple of 4 (depth, across), optional
        Middles of the patches dark skin, bluish green, black and white of a ColorChecker Classic: section offset,
        and distance from the left edge of the picture turned down-core, cm.
    patches : Path, optional
        CSV of patches, see `engine/io/card_table.py`.
    """

    corners_cm: tuple[tuple[float, float], ...] | None = None
    patches: Path | None = None


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """How colours of a section become reflectance.

    Attributes
    ----------
    transfer : str, float or Path
        How samples follow light: "srgb", "linear", "embedded" (the ICC profile of a TIFF), the exponent of a
        power law, or the path of an ICC profile or a CSV of 256 rows.
    flat : Path, optional
        Picture of an even plate by the same scanner, or a CSV of one row per column of pixels.
    flat_reflectance : float, optional
        What the plate reflects, if it is the reference.
    card : Card, optional
        The card that is the reference.
    card_image : Path, optional
        Its scan, with the scale, depth axis and white level of the section.
    card_top_cm : float
        Section offset of the first row of `card_image`, cm.
    own_card : Card, optional
        The card in the section's own image.
    """

    transfer: str | float | Path = "srgb"
    flat: Path | None = None
    flat_reflectance: float | None = None
    card: Card | None = None
    card_image: Path | None = None
    card_top_cm: float = 0.0
    own_card: Card | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that calibration reads beside the section's image."""
        cards = [card.patches for card in (self.card, self.own_card) if card]
        transfer = self.transfer if isinstance(self.transfer, Path) else None
        return tuple(path for path in (transfer, self.flat, self.card_image, *cards) if path)


@dataclass(frozen=True, slots=True)
class Section:
    """Identity, scale and depth of one section image.

    Attributes
    ----------
    name : str
        Safe folder name, unique in a run.
    image : Path
        The picture.
    px_per_cm : float
        Pixels per centimetre along depth; square pixels.
    scale_source : str
        Where `px_per_cm` came from.
    top_cm : float
        Section offset of the edge where depth starts, cm.
    depth_axis : {"y", "x"}
        Image axis along which depth runs.
    depth_reversed : bool
        True where the file runs from bottom to top.
    hole, core, section : str, optional
        Identity as far as it is known.
    hole_top_m : float, optional
        Depth in hole at section offset 0, m.
    depth_scale, depth_method : str, optional
        Name of the hole depth scale (`CSF-A`, `mbsf`, ...) and how hole depth was derived.
    scanner : str, optional
        Instrument that made the image: part of a model's domain.
    white_level : int, optional
        Sample value of white in a file of more than 8 bits.
    core_cm : (float, float), optional
        Section offsets between which the instrument measured; beyond them its bed, card and caps are in view.
    log : Path, optional
        Sensor log measured on this section.
    planes : tuple of Plane
        Further images of the same core.
    calibration : CalibrationPlan, optional
        How its colours become reflectance; without it they are not calibrated.
    sidecars : tuple of Path
        Every further file that was read to build this record.
    notes : tuple of str
        Decisions and doubts worth showing to a person.
    """

    name: str
    image: Path
    px_per_cm: float
    scale_source: ScaleSource
    top_cm: float = 0.0
    depth_axis: DepthAxis = "y"
    depth_reversed: bool = False
    hole: str | None = None
    core: str | None = None
    section: str | None = None
    hole_top_m: float | None = None
    depth_scale: str | None = None
    depth_method: str | None = None
    scanner: str | None = None
    white_level: int | None = None
    core_cm: tuple[float, float] | None = None
    log: Path | None = None
    planes: tuple[Plane, ...] = ()
    calibration: CalibrationPlan | None = None
    sidecars: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
