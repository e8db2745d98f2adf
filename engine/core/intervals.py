"""From linear equations of unit errors to fractions: one answer, and the interval around it.

The interval is that of answers to perturbed problems ("randomised maximum a posteriori": Bardsley et al. 2014,
SIAM J. Sci. Comput. 36, A1895): every right side is moved by an error as likely as those stated, the prior
mixture is replaced by one drawn from Jeffreys' prior of mixtures, and the same constraints are solved. Without constraints
the answers are draws from the posterior distribution; directions that no equation decides spread as the prior does.
Draws are a Latin hypercube from a fixed seed, the same for every problem, so results are deterministic.
"""

from functools import cache
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels.unmixing import UnmixingFlag, nnls

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Constraint = Literal["fcls", "nnls"]

DRAWS = 48
COVERED = 0.90
_SEED = 12
# Sum of fractions below which there is nothing to normalise.
_EMPTY = 1e-6


def prior_ridge(endmembers: int) -> float:
    """1 / variance of a share under Jeffreys' prior of mixtures: a weak ridge that is not a matter of taste."""
    if endmembers == 1:
        return 1.0
    return endmembers**2 * (0.5 * endmembers + 1.0) / (endmembers - 1.0)


class System(NamedTuple):
    """Equations of unit, independent errors; NaN on the right = none.

    Attributes
    ----------
    right : float64 [N, B] or [N, D, B]
        The latter for D problems of the same rows.
    rows : float64 [N, E, B]
    """

    right: FloatArray
    rows: FloatArray


def whitened(right: FloatArray, rows: FloatArray, covariance: FloatArray, measured: BoolArray) -> System:
    """Equations divided by the Cholesky factor of the covariance of their errors, float64 [N, B, B].

    An equation that is not measured takes no part: its row and column of the covariance are those of the identity.
    """
    both = measured[:, :, None] & measured[:, None, :]
    covariance = np.where(both, covariance, np.eye(measured.shape[1]))
    scale = np.sqrt(np.einsum("nii->ni", covariance))
    factor = np.linalg.cholesky(covariance / (scale[:, :, None] * scale[:, None, :]))
    sides = np.concatenate([right[:, None, :], rows], axis=1)
    sides = np.where(measured[:, None, :], sides, 0.0) / scale[:, None, :]
    # Forward substitution, one equation after the other.
    for row in range(sides.shape[2]):
        known = np.einsum("nkb,nb->nk", sides[:, :, :row], factor[:, row, :row])
        sides[:, :, row] = (sides[:, :, row] - known) / factor[:, row, row, None]
    return System(np.where(measured, sides[:, 0], np.nan), sides[:, 1:])


def solve(
    system: System, constraint: Constraint, ridge: float, prior: FloatArray | None
) -> tuple[FloatArray, BoolArray]:
    """Fractions [N, E] or [N, D, E] that sum to one, and the problems for which none were found (NaN).

    Minimises the squared misfit + ridge |f - prior|^2 with f >= 0: on the simplex ("fcls"), or anywhere and
    normalised afterwards ("nnls"). `prior` is [E] or one for each problem, None an even mixture.
    """
    unmeasured = np.isnan(system.right).all(axis=-1)
    count = system.rows.shape[1]
    towards = np.full(count, 1.0 / count) if prior is None else prior
    found = nnls(*pulled(system, ridge, towards), sum_to_one=constraint == "fcls")
    total = found.abundances.sum(axis=-1, keepdims=True)
    failed = ((found.flags & UnmixingFlag.NOT_CONVERGED) != 0) | (total[..., 0] < _EMPTY)
    with np.errstate(invalid="ignore", divide="ignore"):
        fractions = np.where((failed | unmeasured)[..., None], np.nan, found.abundances / total)
    return fractions, failed & ~unmeasured


def pulled(system: System, ridge: float, towards: FloatArray) -> System:
    """Add one more equation per endmember: its fraction is `towards`, at variance 1 / ridge."""
    problems, count, _ = system.rows.shape
    root = np.sqrt(ridge)
    targets = np.broadcast_to(root * towards, (*system.right.shape[:-1], count))
    pull = np.broadcast_to(root * np.eye(count), (problems, count, count))
    return System(
        np.concatenate([system.right, targets], axis=-1), np.concatenate([system.rows, pull], axis=2)
    )


def interval(
    system: System, constraint: Constraint, ridge: float, prior: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Low and high ends [N, E] of the central `COVERED` of each fraction, by `DRAWS` more solutions."""
    _, count, equations = system.rows.shape
    normal = _normal(equations + count)
    # Jeffreys' prior of shares, a Dirichlet distribution of parameters 1 / 2: shares of squared normals.
    mixtures = normal[:, equations:] ** 2 * (1.0 / count if prior is None else prior)
    mixtures /= mixtures.sum(axis=1, keepdims=True)
    moved = System(system.right[:, None] + normal[:, :equations], system.rows)
    answers, _ = solve(moved, constraint, ridge, mixtures)
    # Weibull's plotting position: ends of a range that a further draw falls into with that probability.
    tail = 0.5 * (1.0 - COVERED)
    low, high = np.quantile(answers, [tail, 1.0 - tail], axis=1, method="weibull")
    return low, high


@cache
def _normal(columns: int) -> FloatArray:
    """`DRAWS` of independent standard normals, [DRAWS, columns], not to be written to."""
    uniform = _latin_hypercube(DRAWS, columns)
    normal = np.array([NormalDist().inv_cdf(u) for u in uniform.ravel()]).reshape(uniform.shape)
    normal.flags.writeable = False
    return normal


def _latin_hypercube(draws: int, columns: int) -> FloatArray:
    """Uniform numbers [draws, columns] in (0, 1), each column one in every of `draws` equal steps."""
    rng = np.random.default_rng(_SEED)
    steps = rng.permuted(np.tile(np.arange(draws), (columns, 1)), axis=1).T
    return np.asarray((steps + rng.uniform(0.05, 0.95, steps.shape)) / draws, dtype=np.float64)
