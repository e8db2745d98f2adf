"""The active-set method in plain NumPy, with the sum constraint eliminated directly."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.unmixing import Unmixing, UnmixingFlag

Floats = npt.NDArray[np.float64]
Indices = list[int]

STEPS_PER_ENDMEMBER = 10
TOLERANCE = 1e-14
TIE = 1e-9


def nnls(
    spectra: Floats,
    endmembers: Floats,
    *,
    sum_to_one: bool = False,
    ridge: float = 0.0,
    weights: Floats | None = None,
) -> Unmixing:
    """See `lithostream.kernels.unmixing.nnls`."""
    if spectra.ndim == 3:
        tables, each, channels = spectra.shape
        if weights is not None and weights.ndim == 2:
            weights = np.repeat(weights, each, axis=0)
        flat = nnls(
            spectra.reshape(-1, channels),
            np.repeat(endmembers, each, axis=0),
            sum_to_one=sum_to_one,
            ridge=ridge,
            weights=weights,
        )
        shape = tables, each
        return Unmixing(
            flat.abundances.reshape(*shape, -1), flat.residual.reshape(shape), flat.flags.reshape(shape)
        )
    problems, channels = spectra.shape
    tables = np.broadcast_to(endmembers, (problems, *endmembers.shape[-2:]))
    roots = np.broadcast_to(np.sqrt(np.ones(channels) if weights is None else weights), spectra.shape)
    count = tables.shape[1]
    result = Unmixing(
        np.full((problems, count), np.nan), np.full(problems, np.nan), np.zeros(problems, np.uint8)
    )
    for p in range(problems):
        measured = ~np.isnan(spectra[p]) & (roots[p] > 0)
        if not measured.any():
            result.flags[p] = UnmixingFlag.ALL_MISSING
            continue
        rows = (tables[p] * roots[p])[:, measured].T  # [b, E]
        values = (spectra[p] * roots[p])[measured]
        solved = _solve(rows, values, ridge, sum_to_one)
        if solved is None:
            result.flags[p] = UnmixingFlag.NOT_CONVERGED
            continue
        x, free = solved
        result.abundances[p] = x
        result.residual[p] = np.linalg.norm(rows @ x - values)
        tested = np.vstack([rows, np.ones(count)]) if sum_to_one else rows
        if free and np.linalg.matrix_rank(_unit(tested[:, free]), tol=TIE) < len(free):
            result.flags[p] = UnmixingFlag.UNDERDETERMINED
    return result


def _solve(rows: Floats, values: Floats, ridge: float, sum_to_one: bool) -> tuple[Floats, Indices] | None:
    """Abundances float64 [E] and the endmembers that could carry some; None beyond the step limit."""
    count = rows.shape[1]
    a = np.vstack([rows, np.sqrt(ridge) * np.eye(count)])
    s = np.concatenate([values, np.zeros(count)])
    norms = np.linalg.norm(a, axis=0)
    x = np.zeros(count)
    passive: Indices = []
    if sum_to_one:  # start from the best single endmember
        passive = [int(np.argmin(np.linalg.norm(a - s[:, None], axis=0)))]
        x[passive] = 1.0
    for _ in range(STEPS_PER_ENDMEMBER * count):
        slope = a.T @ (s - a @ x)
        gain = slope - slope[passive].mean() if sum_to_one else slope
        scale = (norms + sum_to_one * norms.max()) * (np.linalg.norm(s) + norms @ x)
        entering = [j for j in range(count) if j not in passive and gain[j] > TOLERANCE * scale[j]]
        entering.sort(key=lambda j: -gain[j] / scale[j])
        grown = next((p for j in entering if (p := _enter(a, s, x, [*passive, j], sum_to_one))), None)
        if grown is None:
            free = [j for j in range(count) if j in passive or gain[j] >= -TIE * scale[j]]
            return x, free
        passive = grown
    return None


def _enter(a: Floats, s: Floats, x: Floats, passive: Indices, sum_to_one: bool) -> Indices | None:
    """Solve on the grown passive set and drop what turns negative; None, `x` untouched, if the new one does."""
    z = _least_squares(a[:, passive], s, sum_to_one)
    if z[-1] <= 0:
        return None
    while (z <= 0).any():
        here = x[passive]
        blocked = z <= 0
        reach = np.full(z.shape, np.inf)
        reach[blocked] = here[blocked] / (here[blocked] - z[blocked])
        here += reach.min() * (z - here)
        here[np.argmin(reach)] = 0
        x[passive] = here * (here > 0)
        passive = [j for j in passive if x[j] > 0]
        z = _least_squares(a[:, passive], s, sum_to_one)
    x[passive] = z
    return passive


def _least_squares(a: Floats, s: Floats, sum_to_one: bool) -> Floats:
    if not sum_to_one:
        return np.linalg.lstsq(a, s)[0].astype(np.float64)
    last = a[:, -1:]
    head = np.linalg.lstsq(a[:, :-1] - last, s - last[:, 0])[0]
    return np.append(head, 1 - head.sum())


def _unit(columns: Floats) -> Floats:
    norms = np.linalg.norm(columns, axis=0)
    unit: Floats = columns / np.where(norms > 0, norms, 1)
    return unit
