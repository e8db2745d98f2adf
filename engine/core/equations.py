"""Linear equations of mixtures, and the covariance of their errors.

Sum over endmembers of f_i * row_i = right side. Beside density, susceptibility and velocity (see `unmix`), colour
gives one equation per channel: sum f_i (w_i - w) / D_i = 0 with the albedos w of `hapke` and grain sizes D_i;
where colour mixes by area, sum f_i (R_i - r) = 0 with dry reflectances; or a mean of both, since a core is neither
blended nor patchy throughout. Water is transparent and has no
term. The error of an equation is that of what was measured times its slope, and that of the endmembers' own
values times their fractions: both to first order, at fractions that a first solution gives.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from lithostream.engine.core import hapke
from lithostream.engine.core.minerals import PORE_WATER, Endmembers
from lithostream.engine.core.rockphysics import p_wave_modulus
from lithostream.engine.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Regime = Literal["unconsolidated", "lithified"]
ColourMixing = Literal["hapke", "linear", "bilinear"]

CHANNELS = 3
# Error of the colour laws, in reflectance: patches that are not blended, facets, shadows. Mustard and
# Pieters (1989, J. Geophys. Res. 94, 13619-13634) find abundances of intimate mixtures within 7 % by Hapke's law.
COLOUR_LAW_STD = 0.05
# Relative error of Wyllie's law: cemented rock is up to 7 % faster (Raymer, Hunt and Gardner 1980, SPWLA 21st annual
# symposium, paper P).
WYLLIE_STD = 0.07
# Solid fraction below which weights no longer grow.
_NO_SOLIDS = 1e-3
# Of an endmember's variance of colour, the share that all channels have in common.
_COMMON = 0.8
# A generalised bilinear model scales each product of two reflectances by 0 to 1 (Halimi et al. 2011): three channels
# cannot tell it, so it is the mean of that range, and the range's variance an error.
_BILINEAR, _BILINEAR_STD = 0.5, 12**-0.5
# Ends of a 90 % range are this many standard deviations apart.
_RANGE_90 = 2.0 * 1.6449


@dataclass(frozen=True, slots=True, eq=False)
class Colour:
    """Calibrated colour of N rows; uncalibrated colour is no reflectance and must not be given.

    Attributes
    ----------
    reflectance : float64 [N, 3]
        Reflectance factor in linear-light sRGB (1 = a white Lambert card in the same light); NaN = unmeasured.
    std : float
        Standard deviation of each channel.
    wetness, wetness_std : float
        Share of the surface under a film of water, and how well it is known. Default: nothing is known, the
        mean and deviation of 0 to 1.
    mixing : {"hapke", "linear", "bilinear"}
        Grains blended (albedo by cross-section), patches side by side (reflectance by solid volume), or patches with
        light between them (generalised bilinear model: Halimi et al. 2011, IEEE TGRS 49, 4153-4162).
    areal, areal_std : float
        Of "hapke" alone: how much of the look is that of patches larger than light spreads in, which count by
        volume and not by cross-section, and how well that is known. Default: nothing is known. 0 and 0 is the pure law.
    """

    reflectance: FloatArray
    std: float = 0.01
    wetness: float = 0.5
    wetness_std: float = 12**-0.5
    mixing: ColourMixing = "hapke"
    areal: float = 0.5
    areal_std: float = 12**-0.5

    def __post_init__(self) -> None:
        if self.mixing not in get_args(ColourMixing):
            fix = f"choose from {', '.join(get_args(ColourMixing))}"
            raise ConfigError(f"unknown colour mixing {self.mixing!r}", fix=fix)
        shares = self.wetness, self.areal
        if not (
            0 <= min(shares) <= max(shares) <= 1 and min(self.wetness_std, self.areal_std) >= 0 < self.std
        ):
            reason = f"wetness {self.wetness}, areal {self.areal} or a std of colour is out of range"
            raise ConfigError(reason, fix="give shares 0 to 1, their deviations from 0 and std above 0")


class Equations(NamedTuple):
    """Of N problems, E endmembers and B measured values.

    `right` is float64 [N, B], `rows` [N, E, B], `slope` [N, B] the change of right side - sum f_i row_i per unit of
    what was measured, `own` [N, B, B] the covariance of the errors that are not measurement.
    """

    right: FloatArray
    rows: FloatArray
    slope: FloatArray
    own: FloatArray


def colour_usable(endmembers: Endmembers, mixing: ColourMixing) -> bool:
    """Whether every solid has a colour, and the grain size that intimate mixing asks for."""
    solid = _solid(endmembers)
    colour = endmembers.colour[solid]
    known = ((colour >= 0) & (colour <= 1)).all(axis=1)
    if mixing == "hapke":
        sizes = endmembers.grain_size_um
        known = known & (sizes is not None and ~np.isnan(sizes[solid]).any(axis=1))
    return bool(known.all() and known.size)


def property_equations(
    values: FloatArray,
    fractions: FloatArray,
    endmembers: Endmembers,
    regime: Regime,
    spread: FloatArray,
    law_std: float,
) -> Equations:
    """Equations of density, velocity and susceptibility, `values` [N, 3], B = 3.

    `spread` [E, 4] is the relative standard deviation of the endmembers' values, 0 for exact ones; `law_std` the
    relative error of lithified velocity beside its measurement.
    """
    rho, vp, kappa = values.T
    ones, count = np.ones(len(rho)), len(endmembers.names)
    pure_rho, pure_vp = endmembers.density, endmembers.p_wave_velocity
    d_rho, d_vp, d_kappa = (np.zeros((len(rho), 3, count)) for _ in range(3))
    if regime == "unconsolidated":
        c, pure = 1.0 / p_wave_modulus(rho, vp), 1.0 / p_wave_modulus(pure_rho, pure_vp)
        # c + (c / rho) rho carries the error of the velocity alone.
        velocity = pure + np.outer(c / rho, pure_rho)
        right, slope = 2.0 * c, -2.0 * c / vp
        d_rho[:, 1] = (np.outer(c / rho, pure_rho) - pure) * spread[:, 0]
        d_vp[:, 1] = -2.0 * pure * spread[:, 1]
    else:
        velocity = np.outer(ones, 1.0 / pure_vp)
        right, slope = 1.0 / vp, -1.0 / vp**2
        d_vp[:, 1] = -spread[:, 1] / pure_vp
    d_rho[:, 0] = pure_rho * spread[:, 0]
    d_kappa[:, 2] = endmembers.susceptibility * spread[:, 2]
    rows = np.stack([np.outer(ones, pure_rho), velocity, np.outer(ones, endmembers.susceptibility)], axis=2)
    law = np.zeros((len(rho), 3))
    law[:, 1] = (law_std * slope * vp) ** 2
    own = sum((_outer(part * fractions[:, None, :]) for part in (d_rho, d_vp, d_kappa)), _diagonal(law))
    return Equations(np.stack([rho, right, kappa], axis=1), rows, np.stack([ones, slope, ones], axis=1), own)


def colour_equations(
    colour: Colour, seen: FloatArray, fractions: FloatArray, endmembers: Endmembers, spread: FloatArray
) -> Equations:
    """Equations of the three channels, `seen` [N, 3] being rows of `colour.reflectance`, B = 3."""
    solid = _solid(endmembers)
    pure = np.where(solid[:, None], endmembers.colour, 0.0).T  # [3, E]
    dry, by_wetness, by_seen = _dry(colour, seen)
    law = _grains if colour.mixing == "hapke" else _patches
    rows, d_pure, others = law(colour, dry, fractions, endmembers, pure)
    d_colour = d_pure * spread[:, 3] * fractions[:, None, :]
    variance = (1.0 - _COMMON) * (d_colour**2).sum(axis=2) + COLOUR_LAW_STD**2
    own = (
        _outer(np.sqrt(_COMMON) * d_colour)
        + _diagonal(variance)
        + sum((_outer(other) for other in others), np.zeros(()))
        + _outer((by_wetness * colour.wetness_std)[:, :, None])
    )
    return Equations(np.zeros_like(seen), np.swapaxes(rows, 1, 2), by_seen, own)


class _Law(NamedTuple):
    """Rows [N, 3, E], change per relative change of an endmember's colour [N, 3, E], other errors [N, 3, P]."""

    rows: FloatArray
    d_pure: FloatArray
    others: tuple[FloatArray, ...]


