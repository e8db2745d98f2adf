"""Mixing laws of sediment and rock: fractions of endmembers to density, velocity and susceptibility.

Every mixing law takes volume fractions `fractions : float64 [..., E]` that sum to one over the last axis and
endmember values `float64 [E]`, and returns `float64 [...]`. Units: g/cm3, m/s, GPa, 1e-5 SI.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# GPa in 1 g/cm3 (m/s)^2.
_GPA = 1e-6


class Bounds(NamedTuple):
    """Hashin-Shtrikman bounds of the bulk and shear moduli, GPa."""

    lower_bulk: FloatArray
    lower_shear: FloatArray
    upper_bulk: FloatArray
    upper_shear: FloatArray


def bulk_density(fractions: FloatArray, density: FloatArray) -> FloatArray:
    """Bulk density, g/cm3: linear in volume by conservation of mass."""
    return np.asarray(fractions @ density, dtype=np.float64)


def volume_susceptibility(fractions: FloatArray, susceptibility: FloatArray) -> FloatArray:
    """Volume magnetic susceptibility, 1e-5 SI: linear in volume while magnetic grains are dilute."""
    return np.asarray(fractions @ susceptibility, dtype=np.float64)


def p_wave_modulus(density: FloatArray, p_wave_velocity: FloatArray) -> FloatArray:
    """P-wave modulus M = rho Vp^2 = K + 4/3 G, GPa."""
    return _GPA * density * p_wave_velocity**2


def modulus_velocity(modulus: FloatArray, density: FloatArray) -> FloatArray:
    """P-wave velocity sqrt(M / rho) of a P-wave modulus (GPa) and a density, m/s."""
    return np.asarray(np.sqrt(modulus / (_GPA * density)), dtype=np.float64)


def reuss(fractions: FloatArray, modulus: FloatArray) -> FloatArray:
    """Reuss (1929) iso-stress average, GPa: compliance 1/M is linear in volume.

    `modulus` may also be float64 [..., E]. Zero where an endmember that is present has a modulus of zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        compliance = np.where(fractions > 0, fractions / modulus, 0.0)
        return np.asarray(1.0 / compliance.sum(axis=-1), dtype=np.float64)


def wood_velocity(fractions: FloatArray, density: FloatArray, p_wave_velocity: FloatArray) -> FloatArray:
    """P-wave velocity of a suspension, m/s: compressibility 1 / (rho Vp^2) is linear in volume.

    Wood (1955), A Textbook of Sound. Grains enter with their P-wave modulus rho Vp^2, the only one that a
    velocity gives; with the bulk modulus, `modulus_velocity(reuss(fractions, bulk_modulus), density)`, the
    result is 0.8 % lower at 70 % porosity. Real mud lies at or slightly above both.
    """
    modulus = reuss(fractions, p_wave_modulus(density, p_wave_velocity))
    return modulus_velocity(modulus, bulk_density(fractions, density))


def wyllie_velocity(fractions: FloatArray, p_wave_velocity: FloatArray) -> FloatArray:
    """P-wave velocity of lithified rock, m/s: slowness 1 / Vp is linear in volume.

    Wyllie, Gregory and Gardner (1956), Geophysics 21, 41-70.
    """
    return np.asarray(1.0 / (fractions @ (1.0 / p_wave_velocity)), dtype=np.float64)


def hashin_shtrikman(fractions: FloatArray, bulk_modulus: FloatArray, shear_modulus: FloatArray) -> Bounds:
    """Narrowest bounds of the moduli of an isotropic mixture, GPa.

    Hashin and Shtrikman (1963), for many phases in the form of Berryman (1995): Mavko, Mukerji and Dvorkin,
    The Rock Physics Handbook, section 4.1. Only phases that are present shape the bounds.
    """
    present = fractions > 0
    stiff = [np.where(present, m, -np.inf).max(axis=-1) for m in (bulk_modulus, shear_modulus)]
    soft = [np.where(present, m, np.inf).min(axis=-1) for m in (bulk_modulus, shear_modulus)]

    def bound(bulk: FloatArray, shear: FloatArray) -> tuple[FloatArray, FloatArray]:
        around_bulk = 4.0 / 3.0 * shear
        around_shear = shear / 6.0 * (9.0 * bulk + 8.0 * shear) / (bulk + 2.0 * shear)
        return (
            reuss(fractions, bulk_modulus + around_bulk[..., None]) - around_bulk,
            reuss(fractions, shear_modulus + around_shear[..., None]) - around_shear,
        )

    return Bounds(*bound(*soft), *bound(*stiff))
