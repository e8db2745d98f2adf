"""From what a scanner saw of a card to reflectance: gains from its greys, a matrix from its colours.

Greys, if the card has any, fix the neutral axis: a gain per channel, with greys of differing brightness an offset too. Colours
then add a matrix whose rows sum to one, so that it leaves greys alone (Finlayson and Drew 1997, white-point preserving
least squares): sediment is nearly grey, and colours that the scanner sees with another spectral sensitivity than
the eye's must not pull its neutral axis. Without a grey, a plain 3 x 3 matrix is fitted.

Every residual is of patches left out of the fit, e / (1 - h) with the leverage h.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

GREY_WITHIN = 0.03  # largest departure of a channel from the mean of a grey's three, relative
LEAST_COLOURS = 6
LEAST_GREY_RANGE = 1.5  # brightest over darkest grey, from which an offset can be told from a gain
LEAST_HUE = 0.05  # smallest singular value, in reflectance, of colours that tell a matrix
# Limits on residuals in units of reflectance. The one real chart at hand (Itrax, CD166-19) leaves 0.014 of its greys
# with its linear transfer, 0.05 with an exponent of 1.4 and 0.17 as sRGB. Its colours leave 0.07 at best: the camera's
# sensitivities are not the eye's.
MOST_GREY_RESIDUAL = 0.03
MOST_COLOUR_RESIDUAL = 0.10


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """reflectance = matrix @ (gain * light + offset).

    Attributes
    ----------
    gain, offset : float64 [3]
    matrix : float64 [3, 3]
    greys, colours : int
        Patches used.
    grey_residual, colour_residual : float
        Root mean square over patches and channels, each patch left out of its fit; NaN where nothing is left over
        to tell.
    """

    gain: Floats
    offset: Floats
    matrix: Floats
    greys: int
    colours: int
    grey_residual: float
    colour_residual: float

    @property
    def accepted(self) -> bool:
        """Whether no residual is above its limit."""
        return not (self.grey_residual > MOST_GREY_RESIDUAL or self.colour_residual > MOST_COLOUR_RESIDUAL)

    @property
    def has_matrix(self) -> bool:
        """Whether channels mix."""
        return bool((self.matrix != np.eye(3)).any())


UNIT_FIT = Fit(np.ones(3), np.zeros(3), np.eye(3), 0, 0, math.nan, math.nan)
"""Leaves alone what a plate of known reflectance has scaled."""


def is_grey(known: Floats) -> Bools:
    """Which reflectances float64 [P, 3] are grey, bool [P]."""
    mean = known.mean(axis=1, keepdims=True)
    grey: Bools = (np.abs(known - mean) <= GREY_WITHIN * mean).all(axis=1) & (mean[:, 0] > 0)
    return grey


def fit_card(light: Floats, known: Floats) -> Fit | None:
    """Fit what a scanner saw of patches to what they reflect; None where patches are too few.

    Parameters
    ----------
    light : float64 [P, 3]
        Linear; NaN in channels that were clipped.
    known : float64 [P, 3]
        Reflectance, linear.
    """
    whole = np.isfinite(light).all(axis=1) & (light > 0).all(axis=1)
    grey = is_grey(known)
    greys, colours = whole & grey, whole & ~grey
    if greys.any():
        return _with_greys(light, known, greys, colours)
    if colours.sum() < LEAST_COLOURS:
        return None
    if np.linalg.matrix_rank(light[colours], tol=LEAST_HUE) < 3:
        return None
    solved, left_out = _least_squares(light[colours], known[colours])
    return Fit(np.ones(3), np.zeros(3), solved.T, 0, int(colours.sum()), math.nan, _rms(left_out))


def _with_greys(light: Floats, known: Floats, greys: Bools, colours: Bools) -> Fit:
    gain, offset, left_out = np.ones(3), np.zeros(3), np.full((int(greys.sum()), 3), np.nan)
    for channel in range(3):
        seen, truth = light[greys, channel], known[greys, channel]
        ranging = truth.max() >= LEAST_GREY_RANGE * truth.min()
        columns = [seen, np.ones_like(seen)] if ranging else [seen]
        # Photons: variance grows with light. So dark greys, which are like sediment, count more.
        weight = 1.0 / np.sqrt(truth)
        solved, misfit = _least_squares(np.stack(columns, axis=1) * weight[:, None], truth * weight)
        gain[channel] = solved[0]
        offset[channel] = solved[1] if ranging else 0.0
        left_out[:, channel] = misfit / weight
    count = int(greys.sum())
    balanced = light[colours] * gain + offset
    hues = balanced[:, 1:] - balanced[:, :1]
    if len(hues) < LEAST_COLOURS or np.linalg.matrix_rank(hues, tol=LEAST_HUE) < 2:
        return Fit(gain, offset, np.eye(3), count, 0, _rms(left_out), math.nan)
    matrix, colour_left_out = _grey_preserving(balanced, known[colours])
    return Fit(gain, offset, matrix, count, len(hues), _rms(left_out), _rms(colour_left_out))


def _grey_preserving(balanced: Floats, known: Floats) -> tuple[Floats, Floats]:
    """Matrix whose rows sum to one, and the misfit of each patch left out."""
    matrix, left_out = np.eye(3), np.empty_like(known)
    for channel in range(3):
        others = [other for other in range(3) if other != channel]
        differences = balanced[:, others] - balanced[:, [channel]]
        solved, left_out[:, channel] = _least_squares(differences, known[:, channel] - balanced[:, channel])
        matrix[channel, others] = solved
        matrix[channel, channel] = 1.0 - solved.sum()
    return matrix, left_out


def _least_squares(rows: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Solution, and the misfit of each row by the others: NaN where a row alone decides."""
    inverse = np.linalg.pinv(rows)
    solved = inverse @ right
    leverage = np.einsum("ij,ji->i", rows, inverse)
    rest = np.where(leverage < 1.0 - 1e-9, 1.0 - leverage, np.nan)
    misfit = (right - rows @ solved) / (rest if right.ndim == 1 else rest[:, None])
    return solved, misfit


def _rms(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else math.nan
