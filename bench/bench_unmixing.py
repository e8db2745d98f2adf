"""Batched NNLS beside a loop over `scipy.optimize.nnls`: one table for all, tables of their own, whole patterns."""

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from ceiling import gpu_seconds
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import nnls

PROBLEMS = 2000
SHAPES = [(3, 4), (3, 12), (6, 6), (12, 12)]
OWN_CHANNELS, OWN_ENDMEMBERS, MISSING = 7, 8, 0.15
DRAWS, TABLES = 48, 100
PATTERNS, ANGLES, PHASES = 96, 2901, 9
# Height of the row that demands the sum, per largest value: what a solver without constraints needs.
SUM_ROW = 1e6

GPU_PROBLEMS = 1_000_000

Floats = npt.NDArray[np.float64]


class Mixtures(NamedTuple):
    spectra: Floats  # [P, B] or [P, D, B]
    tables: Floats  # [E, B] or [P, E, B]
    weights: Floats | None = None  # [P, B]

    @property
    def bytes(self) -> int:
        """Read once and written once."""
        weights = 0 if self.weights is None else self.weights.nbytes
        written = self.spectra[..., 0].size * (8 * self.tables.shape[-2] + 9)
        moved: int = self.spectra.nbytes + self.tables.nbytes + weights + written
        return moved


def shared(channels: int, endmembers: int, problems: int = PROBLEMS) -> Mixtures:
    rng = np.random.default_rng(1)
    table = rng.random((endmembers, channels)) + 0.1
    spectra = rng.dirichlet(np.ones(endmembers), problems) @ table
    return Mixtures(spectra + 0.02 * rng.standard_normal(spectra.shape), table)


def own() -> Mixtures:
    """Equations of the minerals stage: tables and weights of their own, gaps, shares that add up to 1."""
    rng = np.random.default_rng(3)
    tables = rng.random((PROBLEMS, OWN_ENDMEMBERS, OWN_CHANNELS)) + 0.1
    shares = rng.dirichlet(np.full(OWN_ENDMEMBERS, 0.5), PROBLEMS)
    spectra = np.einsum("pe,peb->pb", shares, tables) + 0.02 * rng.standard_normal((PROBLEMS, OWN_CHANNELS))
    spectra[rng.random(spectra.shape) < MISSING] = np.nan
    return Mixtures(spectra, tables, rng.random(spectra.shape) * 4 + 0.1)


def several() -> Mixtures:
    """Intervals of the minerals stage: draws of the right side, and a prior, on the equations of one segment."""
    rng = np.random.default_rng(4)
    tables = np.concatenate(
        [20 * rng.random((TABLES, 5, 3)), np.broadcast_to(4 * np.eye(5), (TABLES, 5, 5))], axis=2
    )
    spectra = np.einsum("pde,peb->pdb", rng.dirichlet(np.full(5, 0.5), (TABLES, DRAWS)), tables)
    return Mixtures(spectra + rng.standard_normal(spectra.shape), tables)


def patterns() -> Mixtures:
    """Powder patterns: some ten peaks a phase on a slope, counted."""
    rng = np.random.default_rng(5)
    angle = np.linspace(5.5, 63.5, ANGLES)
    centre, height = rng.uniform(6, 63, (PHASES, 12, 1)), rng.gamma(1, 3000, (PHASES, 12, 1))
    table = (height * np.exp(-(((angle - centre) / 0.1) ** 2))).sum(axis=1) + 200 * np.exp(-angle / 20)
    clean = rng.dirichlet(np.ones(PHASES), PATTERNS) @ table
    return Mixtures(rng.poisson(clean).astype(np.float64), table)


def scipy_loop(spectra: Floats, table: Floats) -> Floats:
    optimize = pytest.importorskip("scipy.optimize", reason="peer: pip install 'lithostream[dev]'")
    return np.array([optimize.nnls(table.T, spectrum)[1] for spectrum in spectra])


