"""Non-negative unmixing: which shares of the endmembers explain each spectrum."""

import math
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError

__all__ = ["MAX_CHANNELS", "MAX_ENDMEMBERS", "Unmixing", "UnmixingFlag", "nnls"]

Floats = npt.NDArray[np.float64]

MAX_ENDMEMBERS = 32
MAX_CHANNELS = 64


class UnmixingFlag(IntFlag):
    """What to know about one solution.

    UNDERDETERMINED: the endmembers that could carry abundance are linearly dependent on the measured
    channels (with the sum as one more, if asked for), so other abundances may fit as well; with a ridge the
    answer is unique, but the ridge chose it.
    ALL_MISSING: no channel with a value and a weight; abundances and residual are NaN.
    NOT_CONVERGED: no solution within the step limit or the range of double; abundances and residual are NaN.
    """

    OK = 0
    UNDERDETERMINED = 1
    ALL_MISSING = 2
    NOT_CONVERGED = 4


class Unmixing(NamedTuple):
    """One row per spectrum.

    Attributes
    ----------
    abundances : float64 [P, E]
        Shares, never negative.
    residual : float64 [P]
        sqrt(sum_b w_b * misfit_b**2) over the measured channels.
    flags : uint8 [P]
        `UnmixingFlag` bits.
    """

    abundances: Floats
    residual: Floats
    flags: npt.NDArray[np.uint8]


def nnls(
    spectra: Floats,
    endmembers: Floats,
    *,
    sum_to_one: bool = False,
    ridge: float = 0.0,
    weights: Floats | None = None,
    out: Unmixing | None = None,
) -> Unmixing:
    """Minimise sum_b w_b * (sum_e x_e * A[e, b] - s_b)**2 + ridge * |x|**2 over x >= 0, for each spectrum s.

    With more endmembers than channels the optimum is a set, of which one member is returned and flagged;
    `ridge` > 0 makes it unique.

    Parameters
    ----------
    spectra : float64 [P, B]
        Measured values; NaN is a channel not measured. 1 to 64 channels.
    endmembers : float64 [E, B] or [P, E, B]
        Values of the pure materials, shared or one table per spectrum. 1 to 32 endmembers.
    sum_to_one : bool
        Also demand sum(x) = 1 (fully constrained), which holds to rounding.
    ridge : float
        Weight of |x|**2, 0 or above.
    weights : float64 [B] or [P, B], optional
        Weight of each squared misfit, 0 or above; 0 is a channel not measured. All 1 where absent.
    out : Unmixing, optional
        C-contiguous arrays to fill and return.

    Returns
    -------
    Unmixing
        Abundances, residual and flags.

    Raises
    ------
    ContractError
        Naming the argument that does not fit, infinite values included.

    Notes
    -----
    Cost: O(B * E) per step and one to four steps per spectrum where all share one table of up to 16
    endmembers, weights and channels; else about O(B * E**2). Supports are exchanged on normal equations and
    accepted by the optimality conditions on the rows; what is not proved so, every problem with a ridge and
    all beyond 16 endmembers are solved as below. Spectra are independent: neither threads nor the rest of
    the batch change an answer. Copies inputs that are not C-contiguous.
    Source: Lawson and Hanson (1974), Solving Least Squares Problems: algorithm NNLS (23.10). The sum is
    solved by their reduction of a least-distance problem (23.27): on sum(x) = 1 the misfit is
    sum_e x_e * (A[e] - s), and u >= 0 that minimises |that sum|**2 + m**2 * (sum(u) - 1)**2 is
    proportional to the answer for every m > 0, hence x = u / sum(u) exactly.
    """
    check_array("spectra", spectra, dtype=np.float64, shape=(None, None))
    problems, channels = spectra.shape
    _check_range("spectra", "channels", channels, MAX_CHANNELS)
    per_problem = isinstance(endmembers, np.ndarray) and endmembers.ndim == 3
    tables = (problems,) if per_problem else ()
    check_array("endmembers", endmembers, dtype=np.float64, shape=(*tables, None, channels))
    count = endmembers.shape[-2]
    _check_range("endmembers", "endmembers", count, MAX_ENDMEMBERS)
    if weights is None:
        weights = np.ones(channels)
    per_row = isinstance(weights, np.ndarray) and weights.ndim == 2
    check_array("weights", weights, dtype=np.float64, shape=(*((problems,) if per_row else ()), channels))
    if not _finite(spectra):
        _check_values("spectra", "finite values or NaN", spectra, bad=np.isinf(spectra))
    if not _finite(endmembers):
        _check_values("endmembers", "finite values", endmembers, bad=~np.isfinite(endmembers))
    if not _finite(weights) or weights.min(initial=0) < 0:
        bad = ~(np.isfinite(weights) & (weights >= 0))
        _check_values("weights", "finite values from 0", weights, bad=bad)
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ContractError(f"ridge: expected a finite number from 0, got {ridge}")
    result = _empty(problems, count) if out is None else _check_out(out, problems, count)
    spectra, endmembers, weights = (np.ascontiguousarray(a) for a in (spectra, endmembers, weights))
    _native.nnls(spectra, endmembers, weights, sum_to_one, ridge, *result)
    return result


def _empty(problems: int, count: int) -> Unmixing:
    return Unmixing(np.empty((problems, count)), np.empty(problems), np.empty(problems, np.uint8))


def _check_range(name: str, what: str, size: int, limit: int) -> None:
    if not 1 <= size <= limit:
        raise ContractError(f"{name}: expected 1 to {limit} {what}, got {size}")


def _finite(values: Floats) -> bool:
    """Whether the sum is finite, hence every value: one pass that writes nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(values.sum())


def _check_values(name: str, want: str, values: Floats, *, bad: npt.NDArray[np.bool_]) -> None:
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ContractError(f"{name}: expected {want}, got {values[bad][0]} at {place}")


def _check_out(out: Unmixing, problems: int, count: int) -> Unmixing:
    _check_part("abundances", out.abundances, np.float64, (problems, count))
    _check_part("residual", out.residual, np.float64, (problems,))
    _check_part("flags", out.flags, np.uint8, (problems,))
    return out


def _check_part(name: str, array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    check_array(f"out.{name}", array, dtype=dtype, shape=shape)
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ContractError(
            f"out.{name}: expected a writeable C-contiguous array, got strides {array.strides}"
        )