def _patches(
    colour: Colour, dry: FloatArray, fractions: FloatArray, endmembers: Endmembers, pure: FloatArray
) -> _Law:
    """Reflectance by share of the solids."""
    solid = _solid(endmembers).astype(np.float64)
    share = solid / _held(fractions, solid)
    part = (fractions * share)[:, None, :]
    lit = np.zeros((len(dry), *pure.shape))
    if colour.mixing == "bilinear":  # halves, for a pair counts once
        lit = 0.5 * pure * ((pure * part).sum(axis=2, keepdims=True) - pure * part)
    rows = share[:, None, :] * (pure + _BILINEAR * lit - dry[:, :, None])
    error = (_BILINEAR_STD * lit * part).sum(axis=2, keepdims=True)
    return _Law(rows, share[:, None, :] * (pure + _BILINEAR * lit), (error,))


def _grains(
    colour: Colour, dry: FloatArray, fractions: FloatArray, endmembers: Endmembers, pure: FloatArray
) -> _Law:
    """Albedo by cross-section, beside patches; albedos are divided by their slope at `dry`, so that both agree there."""
    sizes, solid = endmembers.grain_size_um, _solid(endmembers)
    assert sizes is not None  # `colour_usable`
    typical, low, high = np.where(solid[:, None], sizes, 1.0).T
    # Mean and relative deviation of 1 / D where D is lognormal.
    variance = (np.log(high / low) / _RANGE_90) ** 2
    section = solid * np.exp(0.5 * variance) / typical
    section = (section / _held(fractions, section))[:, None, :]  # [N, 1, E]
    slope = ((hapke.albedo(1.001 * dry) - hapke.albedo(dry)) / (0.001 * dry))[:, :, None]
    albedo = hapke.albedo(pure)
    blended = section * (albedo - hapke.albedo(dry)[:, :, None]) / slope
    d_blended = section * (albedo - hapke.albedo(0.999 * pure)) / 0.001 / slope
    areal, d_areal, _ = _patches(colour, dry, fractions, endmembers, pure)
    part = fractions[:, None, :]
    others = (
        (1.0 - colour.areal) * np.sqrt(np.expm1(variance)) * blended * part,
        colour.areal_std * ((areal - blended) * part).sum(axis=2, keepdims=True),
    )
    share = colour.areal
    return _Law((1.0 - share) * blended + share * areal, (1.0 - share) * d_blended + share * d_areal, others)


