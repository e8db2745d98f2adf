"""From physical properties to mineral abundances: linear scales, weights, constrained least squares.

Each measured property becomes one linear equation in the volume fractions f, which are >= 0 and sum to one:

* density: sum f_i rho_i = rho
* susceptibility: sum f_i k_i = k
* velocity, unconsolidated (Wood 1955): sum f_i c_i = c with the compressibility c = 1 / (rho Vp^2)
* velocity, lithified (Wyllie et al. 1956): sum f_i s_i = s with the slowness s = 1 / Vp

Equations are divided by their standard deviations. The compressibility shares the density of the first
equation: c + (c / rho) rho, to first order, carries the error of the velocity alone, so this sum is the
equation that is solved and the errors of all equations are independent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from itertools import product
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.identifiability import equal_answers, equations_rank
from lithostream.engine.core.minerals import PORE_WATER, Endmembers
from lithostream.engine.core.rockphysics import p_wave_modulus
from lithostream.engine.errors import ConfigError
from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError
from lithostream.kernels.unmixing import UnmixingFlag, nnls

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Regime = Literal["unconsolidated", "lithified"]

DENSITY, VELOCITY, SUSCEPTIBILITY = "density", "p_wave_velocity", "magnetic_susceptibility"
PROPERTIES = (DENSITY, VELOCITY, SUSCEPTIBILITY)

# Error of the mixing laws themselves: contacts between grains stiffen real mud by 1 to 2 %.
MIXING_LAW_STD: dict[str, float] = {DENSITY: 0.0, VELOCITY: 25.0, SUSCEPTIBILITY: 0.0}
# Standard deviations where the caller states none: gamma density 0.02 g/cm3, P-wave 15 m/s and loop
# susceptibility 2e-5 SI of a good multi-sensor core log, with the error of the mixing law.
DEFAULT_STD: dict[str, float] = {DENSITY: 0.02, VELOCITY: math.hypot(15.0, 25.0), SUSCEPTIBILITY: 2.0}
# Among answers that fit equally well the ridge takes the one of smallest norm, the most even mixture. It
# is far below the curvature of the equations (about 1 and more), so a determined answer does not move.
# Beside magnetite, whose column is 1e3 times longer than the others, the rounding of the solver can hide it:
# then some other one of the equally good answers is returned. `width_pct` spans them all in either case.
DEFAULT_RIDGE = 1e-7
# Volume fraction of solids below which a dry weight has no meaning.
_NO_SOLIDS = 1e-6


class MineralFlag(IntFlag):
    """What to know about one row of abundances."""

    UNMEASURED = 1
    """No property could be used: abundances are NaN."""
    VELOCITY_UNUSED = 2
    """Unconsolidated velocity without density: its compressibility is unknown, the value was left out."""
    NONPHYSICAL = 4
    """A value was infinite, or a density or velocity not positive: it was left out."""
    UNDERDETERMINED = 8
    """Fewer independent equations than endmembers: other abundances fit as well, see `width_pct`."""
    NOT_CONVERGED = 16
    """The solver found no optimum: abundances are NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class MineralResult:
    """Abundances of E endmembers in N rows.

    Attributes
    ----------
    volume_pct : float64 [N, E]
        Share of the bulk volume, %; rows sum to 100.
    dry_weight_pct : float64 [N, E]
        Share of the dry weight, %; pore water is 0 and rows sum to 100. NaN where there are no solids.
    width_pct : float64 [N, E]
        Identifiability: range of `volume_pct` over all answers that fit equally well, with the measurements
        as they are and with each moved by one standard deviation up or down, in all combinations.
    residual : float64 [N]
        Misfit sqrt(sum of (misfit / std)^2) over the properties used.
    flags : uint8 [N]
        Bits of `MineralFlag`.
    """

    volume_pct: FloatArray
    dry_weight_pct: FloatArray
    width_pct: FloatArray
    residual: FloatArray
    flags: npt.NDArray[np.uint8]


def unmix_properties(
    properties: Mapping[str, FloatArray],
    endmembers: Endmembers,
    regime: Regime,
    *,
    std: Mapping[str, float | FloatArray] | None = None,
    ridge: float = DEFAULT_RIDGE,
) -> MineralResult:
    """Solve the abundances of `endmembers` that explain measured properties best.

    Parameters
    ----------
    properties : mapping of str to float64 [N]
        Any of density (g/cm3), p_wave_velocity (m/s), magnetic_susceptibility (1e-5 SI); NaN = unmeasured.
    endmembers : Endmembers
        At least one, at most 32.
    regime : {"unconsolidated", "lithified"}
        Which law velocity follows: Wood or Wyllie.
    std : mapping of str to float or float64 [N], optional
        Standard deviation of a property in its own unit; `DEFAULT_STD` for those not named.
    ridge : float
        Weight of the squared norm of the fractions: the tie-break among equally good answers.

    Raises
    ------
    ContractError
        A property, its shape or a standard deviation is not as stated.
    ConfigError
        The regime is unknown.
    """
    if regime not in get_args(Regime):
        raise ConfigError(f"unknown regime {regime!r}", fix=f"choose from {', '.join(get_args(Regime))}")
    values, nonphysical = _measured(properties)
    stds = _standard_deviations(values, std or {})
    orphan = np.zeros(len(nonphysical), dtype=bool)
    if regime == "unconsolidated":
        orphan = np.isnan(values[DENSITY]) & ~np.isnan(values[VELOCITY])
        values[VELOCITY][orphan] = np.nan
    spectra, tables = _equations(values, stds, endmembers, regime)
    solved = nnls(spectra, tables, sum_to_one=True, ridge=ridge)
    fractions = solved.abundances
    measured, rows = ~np.isnan(spectra), _linear_rows(endmembers, regime)
    low, high = equal_answers(fractions, measured, rows)
    for signs in product((-1.0, 1.0), repeat=len(PROPERTIES)):
        # Equations have unit standard deviation.
        moved = nnls(spectra + np.array(signs), tables, sum_to_one=True, ridge=ridge).abundances
        least, most = equal_answers(moved, measured, rows)
        low, high = np.minimum(low, least), np.maximum(high, most)
    rank = equations_rank(measured, rows)
    flags = (
        MineralFlag.UNMEASURED * np.isnan(spectra).all(axis=1)
        | MineralFlag.VELOCITY_UNUSED * orphan
        | MineralFlag.NONPHYSICAL * nonphysical
        | MineralFlag.UNDERDETERMINED * (rank > 0) * (rank < len(endmembers.names))
        | MineralFlag.NOT_CONVERGED * ((solved.flags & UnmixingFlag.NOT_CONVERGED) != 0)
    )
    return MineralResult(
        volume_pct=100.0 * fractions,
        dry_weight_pct=_dry_weight_pct(fractions, endmembers),
        width_pct=100.0 * (high - low),
        residual=solved.residual,
        flags=flags.astype(np.uint8),
    )


