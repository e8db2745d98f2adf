"""How samples follow light: the linear value of each of the 256 sample values.

Sources reach the engine as 8 bits a channel; 16-bit samples were divided by their white level before (see
`engine/io/pixels.py`), so one table of 256 rows serves both, and linear 16-bit files keep steps of 1/255 of white.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import CalibrationPlan, Section
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.io.card_table import read_columns
from lithostream.engine.io.icc import tone_curves
from lithostream.engine.io.images import kind_of
from lithostream.engine.io.tiff_tags import Tag, Tags

Floats = npt.NDArray[np.float64]
PROFILES = (".icc", ".icm")


def linear_srgb(values: Floats) -> Floats:
    """Linear light of sRGB values 0..1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_light(plan: CalibrationPlan, section: Section) -> Floats:
    """Linear light of each sample value, float64 [256, 3]; NaN at both ends, where the sensor may be clipped.

    Raises
    ------
    ConfigError
        The transfer is of no known name.
    SourceError
        A profile or table cannot be used.
    """
    curve = np.array(_curve(plan.transfer, section))
    if not np.isfinite(curve).all() or (np.diff(curve, axis=0) < 0).any() or (curve[255] <= curve[0]).any():
        raise SourceError(
            "linear values do not rise from sample value 0 to 255",
            file=plan.transfer if isinstance(plan.transfer, Path) else section.image,
            place="transfer",
            fix="give one row per sample value, from dark to bright",
        )
    curve[[0, 255]] = np.nan
    return curve


def _curve(transfer: str | float | Path, section: Section) -> Floats:
    grey = np.tile(np.arange(256)[:, None] / 255.0, 3)
    if isinstance(transfer, Path):
        if transfer.suffix.casefold() in PROFILES:
            return tone_curves(transfer.read_bytes(), transfer)
        table = read_columns(transfer, ("r", "g", "b"))
        if len(table) != 256:
            reason = f"{len(table)} rows; one per sample value, 0 to 255, makes 256"
            raise SourceError(reason, file=transfer, fix="give 256 rows of r,g,b below a header")
        return table
    if isinstance(transfer, str):
        if transfer == "embedded":
            return _embedded(section.image)
        if transfer not in ("srgb", "linear"):
            raise ConfigError(
                f"{transfer!r} is no transfer",
                place="calibration, transfer",
                fix='"srgb", "linear", "embedded", an exponent, an ICC profile (.icc, .icm) or a table (.csv)',
            )
        return linear_srgb(grey) if transfer == "srgb" else grey
    return np.asarray(grey**transfer, dtype=np.float64)


def _embedded(image: Path) -> Floats:
    profile = Tags(image).blob(Tag.ICC_PROFILE) if kind_of(image) == "TIFF" else None
    if profile is None:
        raise SourceError(
            "no ICC profile embedded in a TIFF", file=image, fix="name a profile or a curve as transfer"
        )
    return tone_curves(profile, image)
