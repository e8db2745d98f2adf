"""Which other mixtures fit measured properties equally well."""

from itertools import combinations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A fraction this far below zero at a vertex is rounding.
_ROUNDING = 1e-9


def equations_rank(measured: BoolArray, rows: FloatArray) -> npt.NDArray[np.int64]:
    """Independent equations of each problem, the sum included; 0 where nothing is measured, int64 [N]."""
    rank = np.zeros(len(measured), dtype=np.int64)
    for pattern in np.unique(measured[measured.any(axis=1)], axis=0):
        rank[(measured == pattern).all(axis=1)] = len(_row_basis(pattern, rows))
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
    for pattern in np.unique(measured[measured.any(axis=1)], axis=0):
        these = np.flatnonzero((measured == pattern).all(axis=1))
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


def _row_basis(pattern: BoolArray, rows: FloatArray) -> FloatArray:
    """Orthonormal rows that span the sum and the measured properties, float64 [rank, E]."""
    scaled = rows[pattern] / np.abs(rows[pattern]).max(axis=1, keepdims=True)
    matrix = np.vstack([np.ones(rows.shape[1]), scaled])
    basis = np.linalg.svd(matrix)[2][: np.linalg.matrix_rank(matrix)]
    return np.asarray(basis, dtype=np.float64)