def _measured(properties: Mapping[str, FloatArray]) -> tuple[dict[str, FloatArray], BoolArray]:
    """Every property as a copy with unusable values set to NaN, and the rows that had one."""
    unknown = set(properties) - set(PROPERTIES)
    if unknown or not properties:
        raise ContractError(f"properties: expected any of {PROPERTIES}, got {sorted(properties)}")
    rows = len(next(iter(properties.values())))
    values: dict[str, FloatArray] = {}
    nonphysical = np.zeros(rows, dtype=bool)
    for name in PROPERTIES:
        given = properties.get(name, np.full(rows, np.nan))
        value: FloatArray = check_array(
            f"properties[{name!r}]", given, dtype=np.float64, shape=(rows,)
        ).copy()
        bad = np.isinf(value) if name == SUSCEPTIBILITY else np.isinf(value) | (value <= 0)
        value[bad] = np.nan
        values[name] = value
        nonphysical |= bad
    return values, nonphysical


def _standard_deviations(
    values: Mapping[str, FloatArray], std: Mapping[str, float | FloatArray]
) -> dict[str, FloatArray]:
    unknown = set(std) - set(PROPERTIES)
    if unknown:
        raise ContractError(f"std: expected any of {PROPERTIES}, got {sorted(std)}")
    stds: dict[str, FloatArray] = {}
    for name, value in values.items():
        given = np.asarray(std.get(name, DEFAULT_STD[name]), dtype=np.float64)
        if given.shape not in ((), value.shape):
            raise ContractError(f"std[{name!r}]: expected one number or [{len(value)}], got {given.shape}")
        stds[name] = np.broadcast_to(given, value.shape)
        wrong = ~(np.isfinite(stds[name]) & (stds[name] > 0)) & ~np.isnan(value)
        if wrong.any():
            got = stds[name][wrong][0]
            raise ContractError(
                f"std[{name!r}]: expected > 0 where measured, got {got} in row {wrong.argmax()}"
            )
    return stds


def _equations(
    values: Mapping[str, FloatArray], stds: Mapping[str, FloatArray], endmembers: Endmembers, regime: Regime
) -> tuple[FloatArray, FloatArray]:
    """Right sides [N, 3] and endmember values [N, E, 3] of unit standard deviation and no covariance."""
    rho, vp, kappa = (values[name][:, None] for name in PROPERTIES)  # [N, 1]
    if regime == "unconsolidated":
        compressibility = 1.0 / p_wave_modulus(rho, vp)
        slope = 2.0 * compressibility / vp  # of c over Vp, hence 2 c = Vp * slope on the right side
        velocity = 1.0 / p_wave_modulus(endmembers.density, endmembers.p_wave_velocity)
        velocity = velocity + compressibility / rho * endmembers.density
    else:
        slope = vp**-2.0
        velocity = np.broadcast_to(1.0 / endmembers.p_wave_velocity, (len(vp), len(endmembers.names)))
    sigmas = [stds[name][:, None] for name in PROPERTIES]
    spectra = np.concatenate(
        [value / sigma for value, sigma in zip((rho, vp, kappa), sigmas, strict=True)], axis=1
    )
    sigmas[1] = sigmas[1] * slope
    rows = (endmembers.density, velocity, endmembers.susceptibility)
    tables = np.stack([row / sigma for row, sigma in zip(rows, sigmas, strict=True)], axis=2)  # [N, E, 3]
    return spectra, np.where(np.isnan(spectra)[:, None, :], 0.0, tables)


def _linear_rows(endmembers: Endmembers, regime: Regime) -> FloatArray:
    """Endmember values on the linear scales, one row per property, float64 [3, E]."""
    if regime == "unconsolidated":
        velocity = 1.0 / p_wave_modulus(endmembers.density, endmembers.p_wave_velocity)
    else:
        velocity = 1.0 / endmembers.p_wave_velocity
    return np.stack([endmembers.density, velocity, endmembers.susceptibility])


def _dry_weight_pct(fractions: FloatArray, endmembers: Endmembers) -> FloatArray:
    """Weight shares of the solids, %, from volume fractions and grain densities."""
    solid = np.array([name != PORE_WATER for name in endmembers.names])
    weight = fractions * endmembers.density * solid
    empty = ~((fractions * solid).sum(axis=1, keepdims=True) > _NO_SOLIDS)
    total = np.where(empty, np.nan, weight.sum(axis=1, keepdims=True))
    return np.asarray(100.0 * weight / total, dtype=np.float64)
