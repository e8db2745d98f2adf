"""Patches of a grey or colour card: where they lie, what they reflect, what the scanner saw of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.calibration.transfer import linear_srgb
from lithostream.engine.core.section import Card, Section
from lithostream.engine.errors import SourceError
from lithostream.engine.io.card_table import has_column, read_columns, read_names
from lithostream.engine.io.images import Slab, open_image
from lithostream.engine.io.pixels import Pixels

Floats = npt.NDArray[np.float64]

# Nominal colours of the ColorChecker Classic as its maker publishes them in sRGB (X-Rite; Pascale 2006, RGB
# coordinates of the Macbeth ColorChecker, BabelColor, measures the same chart within a few units).
CLASSIC = Path(str(files("lithostream.engine.core.calibration") / "classic24.csv"))
CLASSIC_ROWS, CLASSIC_COLS = 4, 6
PATCH_SHARE = 0.5  # side of the box read of a patch, over the distance between patches
LEAST_PX = 9
MOST_CLIPPED = 0.01  # share of clipped pixels from which a patch's channel is not used
_SLAB_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Patches of a card.

    Attributes
    ----------
    names : tuple of str [P]
    box_cm : float64 [P, 4]
        Top, base (section offset), left, right.
    reflectance : float64 [P, 3]
        Known, in linear-light sRGB; 1 is a perfect white.
    """

    names: tuple[str, ...]
    box_cm: Floats
    reflectance: Floats


def read_patches(card: Card) -> Patches:
    """Find the boxes and known reflectances of a card.

    Raises
    ------
    SourceError
        The table of patches cannot be used.
    """
    if card.corners_cm is not None:
        return Patches(read_names(CLASSIC), _classic_boxes(card.corners_cm), _reflectance(CLASSIC))
    if card.patches is None:
        raise ValueError("a card without corners and patches")
    box_cm = read_columns(card.patches, ("top_cm", "base_cm", "left_cm", "right_cm"))
    if not ((box_cm[:, 0] < box_cm[:, 1]) & (box_cm[:, 2] < box_cm[:, 3])).all():
        raise SourceError("a patch ends before it starts", file=card.patches, fix="correct its box")
    return Patches(read_names(card.patches), box_cm, _reflectance(card.patches))


def measure(
    image: Path, card: Patches, curve: Floats, gain: Floats | None, section: Section, top_cm: float
) -> Floats:
    """Mean linear light of every patch, float64 [P, 3]; NaN where a channel is clipped.

    Parameters
    ----------
    image : Path
        A scan with the scale, depth axis and white level of `section`.
    card : Patches
    curve : float64 [256, 3]
        Linear light of each sample value.
    gain : float64 [W, 3], optional
        Flat field.
    section : Section
    top_cm : float
        Section offset of the image's first row.

    Raises
    ------
    SourceError
        A patch lies outside of the image or holds too few pixels, or the image has another width than the flat.
    """
    source = open_image(
        image,
        depth_axis=section.depth_axis,
        depth_reversed=section.depth_reversed,
        white_level=section.white_level,
    )
    if gain is not None and len(gain) != source.width_px:
        reason = f"{source.width_px} columns of pixels; the flat field has {len(gain)}"
        raise SourceError(reason, file=image, fix="scan the card at the settings of the section")
    origin = np.array([top_cm, top_cm, 0.0, 0.0])
    edges = (card.box_cm - origin) * section.px_per_cm
    boxes = np.stack([np.ceil(edges), np.floor(edges)])[[0, 1, 0, 1], :, [0, 1, 2, 3]].T.astype(np.int64)
    inside = (boxes[:, [0, 2]] >= 0).all(axis=1) & (boxes[:, 1] <= source.height_px)
    inside &= boxes[:, 3] <= source.width_px
    size = (boxes[:, 1] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 2]).clip(0)
    for name, box, is_inside, pixels in zip(card.names, card.box_cm, inside, size, strict=True):
        if not is_inside or pixels < LEAST_PX:
            reason = "outside of the image" if not is_inside else f"{pixels} px, of at least {LEAST_PX}"
            raise SourceError(
                f"patch {name!r} at {box.tolist()} cm (top, base, left, right): {reason}",
                file=image,
                place="card",
                fix="correct the place of the card, or the scale",
            )
    first, last = int(boxes[:, 0].min()), int(boxes[:, 1].max())
    rows = _rows(source.slabs(_SLAB_ROWS), first, last)
    means = [_patch_mean(rows, box - np.array([first, first, 0, 0]), curve, gain) for box in boxes]
    return np.stack(means)


def _classic_boxes(corners_cm: tuple[tuple[float, float], ...]) -> Floats:
    """Boxes between the four corner patches, however the chart is turned or mirrored."""
    dark_skin, bluish_green, black, white = np.array(corners_cm)
    down = np.repeat(np.linspace(0.0, 1.0, CLASSIC_ROWS), CLASSIC_COLS)[:, None]
    along = np.tile(np.linspace(0.0, 1.0, CLASSIC_COLS), CLASSIC_ROWS)[:, None]
    middle = (1 - down) * ((1 - along) * dark_skin + along * bluish_green)
    middle = middle + down * ((1 - along) * white + along * black)
    steps = np.linalg.norm([(bluish_green - dark_skin) / 5, (white - dark_skin) / 3], axis=1)
    half = PATCH_SHARE * float(steps.min()) / 2
    depth, across = middle.T
    return np.stack([depth - half, depth + half, across - half, across + half], axis=1)


def _reflectance(table: Path) -> Floats:
    if has_column(table, "reflectance_r"):
        known = read_columns(table, ("reflectance_r", "reflectance_g", "reflectance_b"))
    else:
        eight_bit = read_columns(table, ("srgb_r", "srgb_g", "srgb_b"))
        if (eight_bit > 255).any():
            raise SourceError("an sRGB value is above 255", file=table, fix="give 8-bit values")
        known = linear_srgb(eight_bit / 255.0)
    if (known < 0).any() or (known > 1.2).any():
        raise SourceError("a reflectance is not in 0..1.2", file=table, fix="1 is a perfect white")
    return known


def _rows(slabs: Iterator[Slab], first: int, last: int) -> Pixels:
    """Rows first..last, reading no further than needed."""
    parts = []
    for slab in slabs:
        parts.append(slab.rgb[max(first - slab.row_px, 0) : max(last - slab.row_px, 0)])
        if slab.row_px + len(slab.rgb) >= last:
            break
    return np.concatenate(parts)


def _patch_mean(rows: Pixels, box: npt.NDArray[np.int64], curve: Floats, gain: Floats | None) -> Floats:
    top, base, left, right = box
    light = curve[rows[top:base, left:right], np.arange(3)]
    clipped = np.isnan(light).mean(axis=(0, 1)) > MOST_CLIPPED
    if gain is not None:
        light = light * gain[left:right]
    light[..., clipped] = 0.0  # a channel clipped throughout has no mean
    mean = np.nanmean(light, axis=(0, 1))
    return np.where(clipped, np.nan, mean)