def scipy_own_loop(spectra: Floats, tables: Floats, weights: Floats) -> Floats:
    optimize = pytest.importorskip("scipy.optimize", reason="peer: pip install 'lithostream[dev]'")
    shares = np.full(tables.shape[:2], np.nan)
    for p, (spectrum, table) in enumerate(zip(spectra, tables, strict=True)):
        measured = ~np.isnan(spectrum)
        if not measured.any():
            continue
        root = np.sqrt(weights[p, measured])
        rows = np.empty((len(root) + 1, len(table)))
        rows[:-1] = (table[:, measured] * root).T
        height = SUM_ROW * rows[:-1].max()
        rows[-1] = height
        shares[p] = optimize.nnls(rows, np.append(spectrum[measured] * root, height))[0]
    return shares


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.benchmark(group="nnls")
def bench_nnls(benchmark: BenchmarkFixture, shape: tuple[int, int]) -> None:
    mixtures = shared(*shape)
    benchmark.extra_info["bytes"] = mixtures.bytes
    found = benchmark(nnls, mixtures.spectra, mixtures.tables)
    assert np.allclose(found.residual, scipy_loop(*mixtures[:2]), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.benchmark(group="nnls")
def bench_nnls_peer_scipy(benchmark: BenchmarkFixture, shape: tuple[int, int]) -> None:
    benchmark(scipy_loop, *shared(*shape)[:2])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.benchmark(group="nnls gpu")
def bench_nnls_gpu(benchmark: BenchmarkFixture, gpu: ModuleType, shape: tuple[int, int]) -> None:
    mixtures = shared(*shape, GPU_PROBLEMS)
    spectra, table = gpu.asarray(mixtures.spectra), gpu.asarray(mixtures.tables)
    benchmark.extra_info["bytes"] = mixtures.bytes
    out: Any = nnls(spectra, table)

    def solve() -> None:
        nnls(spectra, table, out=out)
        gpu.cuda.get_current_stream().synchronize()

    benchmark(solve)
    benchmark.extra_info["gpu_s"] = gpu_seconds(gpu, solve)
    few = slice(0, PROBLEMS)
    host = nnls(mixtures.spectra[few], mixtures.tables)
    assert np.allclose(out.residual[few].get(), host.residual, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.benchmark(group="nnls gpu")
def bench_nnls_gpu_peer_copy(benchmark: BenchmarkFixture, gpu: ModuleType, shape: tuple[int, int]) -> None:
    """A copy on the device that moves as many bytes: the ceiling."""
    channels, endmembers = shape
    source = gpu.zeros(GPU_PROBLEMS * (8 * channels + 8 * endmembers + 9) // 2, np.uint8)
    target = gpu.empty_like(source)

    def copy() -> None:
        target[...] = source
        gpu.cuda.get_current_stream().synchronize()

    benchmark(copy)
    assert not target[-1:].get().any()


@pytest.mark.benchmark(group="nnls own")
def bench_nnls_own(benchmark: BenchmarkFixture) -> None:
    mixtures = own()
    channels, count = OWN_CHANNELS, OWN_ENDMEMBERS
    benchmark.extra_info["bytes"] = mixtures.bytes
    # Gram matrix, four steps of factor, two solutions and gradient, then the proof on the rows.
    step = count**3 / 3 + 6 * count**2
    proof = 4 * channels * count + count**3 / 3 + 2 * channels * count**2
    benchmark.extra_info["operations"] = PROBLEMS * (2 * channels * count**2 + 4 * step + proof)
    found = benchmark(nnls, mixtures.spectra, mixtures.tables, weights=mixtures.weights, sum_to_one=True)
    decided = found.flags == 0
    assert decided.sum() > PROBLEMS / 2
    assert mixtures.weights is not None
    peer = scipy_own_loop(mixtures.spectra, mixtures.tables, mixtures.weights)
    assert np.allclose(found.abundances[decided], peer[decided], atol=1e-5)


@pytest.mark.benchmark(group="nnls own")
def bench_nnls_own_peer_scipy(benchmark: BenchmarkFixture) -> None:
    mixtures = own()
    benchmark(scipy_own_loop, *mixtures)


@pytest.mark.benchmark(group="nnls several")
def bench_nnls_several(benchmark: BenchmarkFixture) -> None:
    mixtures = several()
    benchmark.extra_info["bytes"] = mixtures.bytes
    found = benchmark(nnls, mixtures.spectra, mixtures.tables, sum_to_one=True)
    assert not found.flags.any()
    peer = scipy_own_loop(*flat(mixtures))
    assert np.allclose(found.abundances.reshape(peer.shape), peer, atol=1e-5)


@pytest.mark.benchmark(group="nnls several")
def bench_nnls_several_peer_scipy(benchmark: BenchmarkFixture) -> None:
    benchmark(scipy_own_loop, *flat(several()))


@pytest.mark.benchmark(group="nnls several")
def bench_nnls_several_peer_tables(benchmark: BenchmarkFixture) -> None:
    """Ourselves, without knowing that spectra share a table."""
    benchmark(nnls, *flat(several())[:2], sum_to_one=True)


def flat(mixtures: Mixtures) -> tuple[Floats, Floats, Floats]:
    """Spectra, tables and weights as if each spectrum had a table of its own."""
    spectra = mixtures.spectra.reshape(-1, mixtures.spectra.shape[-1])
    return spectra, np.repeat(mixtures.tables, DRAWS, axis=0), np.ones(spectra.shape)


@pytest.mark.benchmark(group="nnls patterns")
def bench_nnls_patterns(benchmark: BenchmarkFixture) -> None:
    mixtures = patterns()
    benchmark.extra_info["bytes"] = mixtures.bytes
    benchmark.extra_info["operations"] = 4 * PATTERNS * ANGLES * PHASES
    found = benchmark(nnls, mixtures.spectra, mixtures.tables)
    assert np.allclose(found.residual, scipy_loop(*mixtures[:2]), rtol=1e-9)


@pytest.mark.benchmark(group="nnls patterns")
def bench_nnls_patterns_peer_scipy(benchmark: BenchmarkFixture) -> None:
    benchmark(scipy_loop, *patterns()[:2])
