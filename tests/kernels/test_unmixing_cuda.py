"""The device code of the unmixing, run on the host: optimal, flagged as by the CPU, repeatable to the bit."""

import dataclasses
from types import ModuleType
from typing import Any

import cupy_on_host
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings

from lithostream.kernels.errors import ContractError, DeviceMismatchError
from lithostream.kernels.unmixing import Unmixing, UnmixingFlag, cuda, nnls
from tests.kernels.test_unmixing import Case, bytes_of, mixtures, part_of, problems
from tests.kernels.test_unmixing_paths import exact

Floats = npt.NDArray[np.float64]

# Too small for double to see, but it asks for the exact solver.
NO_RIDGE_IN_DOUBLE = 1e-300


@dataclasses.dataclass(frozen=True)
class Emulated:
    """Calls the public function with arrays of the emulated device."""

    cupy: ModuleType

    def __call__(self, spectra: Floats, endmembers: Floats, **options: Any) -> Unmixing:
        options = {k: self.cupy.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        found: Any = nnls(self.cupy.asarray(spectra), self.cupy.asarray(endmembers), **options)
        return Unmixing(*(part.get() for part in found))


@pytest.fixture
def solve(cupy: ModuleType) -> Emulated:
    return Emulated(cupy)


def assert_optimal(case: Case, got: Unmixing) -> None:
    """KKT conditions and residual of each answer on its measured rows; NaN where there is none."""
    spectra, endmembers, options = case
    ridge, total = options.get("ridge", 0.0), options.get("sum_to_one", False)
    weights = options.get("weights")
    weights = np.broadcast_to(np.ones(spectra.shape[1]) if weights is None else weights, spectra.shape)
    tables = np.broadcast_to(endmembers, (len(spectra), *endmembers.shape[-2:]))
    for p, x in enumerate(got.abundances):
        measured = ~np.isnan(spectra[p]) & (weights[p] > 0)
        if not measured.any():
            assert got.flags[p] == UnmixingFlag.ALL_MISSING
            assert np.isnan(x).all() and np.isnan(got.residual[p])
            continue
        root = np.sqrt(weights[p, measured])
        a, s = (tables[p][:, measured] * root).T, spectra[p, measured] * root
        norms = np.sqrt((a**2).sum(axis=0) + ridge)
        size = np.linalg.norm(s) + norms @ x
        assert np.all(x >= 0)
        assert abs(got.residual[p] - np.linalg.norm(a @ x - s)) <= 1e-13 * size
        gain = a.T @ (s - a @ x) - ridge * x
        if total:
            assert abs(x.sum() - 1) < 1e-14
            gain -= x @ gain  # the multiplier of the sum
            norms = norms + np.linalg.norm(s) + norms.max()
        assert np.all(gain <= 1e-11 * norms * size)
        assert np.all(x * np.abs(gain) <= 1e-11 * x * norms * size)


def test_spectra_that_share_tables(solve: Emulated, rng: np.random.Generator) -> None:
    tables = rng.random((4, 5, 7)) + 0.1
    spectra = np.einsum("pde,peb->pdb", rng.dirichlet(np.ones(5), (4, 3)), tables)
    spectra += rng.normal(0, 0.02, spectra.shape)
    spectra[1, 2, 3] = np.nan
    for weights in (None, rng.random(7), rng.random((4, 7))):
        options: dict[str, Any] = {"sum_to_one": True, "weights": weights}
        assert_same(solve(spectra, tables, **options), nnls(spectra, tables, **options))
    assert [part.shape for part in solve(spectra[:, :0], tables)] == [(4, 0, 5), (4, 0), (4, 0)]


def assert_same(got: Unmixing, want: Unmixing) -> None:
    """The flags and, where the data decide, the answer."""
    np.testing.assert_array_equal(got.flags, want.flags)
    np.testing.assert_allclose(got.residual, want.residual, rtol=1e-9, atol=1e-12)
    decided = want.flags == 0
    np.testing.assert_allclose(got.abundances[decided], want.abundances[decided], rtol=1e-9, atol=1e-11)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(problems(max_endmembers=14))
def test_is_optimal_and_flagged_as_by_the_cpu(solve: Emulated, case: Case) -> None:
    got = solve(*case[:2], **case[2])
    cupy_on_host.forget()
    assert_optimal(case, got)
    np.testing.assert_array_equal(got.flags, nnls(*case[:2], **case[2]).flags)


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize(
    ("channels", "count"),
    [(1, 1), (6, 1), (3, 4), (6, 6), (3, 8), (7, 12), (12, 12), (9, 13), (40, 32), (70, 5)],
)
def test_a_shared_table(solve: Emulated, channels: int, count: int, total: bool) -> None:
    spectra, endmembers, _ = mixtures(90, count, channels, noise=0.05)
    spectra[1] = 0
    spectra[2] = np.nan
    spectra[3::9, 0] = np.nan
    weights = np.linspace(0.5, 2, channels)
    weights[channels // 2] = 0 if channels > 3 else 1
    options = {"sum_to_one": total, "weights": weights}
    got = solve(spectra, endmembers, **options)
    assert_optimal((spectra, endmembers, options), got)
    assert_same(got, nnls(spectra, endmembers, sum_to_one=total, weights=weights))


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("kind", ["random", "twins", "collinear", "zero", "scaled", "black"])
@pytest.mark.parametrize(("channels", "count"), [(7, 8), (12, 4), (2, 16), (90, 6)])
def test_tables_and_weights_of_their_own(
    solve: Emulated, rng: np.random.Generator, kind: str, channels: int, count: int, total: bool
) -> None:
    tables = rng.random((8, count, channels)) + 0.1
    if kind == "twins":
        tables[:, -1] = tables[:, 0]
    elif kind == "collinear":
        tables[:, -1] = tables[:, 0] + tables[:, count // 2] * (1 + 1e-9)
    elif kind == "zero":
        tables[:, 0] = 0
    elif kind == "scaled":
        tables *= 10.0 ** rng.integers(-3, 3, (8, count, 1))
    spectra = np.einsum("pe,peb->pb", rng.dirichlet(np.ones(count), 8), tables)
    spectra = 0 * spectra if kind == "black" else spectra + rng.normal(0, 0.02, spectra.shape)
    spectra[rng.random(spectra.shape) < 0.2] = np.nan
    weights = rng.random(spectra.shape) * 4
    weights[5] = 0
    for ridge in (0.0, 0.01):
        options: dict[str, Any] = {"sum_to_one": total, "weights": weights, "ridge": ridge}
        got = solve(spectra, tables, **options)
        assert_optimal((spectra, tables, options), got)
        np.testing.assert_array_equal(got.flags, nnls(spectra, tables, **options).flags)


@pytest.mark.parametrize("total", [False, True])
def test_operators_agree_with_the_exact_solver(solve: Emulated, total: bool) -> None:
    spectra, endmembers, _ = mixtures(200, 6, 6, noise=0.3)
    got = solve(spectra, endmembers, sum_to_one=total)
    assert_same(got, solve(spectra, endmembers, sum_to_one=total, ridge=NO_RIDGE_IN_DOUBLE))


def test_no_order_of_blocks_and_threads_and_no_batch_changes_a_bit(solve: Emulated) -> None:
    spectra, endmembers, _ = mixtures(300, 8, 3, noise=0.05)
    spectra[::7, 1] = np.nan
    found = []
    for order in (0, 1, 5):
        with cupy_on_host.ordered(order):
            found.append(solve(spectra, endmembers))
    assert len({bytes_of(result) for result in found}) == 1
    for p in (0, 8, 299):
        alone = solve(spectra[p : p + 1], endmembers)
        assert bytes_of(alone) == bytes_of(part_of(found[0], slice(p, p + 1)))


def test_more_spectra_than_a_launch_takes(
    solve: Emulated, cupy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectra, endmembers, _ = mixtures(100, 4, 6, noise=0.05)
    spectra[::5, 2] = np.nan
    want = bytes_of(solve(spectra, endmembers))
    monkeypatch.setattr(cuda, "TOGETHER", 32)
    monkeypatch.setattr(cuda, "SCRATCH_BYTES", 0)
    monkeypatch.setattr(cupy.cuda.Device, "attributes", {"MultiProcessorCount": 1})
    assert bytes_of(solve(spectra, endmembers)) == want


@pytest.mark.parametrize("ridge", [1e-9, 4e-5, 1e-2])
@pytest.mark.parametrize("long_share", [0.0, 1e-6, 0.3])
def test_a_small_ridge_decides_beside_a_long_column(
    solve: Emulated, rng: np.random.Generator, ridge: float, long_share: float
) -> None:
    table = np.stack([rng.uniform(40, 100, 5), rng.uniform(20, 70, 5), rng.uniform(0, 0.5, 5)], axis=1)
    table[0, 2] = 3e5
    shares = np.append(long_share, rng.dirichlet(np.full(4, 0.5)) * (1 - long_share))
    spectrum = shares @ table + rng.normal(size=3)
    got = solve(spectrum[None], table, sum_to_one=True, ridge=ridge)
    np.testing.assert_allclose(got.abundances[0], exact(table, spectrum, ridge), atol=1e-10)


@pytest.mark.parametrize("channels", [6, 70])
def test_the_range_of_double(solve: Emulated, channels: int) -> None:
    spectra, endmembers, _ = mixtures(10, 4, channels, noise=0.1)
    want = nnls(spectra, endmembers)
    for scale in (2.0**-600, 2.0**-20, 2.0**600):
        got = solve(spectra * scale, endmembers * scale)
        np.testing.assert_allclose(got.abundances, want.abundances, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(got.residual, want.residual * scale, rtol=1e-9)
    beyond = solve(np.full((1, channels), 1e200), np.ones((2, channels)), weights=np.full(channels, 1e300))
    assert beyond.flags[0] == UnmixingFlag.NOT_CONVERGED
    assert np.isnan(beyond.abundances).all() and np.isnan(beyond.residual).all()


def test_sum_is_exact_far_from_the_hull_and_next_to_it(solve: Emulated) -> None:
    endmembers = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    spectra = np.array([[1e6, 1e6 + 0.5, 1.0], [0.25, 0.25, 1 + 1e-12]])
    for ridge in (0.0, NO_RIDGE_IN_DOUBLE):
        got = solve(spectra, endmembers, sum_to_one=True, ridge=ridge)
        np.testing.assert_allclose(got.abundances, [[0, 0.25, 0.75], [0.5, 0.25, 0.25]], atol=1e-9)


def test_no_spectra(solve: Emulated) -> None:
    for endmembers in (np.ones((2, 3)), np.ones((0, 2, 3))):
        assert [part.shape for part in solve(np.empty((0, 3)), endmembers)] == [(0, 2), (0,), (0,)]


def test_views_an_own_output_and_a_stream(cupy: ModuleType) -> None:
    spectra, endmembers, _ = mixtures(10, 3, 8, noise=0.1)
    parts: Any = cupy.empty((10, 3)), cupy.empty(10), cupy.empty(10, np.uint8)
    out, stream = Unmixing(*parts), cupy.cuda.Stream(non_blocking=True)
    shown = cupy.asarray(spectra)[:, ::2], cupy.asarray(endmembers)[:, ::2]
    assert nnls(*shown, out=out, stream=stream) is out
    assert stream.entered > 0
    assert_same(Unmixing(*(part.get() for part in parts)), nnls(spectra[:, ::2], endmembers[:, ::2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"spectra": np.full((4, 3), np.inf)},
            r"spectra: expected finite values or NaN, got inf at \[0, 0\]",
        ),
        ({"endmembers": np.full((2, 3), np.nan)}, "endmembers: expected finite values, got nan"),
        ({"weights": np.array([1.0, -1, 1])}, r"weights: expected finite values from 0, got -1.0 at \[1\]"),
        ({"endmembers": np.zeros((5, 2, 3))}, r"endmembers: expected float64 \[4, \*, 3\]"),
        ({"weights": np.zeros((3, 3))}, r"weights: expected float64 \[4, 3\]"),
        ({"ridge": -1.0}, "ridge: expected a finite number from 0, got -1.0"),
    ],
)
def test_contract(solve: Emulated, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"spectra": np.zeros((4, 3)), "endmembers": np.zeros((2, 3))} | change
    with pytest.raises(ContractError, match=message):
        solve(**arguments)


def test_arrays_on_two_devices(cupy: ModuleType) -> None:
    with pytest.raises(DeviceMismatchError, match="spectra on cuda:0, endmembers on host"):
        nnls(cupy.zeros((4, 3)), np.zeros((2, 3)))
    with pytest.raises(ContractError, match=r"out.abundances: expected float64 \[4, 2\]"):
        parts: Any = cupy.empty((4, 3)), cupy.empty(4), cupy.empty(4, np.uint8)
        nnls(cupy.zeros((4, 3)), cupy.zeros((2, 3)), out=Unmixing(*parts))
