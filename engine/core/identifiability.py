"""Which other mixtures fit measured properties equally well, and how sharply equations tell mixtures apart."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.intervals import System, pulled
from lithostream.kernels.unmixing import nnls

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A fraction this far below zero at a vertex is rounding.
_ROUNDING = 1e-9
# Singular values this far below the largest number of the equations are rounding.
_RANK = 1e-11
# Curvature that makes the way to the end of an undetermined direction finite.
_WEAK = 1e-6


def equations_rank(measured: BoolArray, rows: FloatArray) -> npt.NDArray[np.int64]:
    """Independent equations of each problem, the sum included; 0 where nothing is measured, int64 [N]."""
    rank = np.zeros(len(measured), dtype=np.int64)
    for pattern, these in _patterns(measured):
        rank[these] = len(_row_basis(pattern, rows))
    return rank


def equal_answers(
    fractions: FloatArray, measured: BoolArray, rows: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest value of each fraction over all mixtures with the same fitted properties.

    Those mixtures, >= 0 and of sum one, form a polytope. Each of its vertices lies on as many endmembers as
    there are independent equations, so it is enough to solve the equations on every such subset.

    Parameters
    ----------
    fractions : float64 [N, E]
        One answer per problem; NaN rows stay NaN.
    measured : bool [N, B]
        Which properties each problem used.
    rows : float64 [B, E]
        Endmember values on the scales on which properties are linear.

    Returns
    -------
    tuple of float64 [N, E]
        Low and high; equal where the answer is determined.

    Notes
    -----
    Cost: O(N * E * choose(E, rank)).
    """
    low, high = fractions.copy(), fractions.copy()
    for pattern, these in _patterns(measured):
        basis = _row_basis(pattern, rows)  # [rank, E]
        fitted = fractions[these] @ basis.T
        for subset in combinations(range(rows.shape[1]), len(basis)):
            columns = basis[:, subset]
            if np.linalg.matrix_rank(columns) < len(basis):
                continue
            vertex = np.zeros((len(these), rows.shape[1]))
            vertex[:, subset] = np.linalg.solve(columns, fitted.T).T
            valid = (vertex >= -_ROUNDING).all(axis=1)
            inside, vertex = these[valid], vertex[valid].clip(min=0.0)
            low[inside] = np.minimum(low[inside], vertex)
            high[inside] = np.maximum(high[inside], vertex)
    return low, high


def singular_values(system: System) -> FloatArray:
    """Singular values of the equations on mixtures, whose changes sum to zero: float64 [N, min(B, E - 1)]."""
    count = system.rows.shape[1]
    # Orthonormal directions that sum to zero.
    inside = np.linalg.svd(np.ones((1, count)))[2][1:]
    return np.asarray(np.linalg.svd(inside @ system.rows, compute_uv=False), dtype=np.float64)


def condition(singular: FloatArray, system: System) -> FloatArray:
    """Largest over smallest singular value; infinite where a change of the mixture changes nothing, float64 [N]."""
    problems, endmembers, equations = system.rows.shape
    if endmembers == 1:
        return np.ones(problems)
    if equations < endmembers - 1:
        return np.full(problems, np.inf)
    sharp = singular[:, -1] > _rounding(system)
    return np.where(sharp, singular[:, 0] / np.where(sharp, singular[:, -1], 1.0), np.inf)


def rank_of(singular: FloatArray, system: System) -> npt.NDArray[np.int64]:
    """Independent equations, the sum included; 0 where nothing is measured, int64 [N]."""
    rank = 1 + (singular > _rounding(system)[:, None]).sum(axis=1)
    return np.asarray(rank * ~np.isnan(system.right).all(axis=1), dtype=np.int64)


def _rounding(system: System) -> FloatArray:
    return np.asarray(_RANK * np.abs(system.rows).max(axis=(1, 2), initial=0.0), dtype=np.float64)


def near_answers(fractions: FloatArray, system: System) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest value of each fraction over mixtures that fit almost as well, by one standard deviation.

    Every fraction is pushed up, and down, against the misfit: a weight t on the fraction moves a parabola of
    deviation s by t s^2, so t = 1 / s moves it by one deviation, where the squared misfit is one above the best. An
    undetermined fraction (s > 1) is pushed by t = 1 to where the constraints end. 2 E more solutions.
    """
    unmeasured = np.isnan(system.right).all(axis=1)
    count = fractions.shape[1]
    curvature = system.rows @ np.swapaxes(system.rows, 1, 2) + _WEAK * np.eye(count)
    inverse = np.linalg.inv(curvature)
    sums = inverse.sum(axis=2)
    variance = np.einsum("nii->ni", inverse) - sums**2 / sums.sum(axis=1, keepdims=True)
    push = 1.0 / np.sqrt(variance.clip(_WEAK**2, 1.0))
    towards = np.concatenate([sign * np.eye(count) * push[:, None] / _WEAK for sign in (-1.0, 1.0)], axis=1)
    right = np.broadcast_to(system.right[:, None], (len(fractions), 2 * count, system.right.shape[1]))
    moved = nnls(*pulled(System(right, system.rows), _WEAK, towards), sum_to_one=True).abundances
    own = np.einsum("nsee->nse", moved.reshape(-1, 2, count, count))  # of each, where it was pushed itself
    pushed = np.where(np.expand_dims(unmeasured, (1, 2)), np.nan, own)
    low, high = (end.reduce(pushed, axis=1) for end in (np.fmin, np.fmax))
    return np.fmin(fractions, low), np.fmax(fractions, high)


def _patterns(measured: BoolArray) -> Iterator[tuple[BoolArray, npt.NDArray[np.int64]]]:
    """Yield each pattern of measured properties [B] that is not empty, and the problems that have it."""
    code = measured @ (1 << np.arange(measured.shape[1]))
    for one in np.flatnonzero(np.bincount(code)):
        if one:
            yield (one >> np.arange(measured.shape[1])) % 2 == 1, np.flatnonzero(code == one)


def _row_basis(pattern: BoolArray, rows: FloatArray) -> FloatArray:
    """Orthonormal rows that span the sum and the measured properties, float64 [rank, E]."""
    scaled = rows[pattern] / np.abs(rows[pattern]).max(axis=1, keepdims=True)
    matrix = np.vstack([np.ones(rows.shape[1]), scaled])
    basis = np.linalg.svd(matrix)[2][: np.linalg.matrix_rank(matrix)]
    return np.asarray(basis, dtype=np.float64)
