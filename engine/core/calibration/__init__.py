"""Colours to reflectance: linearise, flat field, card, and the alarm where a card has drifted."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.calibration.card import Patches, measure, read_patches
from lithostream.engine.core.calibration.drift import (
    MOST_DRIFT,
    NOTED_DRIFT,
    drift_against_card,
    drift_against_plate,
)
from lithostream.engine.core.calibration.fit import (
    MOST_COLOUR_RESIDUAL,
    MOST_GREY_RESIDUAL,
    UNIT_FIT,
    Fit,
    fit_card,
)
from lithostream.engine.core.calibration.flat import flat_gain
from lithostream.engine.core.calibration.transfer import linear_light
from lithostream.engine.core.section import CalibrationPlan, Section
from lithostream.engine.errors import SourceError
from lithostream.kernels.arrays import array_module, check_array
from lithostream.kernels.errors import ContractError

__all__ = ["MOST_DRIFT", "NOTED_DRIFT", "Calibrated", "Calibration", "calibrate"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How the colours of one section become reflectance.

    Attributes
    ----------
    light : float32 [256, 3]
        Linear light of each sample value; NaN at 0 and 255, where the sensor may be clipped.
    flat : float32 [W, 3], optional
        Gain of each column of pixels.
    fit : Fit
    """

    light: npt.NDArray[np.float32]
    flat: npt.NDArray[np.float32] | None
    fit: Fit

    def reflectance(self, rgb: npt.NDArray[np.uint8], first_col: int = 0) -> npt.NDArray[np.float32]:
        """Reflectance of pixels, float32 [H, W, 3]: linear-light sRGB, 1 is a perfect white.

        Parameters
        ----------
        rgb : uint8 [H, W, 3]
            As the section's image is served.
        first_col : int
            Column of the section's image at which `rgb` starts.

        Returns
        -------
        float32 [H, W, 3]
            NaN in channels that are clipped, in all three where a matrix mixes them. Values below 0 and above 1 are
            kept: noise around black, and colours brighter than the white.

        Raises
        ------
        ContractError
            Another type or shape, or columns that the flat field does not have.
        """
        check_array("rgb", rgb, dtype=np.uint8, shape=(None, None, 3))
        width = rgb.shape[1]
        if self.flat is not None and not 0 <= first_col <= len(self.flat) - width:
            raise ContractError(
                f"first_col {first_col}: the flat field has {len(self.flat)} columns, not {width}"
            )
        fit = self.fit
        xp = array_module(rgb)
        value: npt.NDArray[np.float32] = xp.empty(rgb.shape, np.float32)
        for channel in range(3):
            table = self.light[:, channel] * np.float32(fit.gain[channel])
            plane = xp.asarray(table)[rgb[..., channel]]
            if self.flat is not None:
                plane *= xp.asarray(self.flat[first_col : first_col + width, channel])
            value[..., channel] = plane + np.float32(fit.offset[channel])
        if not fit.has_matrix:
            return value
        # Pixel by pixel: the order of a matrix product's sums depends on its shape and its threads.
        red, green, blue = (value[..., channel] for channel in range(3))
        rows = fit.matrix.astype(np.float32)
        mixed: npt.NDArray[np.float32] = xp.stack(
            [red * row[0] + green * row[1] + blue * row[2] for row in rows], axis=2
        )
        return mixed


class Calibrated(NamedTuple):
    """What calibration says of one section.

    Attributes
    ----------
    calibration : Calibration, optional
        None where colours are not calibrated: nothing that needs reflectance may be computed.
    drift : float, optional
        Largest relative change of a channel on the section's own card against the reference card.
    drifted : bool
        `drift` is beyond `NOTED_DRIFT`.
    notes : tuple of str
        What was done, or why it was not.
    """

    calibration: Calibration | None
    drift: float | None
    drifted: bool
    notes: tuple[str, ...]


