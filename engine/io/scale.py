"""One place that decides the scale and the top of an image, from all that was said about them.

Precedence: scanner sidecar > manifest > instrument profile > image tag > refuse. Two usable statements
that differ by more than 2 % are an error, never a choice made in silence.

An image tag is evidence only where somebody seems to have meant it. Software writes 72, 96, 100, 150 or
300 dpi when it knows nothing: a facility documents Geotek TIFFs tagged 300 dpi in which a core of 151 cm
would measure 45 cm. Those densities, and any under 5 or over 2,000 px/cm, count as no statement at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lithostream.engine.core.section import ScaleSource
from lithostream.engine.errors import ScaleError

SCALE_TOLERANCE = 0.02  # relative
TOP_TOLERANCE_CM = 0.5
PLACEHOLDER_DPI = (72.0, 96.0, 100.0, 150.0, 300.0)
USABLE_TAG_PX_PER_CM = (5.0, 2000.0)
CM_PER_INCH = 2.54


@dataclass(frozen=True, slots=True)
class Statement:
    """What one source says about where an image lies in its core.

    Attributes
    ----------
    source : ScaleSource
        Kind of source: decides the precedence.
    file : Path
        Where it was read.
    place : str
        Tag, key or line in that file.
    px_per_cm : float, optional
        Scale along depth.
    top_cm : float, optional
        Section offset of the edge where depth starts.
    """

    source: ScaleSource
    file: Path
    place: str
    px_per_cm: float | None = None
    top_cm: float | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What was decided: `Section.px_per_cm`, `scale_source` and `top_cm`."""

    px_per_cm: float
    scale_source: ScaleSource
    top_cm: float


def tag_statement(image: Path, px_per_cm: float | None) -> Statement | None:
    """Take the resolution tag of an image as a statement, unless it is a placeholder."""
    if px_per_cm is None or not math.isfinite(px_per_cm):
        return None
    low, high = USABLE_TAG_PX_PER_CM
    placeholder = any(abs(px_per_cm * CM_PER_INCH - dpi) < 0.5 for dpi in PLACEHOLDER_DPI)
    if placeholder or not low <= px_per_cm <= high:
        return None
    return Statement("tiff tag", image, "resolution tag", px_per_cm)


def place_image(image: Path, statements: Sequence[Statement]) -> Placement:
    """Decide scale and top of an image.

    Parameters
    ----------
    image : Path
        For messages.
    statements : sequence of Statement
        In any order.

    Raises
    ------
    ScaleError
        A scale that is not a positive number, two that disagree by more than 2 %, two tops that disagree
        by more than 0.5 cm, or no usable scale.
    """
    ranked = sorted(statements, key=lambda said: get_args(ScaleSource).index(said.source))
    scales = [(said, said.px_per_cm) for said in ranked if said.px_per_cm is not None]
    tops = [(said, said.top_cm) for said in ranked if said.top_cm is not None]
    for said, px_per_cm in scales:
        check_scale(px_per_cm, said.file, said.place)
    for said, top_cm in tops:
        if not math.isfinite(top_cm):
            raise ScaleError(
                f"top is {top_cm} cm", file=said.file, place=said.place, fix="state a number of cm"
            )
    if not scales:
        raise ScaleError(
            "nothing states the scale of this image",
            file=image,
            fix="put its Geotek XML beside it, or state px_per_cm in a manifest.toml",
        )
    _agree(image, [(said, value, value * SCALE_TOLERANCE) for said, value in scales], "px/cm")
    _agree(image, [(said, value, TOP_TOLERANCE_CM) for said, value in tops], "cm at the top")
    first, px_per_cm = scales[0]
    return Placement(px_per_cm, first.source, tops[0][1] if tops else 0.0)


def check_scale(px_per_cm: float, file: Path, place: str) -> None:
    """Refuse a scale that is not a positive number."""
    if not (math.isfinite(px_per_cm) and px_per_cm > 0):
        raise ScaleError(
            f"scale is {px_per_cm} px/cm",
            file=file,
            place=place,
            fix="state a positive number of pixels per centimetre",
        )


def _agree(image: Path, said: Sequence[tuple[Statement, float, float]], unit: str) -> None:
    """Refuse statements of which any two differ by more than the first one's tolerance."""
    for index, (first, value, tolerance) in enumerate(said):
        for other, other_value, _ in said[index + 1 :]:
            if abs(value - other_value) > tolerance:
                raise ScaleError(
                    f"{first.source} ({first.file.name}, {first.place}) says {value:.6g} {unit}, "
                    f"{other.source} ({other.file.name}, {other.place}) says {other_value:.6g}",
                    file=image,
                    fix="correct or remove the one that is wrong",
                )
