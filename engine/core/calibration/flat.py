"""Flat field of a line scanner: one gain per column of pixels and channel."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import Section
from lithostream.engine.errors import SourceError
from lithostream.engine.io.card_table import read_columns
from lithostream.engine.io.images import open_image

Floats = npt.NDArray[np.float64]

WIDEST_RANGE = 2.0  # light that falls off by more is another plate, a shadow, or an edge in view
LEAST_ROWS = 0.99  # share of a column's rows that must not be clipped
_SLAB_ROWS = 512


def flat_gain(
    path: Path, curve: Floats, section: Section, width_px: int, reflectance: float | None
) -> Floats:
    """Gain that makes an even plate even, float64 [W, 3].

    Parameters
    ----------
    path : Path
        Picture of the plate with the depth axis and white level of the section, or a CSV of its linear light.
    curve : float64 [256, 3]
    section : Section
    width_px : int
        Columns of the section's image.
    reflectance : float, optional
        What the plate reflects: the gain then leads to reflectance. Without it, the mean gain of a channel is one.

    Raises
    ------
    SourceError
        Another width, dark or clipped columns, or light that varies by more than a factor of two.
    """
    if path.suffix.casefold() == ".csv":
        light = read_columns(path, ("r", "g", "b"))
    else:
        light = _plate(path, curve, section)
    if len(light) != width_px:
        reason = f"{len(light)} columns; {section.image.name} has {width_px}"
        raise _refused(path, reason)
    dark = ~(light > 0).all(axis=1)
    if dark.any():
        raise _refused(path, f"column {int(dark.argmax())} is black, or clipped in too many rows")
    ratio = float((light.max(axis=0) / light.min(axis=0)).max())
    if ratio > WIDEST_RANGE:
        raise _refused(
            path, f"light varies by a factor of {ratio:.2f} across the line, over {WIDEST_RANGE:g}"
        )
    return np.asarray((light.mean(axis=0) if reflectance is None else reflectance) / light, dtype=np.float64)


def _plate(path: Path, curve: Floats, section: Section) -> Floats:
    """Mean linear light of each column, float64 [W, 3]; 0 where too many rows are clipped."""
    source = open_image(path, depth_axis=section.depth_axis, white_level=section.white_level)
    total, valid = np.zeros((source.width_px, 3)), np.zeros((source.width_px, 3))
    for slab in source.slabs(_SLAB_ROWS):
        light = curve[slab.rgb, np.arange(3)]
        total += np.nansum(light, axis=0)
        valid += np.isfinite(light).sum(axis=0)
    enough = valid >= LEAST_ROWS * source.height_px
    return np.where(enough, total / np.maximum(valid, 1), 0.0)


def _refused(path: Path, reason: str) -> SourceError:
    return SourceError(
        reason, file=path, place="flat", fix="scan an even white plate at the settings of the section"
    )