def calibrate(section: Section, width_px: int) -> Calibrated:
    """Find out how the colours of a section become reflectance.

    Parameters
    ----------
    section : Section
    width_px : int
        Columns of its image, rows down-core.

    Raises
    ------
    ConfigError, SourceError
        A file of the plan cannot be used, or the card contradicts the transfer.
    """
    plan = section.calibration
    if plan is None:
        return _uncalibrated("no plan")
    reference = _reference(plan, section)
    if reference is None and plan.flat_reflectance is None:
        return _uncalibrated("neither a card nor a plate of known reflectance")
    curve = linear_light(plan, section)
    gain = flat_gain(plan.flat, curve, section, width_px, plan.flat_reflectance) if plan.flat else None
    seen, fit, drift, note = None, UNIT_FIT, None, "colours calibrated on the plate"
    if reference is not None:
        seen = measure(reference.image, reference.patches, curve, gain, section, reference.top_cm)
        fit = _accepted(fit_card(seen, reference.patches.reflectance), reference, plan)
        note = _fit_note(fit, reference)
    if plan.own_card and (reference is None or reference.image != section.image):
        own = read_patches(plan.own_card)
        now = measure(section.image, own, curve, gain, section, section.top_cm)
        drift = _drift(own, now, fit, reference, seen)
        if drift is None:
            raise SourceError(
                "no patch of its card can be compared with the reference",
                file=section.image,
                place="card",
                fix="name the patches alike; beside a plate, use a card with greys",
            )
        if math.isnan(drift):
            return _uncalibrated("the section's card is clipped", drift)
        off = f"the section's card is {drift:+.1%} off the reference"
        if abs(drift) > MOST_DRIFT:
            return _uncalibrated(f"{off}, over {MOST_DRIFT:.0%}", drift)
        note = f"{note}; {off}"
    flat = None if gain is None else gain.astype(np.float32)
    drifted = drift is not None and abs(drift) > NOTED_DRIFT
    return Calibrated(Calibration(curve.astype(np.float32), flat, fit), drift, drifted, (note,))


def _uncalibrated(why: str, drift: float | None = None) -> Calibrated:
    return Calibrated(None, drift, drift is not None, (f"colours not calibrated: {why}; no reflectance",))


class _Reference(NamedTuple):
    """The card that calibrates."""

    image: Path
    patches: Patches
    top_cm: float


def _reference(plan: CalibrationPlan, section: Section) -> _Reference | None:
    if plan.card and plan.card_image:
        return _Reference(plan.card_image, read_patches(plan.card), plan.card_top_cm)
    if plan.own_card and plan.flat_reflectance is None:
        return _Reference(section.image, read_patches(plan.own_card), section.top_cm)
    return None


def _accepted(fit: Fit | None, reference: _Reference, plan: CalibrationPlan) -> Fit:
    if fit is None:
        raise SourceError(
            "neither one grey nor six differing colours that are unclipped in every channel",
            file=reference.image,
            place="card",
            fix="use a card with greys, or a shorter exposure",
        )
    if (fit.gain <= 0).any():
        raise SourceError(
            "patches that should be brighter are darker",
            file=reference.image,
            place="card",
            fix="correct the place of the card",
        )
    if not fit.accepted:
        raise SourceError(
            f"the card is missed by {fit.grey_residual:.3f} (greys, at most {MOST_GREY_RESIDUAL:g}) and"
            f" {fit.colour_residual:.3f} (colours, at most {MOST_COLOUR_RESIDUAL:g}) of reflectance,"
            f" with transfer {plan.transfer}",
            file=reference.image,
            place="card",
            fix='check the place of the card, its known values, and the transfer: "linear" or "srgb" are the usual',
        )
    return fit


def _fit_note(fit: Fit, reference: _Reference) -> str:
    greys = "untold" if math.isnan(fit.grey_residual) else f"{fit.grey_residual:.3f}"
    counts = f"{fit.greys} greys (residual {greys})"
    if fit.colours:
        counts += f", {fit.colours} colours (residual {fit.colour_residual:.3f})"
    unused = len(reference.patches.names) - fit.greys - fit.colours
    left = f"; {unused} patches not used" if unused else ""
    return f"colours calibrated on the card in {reference.image.name}: {counts}{left}"


def _drift(
    own: Patches, now: Floats, fit: Fit, reference: _Reference | None, then: Floats | None
) -> float | None:
    """Compare by channel, before a matrix would mix them."""
    if reference is None or then is None:
        return drift_against_plate(own, now)
    return drift_against_card(
        own, now * fit.gain + fit.offset, reference.patches, then * fit.gain + fit.offset
    )
