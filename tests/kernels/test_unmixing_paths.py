"""Tables of their own, many channels and small ridges: every answer against its optimality conditions."""

from fractions import Fraction
from itertools import chain, combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize

from lithostream.kernels.errors import ContractError
from lithostream.kernels.unmixing import Unmixing, UnmixingFlag, nnls

Floats = npt.NDArray[np.float64]


def assert_optimal(spectra: Floats, tables: Floats, weights: Floats, got: Unmixing, total: bool) -> None:
    """KKT conditions and residual of each answer, on its measured rows; NaN where there is none."""
    for p, spectrum in enumerate(spectra):
        measured = ~np.isnan(spectrum) & (weights[p] > 0)
        x = got.abundances[p]
        if not measured.any():
            assert got.flags[p] == UnmixingFlag.ALL_MISSING
            assert np.isnan(x).all() and np.isnan(got.residual[p])
            continue
        root = np.sqrt(weights[p, measured])
        a, s = (tables[p][:, measured] * root).T, spectrum[measured] * root
        norms = np.linalg.norm(a, axis=0)
        size = np.linalg.norm(s) + norms @ x
        misfit = s - a @ x
        assert np.all(x >= 0)
        assert abs(got.residual[p] - np.linalg.norm(misfit)) <= 1e-13 * size
        gain = a.T @ misfit
        if total:
            assert abs(x.sum() - 1) < 1e-14
            gain -= x @ gain
            norms = norms + np.linalg.norm(s) + norms.max()
        assert np.all(gain <= 1e-11 * norms * size)
        assert np.all(x * np.abs(gain) <= 1e-11 * x * norms * size)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["random", "duplicate", "collinear", "zero", "scaled", "black"]),
    st.sampled_from([(3, 5), (7, 8), (7, 4), (12, 12), (2, 16), (4, 20), (70, 3), (90, 9)]),
    st.booleans(),
)
@example(157, "scaled", (7, 8), True)  # the sum is right to 1e-13 only before its last division
def test_tables_weights_and_gaps_of_their_own(
    seed: int, kind: str, shape: tuple[int, int], total: bool
) -> None:
    rng = np.random.default_rng(seed)
    (channels, count), rows = shape, 20
    tables = rng.random((rows, count, channels)) + 0.1
    if kind == "duplicate":
        tables[:, -1] = tables[:, 0]
    elif kind == "collinear":
        tables[:, -1] = tables[:, 0] + tables[:, count // 2] * (1 + 1e-9)
    elif kind == "zero":
        tables[:, 0] = 0
    elif kind == "scaled":
        tables *= 10.0 ** rng.integers(-3, 3, (rows, count, 1))
    spectra = np.einsum("pe,peb->pb", rng.dirichlet(np.ones(count), rows), tables)
    spectra = 0 * spectra if kind == "black" else spectra + rng.normal(0, 0.02, spectra.shape)
    spectra[rng.random(spectra.shape) < 0.2] = np.nan
    spectra[3] = np.nan
    weights = rng.random(spectra.shape) * 4
    weights[5] = 0
    got = nnls(spectra, tables, weights=weights, sum_to_one=total)
    assert_optimal(spectra, tables, weights, got, total)
    for p in (0, 5, 19):  # alone as in the batch
        one = nnls(spectra[p : p + 1], tables[p : p + 1], weights=weights[p : p + 1], sum_to_one=total)
        assert one.abundances.tobytes() == got.abundances[p].tobytes()
        assert one.residual.tobytes() == got.residual[p].tobytes()
        assert one.flags[0] == got.flags[p]


def test_many_channels_as_scipy_solves_them() -> None:
    rng = np.random.default_rng(8)
    table = rng.random((6, 500))
    spectra = rng.dirichlet(np.ones(6), 40) @ table + rng.normal(0, 0.05, (40, 500))
    spectra[::3, 7] = np.nan
    got = nnls(spectra, table)
    for p, spectrum in enumerate(spectra):
        measured = ~np.isnan(spectrum)
        x, norm = optimize.nnls(table[:, measured].T, spectrum[measured])
        np.testing.assert_allclose(got.abundances[p], x, atol=1e-12)
        assert got.residual[p] == pytest.approx(norm, rel=1e-12)
    everything = np.broadcast_to(table, (40, 6, 500)).copy()
    assert nnls(spectra, everything).abundances.tobytes() == got.abundances.tobytes()


def test_many_channels_of_which_few_are_measured() -> None:
    rng = np.random.default_rng(9)
    table, spectra = rng.random((5, 100)), np.full((1, 100), np.nan)
    spectra[0, :3] = [1.0, 0.5, 0.7]
    got, want = nnls(spectra, table), nnls(spectra[:, :3].copy(), table[:, :3].copy())
    np.testing.assert_allclose(got.residual, want.residual, atol=1e-14)
    assert got.flags[0] == want.flags[0] == UnmixingFlag.UNDERDETERMINED


def test_many_channels_beyond_the_range_of_double() -> None:
    got = nnls(np.full((1, 70), 1e200), np.ones((2, 70)), weights=np.full(70, 1e300))
    assert got.flags[0] == UnmixingFlag.NOT_CONVERGED
    assert np.isnan(got.abundances).all() and np.isnan(got.residual).all()
    for scale in (1e-200, 1e200):
        far = nnls(np.full((1, 70), 3 * scale), np.full((1, 70), scale))
        np.testing.assert_allclose(far.abundances, 3)


def exact(table: Floats, spectrum: Floats, ridge: float) -> Floats:
    """The optimum with sum 1 in rational numbers: the one support whose answer meets all conditions."""
    a = [[Fraction(v) for v in row] for row in table.tolist()]
    s = [Fraction(v) for v in spectrum.tolist()]
    count, everyone = len(a), range(len(a))
    gram = [[sum((u * v for u, v in zip(p, q, strict=True)), Fraction()) for q in a] for p in a]
    target = [sum((u * v for u, v in zip(p, s, strict=True)), Fraction()) for p in a]
    for j in everyone:
        gram[j][j] += Fraction(ridge)
    for support in chain.from_iterable(combinations(everyone, n) for n in range(1, count + 1)):
        rows = [[gram[i][j] for j in support] + [Fraction(1), target[i]] for i in support]
        rows.append([Fraction(1)] * len(support) + [Fraction(0), Fraction(1)])
        *shares, multiplier = eliminated(rows)
        if min(shares) < 0:
            continue
        x = [Fraction(0)] * count
        for j, share in zip(support, shares, strict=True):
            x[j] = share
        gains = (
            target[i] - multiplier - sum(g * v for g, v in zip(gram[i], x, strict=True)) for i in everyone
        )
        if max(gains) <= 0:
            return np.array([float(v) for v in x])
    raise AssertionError("a strictly convex problem has an optimum")


def eliminated(rows: list[list[Fraction]]) -> list[Fraction]:
    """Solution of the square system with its right side as last column (Gauss and Jordan)."""
    size = len(rows)
    for c in range(size):
        pivot = max(range(c, size), key=lambda i: abs(rows[i][c]))
        rows[c], rows[pivot] = rows[pivot], rows[c]
        for i in range(size):
            if i != c and rows[i][c]:
                factor = rows[i][c] / rows[c][c]
                rows[i] = [u - factor * v for u, v in zip(rows[i], rows[c], strict=True)]
    return [rows[i][size] / rows[i][i] for i in range(size)]


@pytest.mark.parametrize("ridge", [1e-9, 1e-6, 4e-5, 1e-2])
@pytest.mark.parametrize("long_share", [0.0, 1e-6, 0.3])
def test_a_small_ridge_decides_beside_a_long_column(ridge: float, long_share: float) -> None:
    rng = np.random.default_rng(7)
    for _ in range(4):  # density, velocity and susceptibility in standard deviations; the last is magnetite's
        table = np.stack([rng.uniform(40, 100, 5), rng.uniform(20, 70, 5), rng.uniform(0, 0.5, 5)], axis=1)
        table[0, 2] = 3e5
        shares = np.append(long_share, rng.dirichlet(np.full(4, 0.5)) * (1 - long_share))
        spectrum = shares @ table + rng.normal(size=3)
        got = nnls(spectrum[None], table, sum_to_one=True, ridge=ridge)
        np.testing.assert_allclose(got.abundances[0], exact(table, spectrum, ridge), atol=1e-10)


def test_a_stream_needs_arrays_on_a_gpu() -> None:
    with pytest.raises(ContractError, match="stream: expected None for NumPy arrays, got object"):
        nnls(np.ones((2, 3)), np.ones((2, 3)), stream=object())
