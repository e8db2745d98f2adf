"""Batched NNLS beside a loop over `scipy.optimize.nnls`."""

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import nnls

PROBLEMS = 2000
SHAPES = [(3, 4), (3, 12), (6, 6), (12, 12)]

Floats = npt.NDArray[np.float64]


def problem(channels: int, endmembers: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    table = rng.random((endmembers, channels)) + 0.1
    return rng.dirichlet(np.ones(endmembers), PROBLEMS) @ table + 0.02 * rng.standard_normal(
        (PROBLEMS, channels)
    ), table


def scipy_loop(spectra: Floats, table: Floats) -> Floats:
    optimize = pytest.importorskip("scipy.optimize", reason="peer: pip install 'lithostream[dev]'")
    return np.array([optimize.nnls(table.T, spectrum)[1] for spectrum in spectra])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.benchmark(group="nnls")
def bench_nnls(benchmark: BenchmarkFixture, shape: tuple[int, int]) -> None:
    spectra, table = problem(*shape)
    found = benchmark(nnls, spectra, table)
    assert np.allclose(found.residual, scipy_loop(spectra, table), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.benchmark(group="nnls")
def bench_nnls_peer_scipy(benchmark: BenchmarkFixture, shape: tuple[int, int]) -> None:
    spectra, table = problem(*shape)
    benchmark(scipy_loop, spectra, table)