def _held(fractions: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted sum of the fractions, [N, 1], above a floor."""
    held = (fractions * weight).sum(axis=1, keepdims=True)
    return np.asarray(np.maximum(held, _NO_SOLIDS * weight.max()), dtype=np.float64)


def _dry(colour: Colour, seen: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Dry reflectance, and its change per unit of wetness and of reflectance, [N, 3] each."""

    def at(seen: FloatArray, wetness: float) -> FloatArray:
        return np.asarray(np.minimum(hapke.dry(seen, wetness), 0.99), dtype=np.float64)

    low, high = max(0.0, colour.wetness - colour.wetness_std), min(1.0, colour.wetness + colour.wetness_std)
    change = (at(seen, high) - at(seen, low)) / (high - low) if high > low else np.zeros_like(seen)
    here = at(seen, colour.wetness)
    by_seen = (at(1.001 * seen, colour.wetness) - here) / (0.001 * seen)
    # What is brighter than dry paper is no sediment, but its error is no less for that.
    return here, np.asarray(change), np.asarray(np.maximum(by_seen, 0.1))


def _solid(endmembers: Endmembers) -> BoolArray:
    return np.array([name != PORE_WATER for name in endmembers.names])


def _outer(part: FloatArray) -> FloatArray:
    """Covariance [N, B, B] of independent errors [N, B, P]."""
    return np.asarray(part @ np.swapaxes(part, 1, 2), dtype=np.float64)


def _diagonal(variance: FloatArray) -> FloatArray:
    return np.asarray(variance[:, :, None] * np.eye(variance.shape[1]), dtype=np.float64)
