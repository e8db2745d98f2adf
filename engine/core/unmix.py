"""From physical properties and colour to mineral abundances: linear scales, weights, constrained least squares.

Each measured property becomes one linear equation in the volume fractions f, which are >= 0 and sum to one:

* density: sum f_i rho_i = rho
* susceptibility: sum f_i k_i = k
* velocity, unconsolidated (Wood 1955): sum f_i c_i = c with the compressibility c = 1 / (rho Vp^2)
* velocity, lithified (Wyllie et al. 1956): sum f_i s_i = s with the slowness s = 1 / Vp
* calibrated colour, three channels: `equations`

Equations are whitened by the covariance of their errors. The compressibility shares the density of the first
equation: c + (c / rho) rho, to first order, carries the error of the velocity alone, so this sum is the
equation that is solved, and errors of different properties stay as independent as they were measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import get_args

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.equations import (
    WYLLIE_STD,
    Colour,
    Regime,
    colour_usable,
)
from lithostream.engine.core.intervals import Constraint
from lithostream.engine.core.measured import (
    DEFAULT_STD,
    DENSITY,
    MIXING_LAW_STD,
    PROPERTIES,
    SUSCEPTIBILITY,
    VELOCITY,
    Logs,
    Source,
    Stds,
    error_covariance,
    known_values,
    usable_reflectance,
)
from lithostream.engine.core.minerals import PORE_WATER, Endmembers
from lithostream.engine.core.mixture import Problem, solve_in_blocks
from lithostream.engine.errors import ConfigError
from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError

__all__ = [
    "DEFAULT_STD",
    "DENSITY",
    "MIXING_LAW_STD",
    "PROPERTIES",
    "SUSCEPTIBILITY",
    "VELOCITY",
    "Colour",
    "FloatArray",
    "Logs",
    "MineralFlag",
    "MineralResult",
    "Regime",
    "Source",
    "unmix_properties",
]

FloatArray = npt.NDArray[np.float64]

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
    """A value was infinite, a density or velocity not positive, or a reflectance out of range: it was left out."""
    UNDERDETERMINED = 8
    """Fewer independent equations than endmembers: other abundances fit as well, see `width_pct`."""
    NOT_CONVERGED = 16
    """The solver found no optimum, or nothing to normalise: abundances are NaN."""
    COLOUR_UNUSED = 32
    """Colour was given, but an endmember has no colour or, for intimate mixing, no grain size: it was left out."""


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
        as they are and with each moved by one standard deviation up or down, in all combinations. With
        colour: over answers whose squared misfit is about one above the best. The prior has no part in it.
    residual : float64 [N]
        Misfit sqrt(sum of (misfit / std)^2) over the values used, whitened where errors are correlated.
    flags : uint8 [N]
        Bits of `MineralFlag`.
    low_pct, high_pct : float64 [N, E]
        90 % interval of `volume_pct`, by `intervals`: errors, spread of endmembers where asked for, and the
        prior where no equation decides. Contains `volume_pct`.
    condition : float64 [N]
        Largest over smallest singular value of the weighted equations on changes of the mixture that sum to
        zero; infinite where a change of the mixture changes no equation.
    source : uint8 [N, 3]
        `Source` of density, velocity and susceptibility: none, predicted or measured.
    """

    volume_pct: FloatArray
    dry_weight_pct: FloatArray
    width_pct: FloatArray
    residual: FloatArray
    flags: npt.NDArray[np.uint8]
    low_pct: FloatArray
    high_pct: FloatArray
    condition: FloatArray
    source: npt.NDArray[np.uint8]


