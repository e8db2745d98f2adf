"""Non-negative unmixing: which shares of the endmembers explain each spectrum."""

import math
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array, on_gpu, output
from lithostream.kernels.errors import ContractError

__all__ = ["MAX_ENDMEMBERS", "Unmixing", "UnmixingFlag", "nnls"]

Floats = npt.NDArray[np.float64]

MAX_ENDMEMBERS = 32


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
    """One row per spectrum; one more axis where several share each table.

    Attributes
    ----------
    abundances : float64 [P, E] or [P, D, E]
        Shares, never negative.
    residual : float64 [P] or [P, D]
        sqrt(sum_b w_b * misfit_b**2) over the measured channels.
    flags : uint8 [P] or [P, D]
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
    stream: object | None = None,
) -> Unmixing:
    """Minimise sum_b w_b * (sum_e x_e * A[e, b] - s_b)**2 + ridge * |x|**2 over x >= 0, for each spectrum s.

    With more endmembers than channels the optimum is a set, of which one member is returned and flagged;
    `ridge` > 0 makes it unique.

    Parameters
    ----------
    spectra : float64 [P, B] or [P, D, B]
        Measured values; NaN is a channel not measured. With D, as many spectra belong to each of P tables: what is
        known of a table is then found out once.
    endmembers : float64 [E, B] or [P, E, B]
        Values of the pure materials, shared or one table per spectrum (with D, only the latter). 1 to 32 endmembers.
    sum_to_one : bool
        Also demand sum(x) = 1 (fully constrained), which holds to rounding.
    ridge : float
        Weight of |x|**2, 0 or above.
    weights : float64 [B] or [P, B], optional
        Weight of each squared misfit, 0 or above; 0 is a channel not measured. All 1 where absent.
    out : Unmixing, optional
        C-contiguous arrays to fill and return.
    stream : cupy.cuda.Stream, optional
        Where a GPU is to queue the work; NumPy arrays take none.

    Returns
    -------
    Unmixing
        Abundances, residual and flags.

    Raises
    ------
    ContractError
        Naming the argument that does not fit, infinite values included.
    DeviceMismatchError
        If the arrays are not all on one device.
    BackendUnavailableError
        If they are on a GPU that cannot be used.

    Notes
    -----
    Bytes per spectrum: 8 B read, 8 E + 9 written; 8 B E more with a table and 8 B more with weights of its own.
    Operations: about 4 B E per step and one to four steps where all share one table of up to 16 endmembers,
    weights and channels; where not, about 2 B E**2 + 5 (E**3 / 3 + 2 E**2); of D spectra on a table each takes the
    former, where they have the same channels, and the latter is shared.
    Supports are exchanged on normal equations and accepted by the optimality conditions on the rows; what is
    not proved so, every problem with a ridge and all beyond 16 endmembers are solved as below.
    Above 64 channels an orthogonal change of rows (Gram-Schmidt with reorthogonalisation) leaves E of them
    first: 4 B E operations, or 4 B E**2 where it serves one spectrum only. The residual is taken on all.
    Spectra are independent: neither threads nor the rest of the batch change an answer.
    Scratch per thread: 0.3 MB, and on a shared table 8 E (B + 1) bytes for each support met, 4,096 of them at
    most, 64 with D (E rounded up to a multiple of 4); above 64 channels 32 B (E + 2) bytes instead.
    Copies inputs that are not C-contiguous.
    On a GPU the digits and, where several answers are as good, the choice differ: see
    `lithostream.kernels.unmixing.cuda`.
    Source: Lawson and Hanson (1974), Solving Least Squares Problems: algorithm NNLS (23.10). The sum is
    solved by their reduction of a least-distance problem (23.27): on sum(x) = 1 the misfit is
    sum_e x_e * (A[e] - s), and u >= 0 that minimises |that sum|**2 + m**2 * (sum(u) - 1)**2 is
    proportional to the answer for every m > 0, hence x = u / sum(u) exactly.
    """
    parts = (None, None, None) if out is None else out
    gpu = on_gpu(
        stream=stream,
        spectra=spectra,
        endmembers=endmembers,
        weights=weights,
        **{f"out.{name}": part for name, part in zip(Unmixing._fields, parts, strict=True)},
    )
    several = getattr(spectra, "ndim", 2) == 3
    check_array("spectra", spectra, dtype=np.float64, shape=(None,) * (2 + several))
    problems, channels = spectra.shape[0], spectra.shape[-1]
    if channels == 0:
        raise ContractError("spectra: expected at least 1 channel, got 0")
    per_problem = several or getattr(endmembers, "ndim", 2) == 3
    tables = (problems,) if per_problem else ()
    check_array("endmembers", endmembers, dtype=np.float64, shape=(*tables, None, channels))
    count = endmembers.shape[-2]
    if not 1 <= count <= MAX_ENDMEMBERS:
        raise ContractError(f"endmembers: expected 1 to {MAX_ENDMEMBERS} endmembers, got {count}")
    if weights is not None:
        per_row = getattr(weights, "ndim", 1) == 2
        check_array("weights", weights, dtype=np.float64, shape=(*((problems,) if per_row else ()), channels))
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ContractError(f"ridge: expected a finite number from 0, got {ridge}")
    if gpu:
        from lithostream.kernels.unmixing import cuda

        given: Any = spectra, endmembers
        options: Any = {"sum_to_one": sum_to_one, "ridge": ridge, "weights": weights}
        found = Unmixing(*cuda.nnls(*given, **options, out=parts, stream=stream))
        return found if out is None else out
    if weights is None:
        weights = np.ones(channels)
    check_numbers(spectra, endmembers, weights)
    lead = spectra.shape[:-1]
    result = Unmixing(
        output("out.abundances", parts[0], dtype=np.float64, shape=(*lead, count)),
        output("out.residual", parts[1], dtype=np.float64, shape=lead),
        output("out.flags", parts[2], dtype=np.uint8, shape=lead),
    )
    spectra, endmembers, weights = (np.ascontiguousarray(a) for a in (spectra, endmembers, weights))
    _native.nnls(
        spectra.reshape(-1, channels),
        endmembers,
        weights,
        sum_to_one,
        ridge,
        max(lead[1], 1) if several else 1,
        result.abundances.reshape(-1, count),  # the same memory, as of what follows
        result.residual.ravel(),
        result.flags.ravel(),
    )
    return result if out is None else out


def check_numbers(spectra: Floats, endmembers: Floats, weights: Floats) -> None:
    """Raise `ContractError` where a number is not allowed."""
    if any(math.isinf(extreme.reduce(spectra, axis=None, initial=0)) for extreme in (np.fmin, np.fmax)):
        _check_values("spectra", "finite values or NaN", spectra, bad=np.isinf(spectra))
    if not _finite(endmembers):
        _check_values("endmembers", "finite values", endmembers, bad=~np.isfinite(endmembers))
    if not _finite(weights) or weights.min(initial=0) < 0:
        bad = ~(np.isfinite(weights) & (weights >= 0))
        _check_values("weights", "finite values from 0", weights, bad=bad)


def _finite(values: Floats) -> bool:
    """Whether the sum is finite, hence every value: one pass that writes nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(values.sum())


def _check_values(name: str, want: str, values: Floats, *, bad: npt.NDArray[np.bool_]) -> None:
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ContractError(f"{name}: expected {want}, got {values[bad][0]} at {place}")
