"""Colour of grains: reflectance of a surface, wet or dry, and the single-scattering albedo behind it.

The surface is a deep layer of isotropic scatterers without an opposition surge, seen as a line scanner sees it:
lamps at 45 degrees, camera at 0. Its reflectance factor (against a white Lambert card in the same light) is

    R = w / 4 * H(mu0) H(mu) / (mu0 + mu),  H(x) = (1 + 2 x) / (1 + 2 x g),  g = sqrt(1 - w)

with mu0 = cos 45 deg and mu = 1: Hapke (1981), J. Geophys. Res. 86, 3039-3054, equations 16 and 36; Hapke (2012),
Theory of Reflectance and Emittance Spectroscopy, chapters 8 to 10. Albedos w of a mixture of grains are
means by cross-section (chapter 10.3): weights of volume over grain size.

A film of water on the surface (Angstrom 1925; Lekner and Dorf 1988, Applied Optics 27, 1278-1280) lets 1 - s of the light
in and returns the share p of what comes back from below to the surface again, so of a dry reflectance r it shows

    r_wet = (1 - s) (1 - p) r / (1 - p r),  p = 1 - (1 - S) / n^2

with n = 1.34 of sea water, s = 0.021 its reflectance at 0 degrees and S = 0.067 for light from everywhere. The grains
themselves are taken as unchanged, and the mirrored light s as outside the camera.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_MU0: Final = math.cos(math.radians(45.0))
_MU: Final = 1.0
_SUM, _PRODUCT = _MU0 + _MU, 4.0 * _MU0 * _MU
# Reflectance factor of grains that absorb nothing: above 1, for such a layer is no Lambert surface.
BRIGHTEST: Final = (1.0 + 2.0 * _MU0) * (1.0 + 2.0 * _MU) / (4.0 * _SUM)

_WATER_INDEX, _FRONT, _DIFFUSE = 1.34, 0.021, 0.067
_RETURNED: Final = 1.0 - (1.0 - _DIFFUSE) / _WATER_INDEX**2
_PASSED: Final = (1.0 - _FRONT) * (1.0 - _RETURNED)


def reflectance(albedo: FloatArray) -> FloatArray:
    """Reflectance factor, 0 to `BRIGHTEST`, of single-scattering albedos 0 to 1."""
    g = np.sqrt(1.0 - albedo)
    return np.asarray(BRIGHTEST * albedo / ((1.0 + 2.0 * _MU0 * g) * (1.0 + 2.0 * _MU * g)), dtype=np.float64)


def albedo(reflectance: FloatArray) -> FloatArray:
    """Single-scattering albedo of reflectance factors 0 to `BRIGHTEST`: the inverse of `reflectance`.

    With q = R / `BRIGHTEST`, 1 - g^2 = q (1 + 2 mu0 g) (1 + 2 mu g) is a quadratic in g.
    """
    q = reflectance / BRIGHTEST
    half = _SUM * q
    g = (1.0 - q) / (half + np.sqrt(half**2 + (1.0 + _PRODUCT * q) * (1.0 - q)))
    return np.asarray(1.0 - g**2, dtype=np.float64)


def wet(dry: FloatArray, wetness: FloatArray | float = 1.0) -> FloatArray:
    """Reflectance of a surface of which the share `wetness`, 0 to 1, lies under a film of water."""
    film = _PASSED * dry / (1.0 - _RETURNED * dry)
    return np.asarray((1.0 - wetness) * dry + wetness * film, dtype=np.float64)


def dry(wet: FloatArray, wetness: FloatArray | float = 1.0) -> FloatArray:
    """Dry reflectance behind a wet one: the inverse of `wet`, the root of a quadratic that vanishes with it."""
    a = (1.0 - wetness) * _RETURNED
    b = 1.0 - wetness + wetness * _PASSED + _RETURNED * wet
    return np.asarray(2.0 * wet / (b + np.sqrt(b**2 - 4.0 * a * wet)), dtype=np.float64)