def unmix_properties(
    properties: Mapping[str, FloatArray],
    endmembers: Endmembers,
    regime: Regime,
    *,
    std: Stds | None = None,
    ridge: float = DEFAULT_RIDGE,
    prior: FloatArray | None = None,
    covariance: FloatArray | None = None,
    logs: Logs | None = None,
    colour: Colour | None = None,
    endmember_errors: bool = False,
    constraint: Constraint = "fcls",
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
        Weight of the squared distance from the prior mixture, 1 / variance: by default only the tie-break among
        equally good answers.
    prior : float64 [E], optional
        Mixture to stay close to, >= 0 and of sum one; an even one by default.
    covariance : float64 [B, B] or [N, B, B], optional
        Of the errors of all values, instead of `std` and `colour.std`: the three properties, then the three channels
        if there is colour. Units are those of the values.
    logs : Logs, optional
        Measured properties, which take the place of `properties` where they have a value.
    colour : Colour, optional
        Calibrated colour.
    endmember_errors : bool
        Count the spread of the endmembers' own values as an error of the equations (blank spread: none),
        and in lithified rock that of Wyllie's law, `WYLLIE_STD`.
        Grain sizes and the wetness of a surface always count where colour is given.
    constraint : {"fcls", "nnls"}
        Fractions sum to one, or are normalised after they were solved as >= 0 alone.

    Raises
    ------
    ContractError
        An array, its shape, a standard deviation or a covariance is not as stated.
    ConfigError
        The regime or the constraint is unknown.

    Notes
    -----
    Cost for each row: about 60 solutions of E unknowns (48 for the interval, 1 or 9 for `width_pct` without
    colour, 2 E with), by blocks of 4,096 rows.
    """
    for name, chosen, choices in (
        ("regime", regime, get_args(Regime)),
        ("constraint", constraint, get_args(Constraint)),
    ):
        if chosen not in choices:
            raise ConfigError(f"unknown {name} {chosen!r}", fix=f"choose from {', '.join(choices)}")
    if prior is not None:
        check_array("prior", prior, dtype=np.float64, shape=(len(endmembers.names),))
        if not ((prior >= 0).all() and abs(prior.sum() - 1.0) < 1e-6):
            raise ContractError(f"prior: expected >= 0 and a sum of one, got {prior.tolist()}")
    known = known_values(properties, logs)
    values, nonphysical, seen = known.values.copy(), known.nonphysical, None
    colour_unused = colour is not None and not colour_usable(endmembers, colour.mixing)
    if colour is not None:
        seen, impossible = usable_reflectance(colour.reflectance, len(values))
        nonphysical = nonphysical | impossible
    errors = error_covariance(known, std, logs, seen, colour.std if colour else 0.0, covariance)
    orphan = np.zeros(len(values), dtype=bool)
    if regime == "unconsolidated":
        orphan = np.isnan(values[:, 0]) & ~np.isnan(values[:, 1])
        values[orphan, 1] = np.nan
    if seen is not None and not colour_unused:
        values = np.concatenate([values, seen], axis=1)
    problem = Problem(
        endmembers,
        regime,
        None if colour_unused else colour,
        _spread(endmembers, endmember_errors),
        WYLLIE_STD if endmember_errors and regime == "lithified" else 0.0,
        endmember_errors or seen is not None,
        constraint,
        ridge,
        prior,
    )
    answer = solve_in_blocks(values, errors[:, : values.shape[1], : values.shape[1]], problem)
    flags = (
        MineralFlag.UNMEASURED * np.isnan(values).all(axis=1)
        | MineralFlag.VELOCITY_UNUSED * orphan
        | MineralFlag.NONPHYSICAL * nonphysical
        | MineralFlag.UNDERDETERMINED * (answer.rank > 0) * (answer.rank < len(endmembers.names))
        | MineralFlag.NOT_CONVERGED * answer.failed
        | MineralFlag.COLOUR_UNUSED * np.full(len(values), colour_unused)
    )
    return MineralResult(
        volume_pct=100.0 * answer.fractions,
        dry_weight_pct=_dry_weight_pct(answer.fractions, endmembers),
        width_pct=100.0 * answer.width,
        residual=answer.residual,
        flags=flags.astype(np.uint8),
        low_pct=100.0 * answer.low,
        high_pct=100.0 * answer.high,
        condition=answer.condition,
        source=known.source,
    )


def _spread(endmembers: Endmembers, wanted: bool) -> FloatArray:
    """Relative standard deviations [E, 4], 0 where the endmembers' values are taken as exact."""
    if not wanted or endmembers.spread is None:
        return np.zeros((len(endmembers.names), 4))
    return np.nan_to_num(endmembers.spread)


def _dry_weight_pct(fractions: FloatArray, endmembers: Endmembers) -> FloatArray:
    """Weight shares of the solids, %, from volume fractions and grain densities."""
    solid = np.array([name != PORE_WATER for name in endmembers.names])
    weight = fractions * endmembers.density * solid
    empty = ~((fractions * solid).sum(axis=1, keepdims=True) > _NO_SOLIDS)
    total = np.where(empty, np.nan, weight.sum(axis=1, keepdims=True))
    return np.asarray(100.0 * weight / total, dtype=np.float64)
