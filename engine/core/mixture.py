"""The numbers behind `unmix`: equations of a block of problems, their solution, and what is known about it."""

from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.equations import Colour, Regime, colour_equations, property_equations
from lithostream.engine.core.identifiability import (
    condition,
    equal_answers,
    equations_rank,
    near_answers,
    rank_of,
    singular_values,
)
from lithostream.engine.core.intervals import Constraint, System, interval, solve, whitened
from lithostream.engine.core.minerals import Endmembers
from lithostream.engine.core.rockphysics import p_wave_modulus

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Problems solved at a time: bounds memory, of which each takes some 10 kB.
_BLOCK = 1024


class Problem(NamedTuple):
    """What all rows share."""

    endmembers: Endmembers
    regime: Regime
    colour: Colour | None
    spread: FloatArray
    law_std: float
    refine: bool
    constraint: Constraint
    ridge: float
    prior: FloatArray | None


class Answer(NamedTuple):
    """One row per problem; see `unmix.MineralResult`."""

    fractions: FloatArray
    low: FloatArray
    high: FloatArray
    width: FloatArray
    residual: FloatArray
    condition: FloatArray
    rank: npt.NDArray[np.int64]
    failed: BoolArray


def solve_in_blocks(values: FloatArray, errors: FloatArray, problem: Problem) -> Answer:
    """Solve rows of `values` [N, B], NaN = unmeasured, whose errors have the covariance `errors` [N, B, B]."""
    starts = range(0, max(len(values), 1), _BLOCK)
    blocks = [_solve(values[at : at + _BLOCK], errors[at : at + _BLOCK], problem) for at in starts]
    return Answer(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _solve(values: FloatArray, errors: FloatArray, problem: Problem) -> Answer:
    constraint, ridge, prior = problem.constraint, problem.ridge, problem.prior
    measured, count = ~np.isnan(values), len(problem.endmembers.names)
    # Errors of endmembers weigh by their fractions. Those of an even mixture would drown the susceptibility in
    # magnetite's, so a first solution takes properties as exact.
    guess = np.broadcast_to(_prior_mixture(problem), (len(values), count))
    exact = np.zeros_like(problem.spread)
    for spread in (exact, problem.spread, problem.spread) if problem.refine else (exact,):
        system = _system(values, errors, measured, guess, problem, spread)
        fractions, failed = solve(system, constraint, ridge, prior)
        guess = np.where(np.isnan(fractions), guess, fractions)
    misfit = np.einsum("ne,neb->nb", fractions, system.rows) - system.right
    residual = np.where(measured.any(axis=1), np.sqrt(np.nansum(misfit**2, axis=1)), np.nan)
    low, high = interval(system, constraint, ridge, prior)
    singular = singular_values(system)
    if problem.colour is None:
        rows = _linear_rows(problem.endmembers, problem.regime)
        rank, (least, most) = equations_rank(measured, rows), _moved_answers(system, fractions, rows, problem)
    else:
        rank, (least, most) = rank_of(singular, system), near_answers(fractions, system)
    return Answer(
        fractions,
        np.fmin(low, fractions),
        np.fmax(high, fractions),
        most - least,
        residual,
        np.where(measured.any(axis=1), condition(singular, system), np.nan),
        rank,
        failed,
    )


def _system(
    values: FloatArray,
    errors: FloatArray,
    measured: BoolArray,
    guess: FloatArray,
    problem: Problem,
    spread: FloatArray,
) -> System:
    """Whitened equations, with the errors that endmembers have at the fractions `guess`."""
    # Any positive number serves where nothing is measured: it has no part in the equations.
    filled = np.where(measured, values, 0.5)
    right, rows, slope, own = property_equations(
        filled[:, :3], guess, problem.endmembers, problem.regime, spread, problem.law_std
    )
    if problem.colour is not None:
        # An error that is proportional to a fraction shrinks with its estimate, and one estimated too low would be
        # trusted too much: halfway to the prior it is not.
        tempered = 0.5 * (guess + _prior_mixture(problem))
        seen = colour_equations(problem.colour, filled[:, 3:], tempered, problem.endmembers, spread)
        right, slope = (
            np.concatenate([right, seen.right], axis=1),
            np.concatenate([slope, seen.slope], axis=1),
        )
        rows = np.concatenate([rows, seen.rows], axis=2)
        both = np.zeros((len(values), 6, 6))
        both[:, :3, :3], both[:, 3:, 3:] = own, seen.own
        own = both
    covariance = own + errors * slope[:, :, None] * slope[:, None, :]
    return whitened(right, rows, covariance, measured)


def _prior_mixture(problem: Problem) -> FloatArray:
    count = len(problem.endmembers.names)
    return np.full(count, 1.0 / count) if problem.prior is None else problem.prior


def _moved_answers(
    system: System, fractions: FloatArray, rows: FloatArray, problem: Problem
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of all equally good answers, with every equation as it is, and moved by one standard deviation."""
    signs = np.array(list(product((-1.0, 1.0), repeat=system.right.shape[1])))
    moved = System(system.right[:, None] + signs, system.rows)
    answers, _ = solve(moved, problem.constraint, problem.ridge, problem.prior)
    every = np.concatenate([fractions[:, None], answers], axis=1)  # [N, 1 + 2^B, E]
    measured = np.repeat(~np.isnan(system.right), every.shape[1], axis=0)
    least, most = equal_answers(every.reshape(-1, every.shape[2]), measured, rows)
    return least.reshape(every.shape).min(axis=1), most.reshape(every.shape).max(axis=1)


def _linear_rows(endmembers: Endmembers, regime: Regime) -> FloatArray:
    """Endmember values on the linear scales, one row per property, float64 [3, E]."""
    if regime == "unconsolidated":
        velocity = 1.0 / p_wave_modulus(endmembers.density, endmembers.p_wave_velocity)
    else:
        velocity = 1.0 / endmembers.p_wave_velocity
    return np.stack([endmembers.density, velocity, endmembers.susceptibility])
