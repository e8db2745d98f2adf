from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from lithostream.kernels.errors import ContractError
from lithostream.kernels.unmixing import Unmixing, UnmixingFlag, nnls, reference

Floats = npt.NDArray[np.float64]
Case = tuple[Floats, Floats, dict[str, Any]]


def bytes_of(result: Unmixing) -> bytes:
    return result.abundances.tobytes() + result.residual.tobytes() + result.flags.tobytes()


def part_of(result: Unmixing, rows: npt.NDArray[np.int64] | slice) -> Unmixing:
    return Unmixing(result.abundances[rows], result.residual[rows], result.flags[rows])


@st.composite
def problems(draw: st.DrawFn, max_endmembers: int = 10) -> Case:
    """Random, collinear, duplicate, zero and badly scaled endmembers; spectra inside, on and far off the hull."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, channels, rows = (
        draw(st.integers(1, max_endmembers)),
        draw(st.integers(1, 12)),
        draw(st.integers(0, 4)),
    )
    endmembers = rng.normal(draw(st.sampled_from([0, 3])), 1, (count, channels))
    kind = draw(st.sampled_from(["random", "duplicate", "collinear", "zero", "scaled", "integer"]))
    if kind == "duplicate":
        endmembers[-1] = endmembers[0]
    elif kind == "collinear":
        endmembers[-1] = endmembers[0] + endmembers[count // 2] * (1 + 1e-9 * rng.random())
    elif kind == "zero":
        endmembers[0] = 0
    elif kind == "scaled":
        endmembers *= 10.0 ** rng.integers(-5, 5, (count, 1))
    elif kind == "integer":
        endmembers = np.round(endmembers)
    spectra = rng.dirichlet(np.ones(count), rows) @ endmembers
    spectra += draw(st.sampled_from([0, 0.1, 100])) * rng.normal(size=spectra.shape)
    spectra[rng.random(spectra.shape) < draw(st.sampled_from([0, 0.3]))] = np.nan
    weights = draw(st.sampled_from([None, rng.random(channels), rng.random((rows, channels)) * 10]))
    ridge = draw(st.sampled_from([0.0, 1e-3, 2.0]))
    return spectra, endmembers, {"sum_to_one": draw(st.booleans()), "ridge": ridge, "weights": weights}


def objective(case: Case, result: Unmixing) -> Floats:
    value: Floats = result.residual**2 + case[2]["ridge"] * (result.abundances**2).sum(axis=1)
    return value


def rows_of(case: Case) -> Iterator[tuple[int, Floats, Floats]]:
    """Each solvable problem as (index, A [b, E], s [b]) with the weights multiplied in."""
    spectra, endmembers, options = case
    weights = np.ones(spectra.shape[1]) if options["weights"] is None else options["weights"]
    for p, root in enumerate(np.broadcast_to(np.sqrt(weights), spectra.shape)):
        measured = ~np.isnan(spectra[p])
        if measured.any():
            yield p, (endmembers * root)[:, measured].T, (spectra[p] * root)[measured]


@settings(max_examples=300, deadline=None)
@given(problems())
def test_meets_the_optimality_conditions(case: Case) -> None:
    spectra, endmembers, options = case
    result = nnls(spectra, endmembers, **options)
    missing = np.isnan(spectra).all(axis=1)
    assert np.array_equal(result.flags == UnmixingFlag.ALL_MISSING, missing)
    assert np.array_equal(np.isnan(result.abundances).any(axis=1), missing)
    for p, a, s in rows_of(case):
        x = result.abundances[p]
        assert np.all(x >= 0)
        norms = np.sqrt((a**2).sum(axis=0) + options["ridge"])
        size = np.linalg.norm(s) + norms @ x
        assert abs(result.residual[p] - np.linalg.norm(a @ x - s)) <= 1e-13 * size
        gain = a.T @ (s - a @ x) - options["ridge"] * x
        if options["sum_to_one"]:
            assert abs(x.sum() - 1) < 1e-14
            gain -= x @ gain  # the multiplier of the sum
            norms = norms + np.linalg.norm(s) + norms.max()
        assert np.all(gain <= 1e-11 * norms * size)  # no endmember could still help
        assert np.all(x * np.abs(gain) <= 1e-11 * x * norms * size)  # those in use are in balance


@settings(max_examples=150, deadline=None)
@given(problems())
def test_equals_the_reference(case: Case) -> None:
    result, want = nnls(*case[:2], **case[2]), reference.nnls(*case[:2], **case[2])
    size = np.nansum(np.nan_to_num(case[0]) ** 2, axis=1) * 10
    assert not np.any(result.flags & UnmixingFlag.NOT_CONVERGED)
    assert np.all(
        np.abs(objective(case, result) - objective(case, want)) <= 1e-11 * (1 + size), where=want.flags < 2
    )
    unique = (result.flags == 0) & (want.flags == 0) & (case[2]["ridge"] > 0)
    norms = np.linalg.norm(case[1], axis=1)
    shares = np.abs(result.abundances - want.abundances) * norms
    assert np.all(shares[unique] <= 1e-6 * (1 + norms.max() + np.sqrt(size[unique, None])))


@settings(max_examples=60, deadline=None)
@given(problems(max_endmembers=5))
def test_no_support_does_better(case: Case) -> None:
    result = nnls(*case[:2], **case[2])
    ridge, sum_to_one = case[2]["ridge"], case[2]["sum_to_one"]
    for p, a, s in rows_of(case):
        found = result.residual[p] ** 2 + ridge * (result.abundances[p] ** 2).sum()
        best = np.inf if sum_to_one else s @ s
        everyone = range(a.shape[1])
        for support in chain.from_iterable(combinations(everyone, n) for n in range(1, a.shape[1] + 1)):
            x = equality_solution(a[:, support], s, ridge, sum_to_one)
            if (x >= 0).all():
                best = min(best, float(np.sum((a[:, support] @ x - s) ** 2) + ridge * x @ x))
        assert found <= best + 1e-10 * (1 + s @ s)


def equality_solution(a: Floats, s: Floats, ridge: float, sum_to_one: bool) -> Floats:
    """Least squares on one support, through the bordered normal equations."""
    count = a.shape[1]
    matrix, right = np.zeros((count + 1, count + 1)), np.append(a.T @ s, 1.0)
    matrix[:count, :count] = a.T @ a + ridge * np.eye(count)
    matrix[count, :count] = matrix[:count, count] = 1
    if not sum_to_one:
        matrix, right = matrix[:count, :count], right[:count]
    solution: Floats = np.linalg.lstsq(matrix, right)[0][:count]
    return solution if not sum_to_one or abs(solution.sum() - 1) < 1e-9 else np.full(count, -1.0)


def mixtures(rows: int, count: int, channels: int, noise: float) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(rows + count)
    endmembers, shares = rng.random((count, channels)), rng.dirichlet(np.ones(count) * 0.5, rows)
    return shares @ endmembers + rng.normal(0, noise, (rows, channels)), endmembers, shares


def test_recovers_exact_mixtures() -> None:
    spectra, endmembers, shares = mixtures(50, 6, 9, noise=0)
    for sum_to_one in (False, True):
        result = nnls(spectra, endmembers, sum_to_one=sum_to_one)
        np.testing.assert_allclose(result.abundances, shares, atol=1e-12)
        assert result.residual.max() < 1e-13
        assert not result.flags.any()


def test_residual_equals_scipy() -> None:
    spectra, endmembers, _ = mixtures(60, 32, 64, noise=0.1)
    result = nnls(spectra, endmembers)
    want = [optimize.nnls(endmembers.T, s) for s in spectra]
    np.testing.assert_allclose(result.residual, [norm for _, norm in want], rtol=1e-12)
    np.testing.assert_allclose(result.abundances, [x for x, _ in want], atol=1e-12)


def test_fully_constrained_equals_a_general_solver() -> None:
    spectra, endmembers, _ = mixtures(5, 4, 6, noise=0.3)
    result = nnls(spectra, endmembers, sum_to_one=True)
    for p, s in enumerate(spectra):
        want = optimize.minimize(
            lambda x, s=s: np.sum((x @ endmembers - s) ** 2),
            np.full(4, 0.25),
            jac=lambda x, s=s: 2 * endmembers @ (x @ endmembers - s),
            bounds=[(0, None)] * 4,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(result.abundances[p], want.x, atol=1e-6)
        assert result.residual[p] ** 2 <= want.fun + 1e-12


def test_values_by_hand() -> None:
    endmembers, spectra = np.eye(2), np.array([[3.0, -1.0], [0.0, 0.0]])
    free = nnls(spectra, endmembers)
    np.testing.assert_allclose(free.abundances, [[3, 0], [0, 0]])
    np.testing.assert_allclose(free.residual, [1, 0])
    full = nnls(spectra, endmembers, sum_to_one=True)
    np.testing.assert_allclose(full.abundances, np.array([[1, 0], [0.5, 0.5]]), atol=1e-15)
    np.testing.assert_allclose(full.residual, [5**0.5, 0.5**0.5])
    shrunk = nnls(spectra, endmembers, ridge=0.5)
    np.testing.assert_allclose(shrunk.abundances, [[2, 0], [0, 0]])


def test_sum_is_exact_far_from_the_hull_and_next_to_it() -> None:
    endmembers = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    spectra = np.array([[1e6, 1e6 + 0.5, 1.0], [0.25, 0.25, 1 + 1e-12]])
    result = nnls(spectra, endmembers, sum_to_one=True)
    np.testing.assert_allclose(result.abundances, [[0, 0.25, 0.75], [0.5, 0.25, 0.25]], atol=1e-9)


def test_a_missing_channel_equals_a_dropped_one_and_a_zero_weight() -> None:
    spectra, endmembers, _ = mixtures(20, 4, 8, noise=0.1)
    gap = spectra.copy()
    gap[:, 3] = np.nan
    weights = np.array([1.0, 1, 1, 0, 1, 1, 1, 1])
    for sum_to_one in (False, True):
        got = nnls(gap, endmembers, sum_to_one=sum_to_one)
        for want in (
            nnls(np.delete(spectra, 3, 1), np.delete(endmembers, 3, 1), sum_to_one=sum_to_one),
            nnls(spectra, endmembers, sum_to_one=sum_to_one, weights=weights),
        ):
            assert bytes_of(got) == bytes_of(want)


def test_weights_equal_scaled_rows() -> None:
    spectra, endmembers, _ = mixtures(20, 4, 8, noise=0.1)
    weights = np.random.default_rng(1).random((20, 8)) * 9
    for sum_to_one in (False, True):
        got = nnls(spectra, endmembers, weights=weights, sum_to_one=sum_to_one, ridge=0.01)
        root = np.sqrt(weights)
        want = nnls(spectra * root, endmembers * root[:, None], sum_to_one=sum_to_one, ridge=0.01)
        np.testing.assert_allclose(got.abundances, want.abundances, atol=1e-12)
        np.testing.assert_allclose(got.residual, want.residual, rtol=1e-12)


def test_a_table_per_spectrum_equals_a_loop() -> None:
    spectra, _, _ = mixtures(12, 5, 7, noise=0.1)
    tables = np.random.default_rng(2).random((12, 5, 7))
    got = nnls(spectra, tables, sum_to_one=True)
    for p in range(12):
        one = nnls(spectra[p : p + 1], tables[p], sum_to_one=True)
        assert np.array_equal(got.abundances[p], one.abundances[0])
        assert got.residual[p] == one.residual[0]


def flag(spectrum: list[float], endmembers: list[list[float]], **options: Any) -> int:
    return int(nnls(np.array([spectrum]), np.array(endmembers), **options).flags[0])


def test_flags_say_whether_the_data_decide() -> None:
    low, high, middle = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]
    assert flag([0.3, 0.4], [low, high]) == UnmixingFlag.OK
    assert (
        flag([0.3, 0.4], [low, high, middle]) == UnmixingFlag.UNDERDETERMINED
    )  # more endmembers than channels
    assert flag([0.3, 0.4], [low, low]) == UnmixingFlag.UNDERDETERMINED  # twins
    assert flag([0.3, 0.4], [low, low], ridge=0.1) == UnmixingFlag.UNDERDETERMINED  # the ridge chose
    assert flag([0.3, np.nan], [low, high]) == UnmixingFlag.UNDERDETERMINED  # the second is not seen
    assert flag([0.3, np.nan], [low, high], sum_to_one=True) == UnmixingFlag.OK  # but the sum gives it
    assert flag([0.3, 0.4], [low, high, [1.0, 1.0]], sum_to_one=True) == UnmixingFlag.OK
    assert flag([1.0, -1.0], [low, high, middle]) == UnmixingFlag.OK  # only `low` can be in use
    assert flag([np.nan, np.nan], [low, high]) == UnmixingFlag.ALL_MISSING
    assert flag([0.3, 0.4], [low, high], weights=np.zeros(2)) == UnmixingFlag.ALL_MISSING


def test_beyond_the_range_of_double_is_no_number() -> None:
    result = nnls(np.full((1, 2), 1e200), np.eye(2), weights=np.full(2, 1e300))
    assert result.flags[0] == UnmixingFlag.NOT_CONVERGED
    assert np.isnan(result.abundances).all() and np.isnan(result.residual).all()


def test_the_scale_of_the_numbers_does_not_matter() -> None:
    spectra, endmembers, _ = mixtures(10, 4, 6, noise=0.1)
    want = nnls(spectra, endmembers)
    for scale in (2.0**-600, 2.0**600):
        got = nnls(spectra * scale, endmembers * scale)
        assert np.array_equal(got.abundances, want.abundances)


# The quick way serves problems without a ridge; one too small for double to see asks the exact solver.
NO_RIDGE_IN_DOUBLE = 1e-300


@settings(max_examples=300, deadline=None)
@given(problems(max_endmembers=16))
def test_the_quick_way_equals_the_exact_solver(case: Case) -> None:
    spectra, endmembers, options = case
    options = options | {"ridge": 0.0}
    quick, exact = (nnls(spectra, endmembers, **options | {"ridge": r}) for r in (0.0, NO_RIDGE_IN_DOUBLE))
    assert np.array_equal(quick.flags, exact.flags)
    for p, a, s in rows_of((spectra, endmembers, options)):
        size = np.linalg.norm(s) + np.linalg.norm(a, axis=0) @ exact.abundances[p]
        assert quick.residual[p] - exact.residual[p] <= 1e-9 * size


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (3, 12), (6, 6), (12, 12), (2, 16)])
@pytest.mark.parametrize("sum_to_one", [False, True])
def test_many_spectra_are_optimal_and_flagged_as_by_the_exact_solver(
    shape: tuple[int, int], sum_to_one: bool
) -> None:
    channels, count = shape
    spectra, endmembers, _ = mixtures(3000, count, channels, noise=0.05)
    result = nnls(spectra, endmembers, sum_to_one=sum_to_one)
    exact = nnls(spectra, endmembers, sum_to_one=sum_to_one, ridge=NO_RIDGE_IN_DOUBLE)
    x, misfit = result.abundances, spectra - result.abundances @ endmembers
    gain = misfit @ endmembers.T
    if sum_to_one:
        gain -= (x * gain).sum(axis=1, keepdims=True)
        assert np.abs(x.sum(axis=1) - 1).max() < 1e-14
    assert x.min() >= 0
    assert gain.max() < 1e-12
    assert np.abs(x * gain).max() < 1e-12
    np.testing.assert_allclose(result.residual, exact.residual, atol=1e-12)
    assert np.array_equal(result.flags, exact.flags)


@pytest.mark.parametrize("sum_to_one", [False, True])
def test_the_batch_does_not_choose_among_equal_answers(sum_to_one: bool) -> None:
    spectra, endmembers, _ = mixtures(5000, 6, 3, noise=0.02)
    spectra[::7, 1] = np.nan
    whole = nnls(spectra, endmembers, sum_to_one=sum_to_one)
    order = np.random.default_rng(5).permutation(5000)
    mixed = nnls(spectra[order], endmembers, sum_to_one=sum_to_one)
    assert bytes_of(mixed) == bytes_of(part_of(whole, order))
    for p in range(0, 5000, 97):
        alone = nnls(spectra[p : p + 1], endmembers, sum_to_one=sum_to_one)
        assert bytes_of(alone) == bytes_of(part_of(whole, slice(p, p + 1)))


def test_black_and_hostile_spectra_among_others() -> None:
    _, endmembers, _ = mixtures(1, 4, 3, noise=0)
    spectra = np.array([[0.0, 0, 0], [-1, -2, -3], [1e-200, 0, 0], [5e-324, 0, 0], [1e200, 1e200, 1e200]])
    result = nnls(spectra, endmembers)
    assert not result.abundances[:2].any()
    np.testing.assert_allclose(result.residual[:2], [0, 14**0.5])
    assert result.flags[1] == UnmixingFlag.OK
    for p, size in ((2, 1e-200), (4, 1e200)):
        unit = nnls(spectra[p : p + 1] / size, endmembers)
        np.testing.assert_allclose(result.abundances[p] / size, unit.abundances[0], rtol=1e-9)


def test_no_spectra_and_one_by_one() -> None:
    assert nnls(np.empty((0, 3)), np.ones((2, 3))).abundances.shape == (0, 2)
    np.testing.assert_allclose(nnls(np.array([[3.0]]), np.array([[2.0]])).abundances, [[1.5]])


def test_fills_out_and_reads_views() -> None:
    spectra, endmembers, _ = mixtures(10, 3, 8, noise=0.1)
    out = Unmixing(np.empty((10, 3)), np.empty(10), np.empty(10, np.uint8))
    assert nnls(spectra[:, ::2], endmembers[:, ::2], out=out) is out
    want = nnls(spectra[:, ::2].copy(), endmembers[:, ::2].copy())
    assert bytes_of(out) == bytes_of(want)


def test_eight_threads_get_the_same_bytes() -> None:
    spectra, endmembers, _ = mixtures(2000, 6, 9, noise=0.1)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: bytes_of(nnls(spectra, endmembers, sum_to_one=True)), range(16)))
    assert set(results) == {bytes_of(nnls(spectra, endmembers, sum_to_one=True))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spectra": np.zeros((4, 3), np.float32)}, r"spectra: expected float64 \[\*, \*\], got float32"),
        ({"spectra": np.zeros((4, 0))}, "spectra: expected at least 1 channel, got 0"),
        (
            {"spectra": np.full((4, 3), np.inf)},
            r"spectra: expected finite values or NaN, got inf at \[0, 0\]",
        ),
        ({"endmembers": np.zeros((2, 4))}, r"endmembers: expected float64 \[\*, 3\], got float64 \[2, 4\]"),
        ({"endmembers": np.zeros((5, 2, 3))}, r"endmembers: expected float64 \[4, \*, 3\]"),
        ({"endmembers": np.zeros((33, 3))}, "endmembers: expected 1 to 32 endmembers, got 33"),
        ({"endmembers": np.zeros((0, 3))}, "endmembers: expected 1 to 32 endmembers, got 0"),
        ({"endmembers": np.full((2, 3), np.nan)}, "endmembers: expected finite values, got nan"),
        ({"weights": np.zeros(4)}, r"weights: expected float64 \[3\], got float64 \[4\]"),
        ({"weights": np.zeros((3, 3))}, r"weights: expected float64 \[4, 3\]"),
        (
            {"weights": np.array([1.0, -1.0, 1.0])},
            r"weights: expected finite values from 0, got -1.0 at \[1\]",
        ),
        ({"ridge": -1.0}, "ridge: expected a finite number from 0, got -1.0"),
        ({"ridge": float("inf")}, "ridge: expected a finite number from 0, got inf"),
        (
            {"out": Unmixing(np.empty((4, 3)), np.empty(4), np.empty(4, np.uint8))},
            r"out.abundances: expected float64 \[4, 2\]",
        ),
        (
            {"out": Unmixing(np.empty((2, 4)).T, np.empty(4), np.empty(4, np.uint8))},
            "out.abundances: expected a writeable C-contiguous array",
        ),
    ],
)
def test_contract(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"spectra": np.zeros((4, 3)), "endmembers": np.zeros((2, 3))} | change
    with pytest.raises(ContractError, match=message):
        nnls(**arguments)
