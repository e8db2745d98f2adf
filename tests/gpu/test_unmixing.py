"""Unmixing on a GPU: the host's answers within 1e-9 wherever the data decide, and the same bits each time."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.kernels.unmixing import Unmixing, nnls
from tests.kernels.test_unmixing import bytes_of, mixtures

PROBLEMS = 100_000

Floats = npt.NDArray[np.float64]


def on(gpu: ModuleType, spectra: Floats, endmembers: Floats, **options: Any) -> Unmixing:
    options = {k: gpu.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    found: Any = nnls(gpu.asarray(spectra), gpu.asarray(endmembers), **options)
    return Unmixing(*(part.get() for part in found))


def assert_same(got: Unmixing, want: Unmixing) -> None:
    """A flag may differ where a gradient meets its tolerance but for rounding: one in a hundred thousand."""
    same = got.flags == want.flags
    assert (~same).sum() <= same.size // 100_000
    np.testing.assert_allclose(got.residual[same], want.residual[same], rtol=1e-9, atol=1e-11)
    decided = same & (want.flags == 0)
    np.testing.assert_allclose(got.abundances[decided], want.abundances[decided], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (6, 6), (3, 8), (8, 8), (3, 12), (12, 12), (40, 9)])
def test_a_shared_table(gpu: ModuleType, shape: tuple[int, int], total: bool) -> None:
    spectra, endmembers, _ = mixtures(PROBLEMS, shape[1], shape[0], noise=0.05)
    spectra[::17, 1] = np.nan
    spectra[5] = np.nan
    want = nnls(spectra, endmembers, sum_to_one=total)
    assert_same(on(gpu, spectra, endmembers, sum_to_one=total), want)


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
@pytest.mark.parametrize(("rows", "channels", "count"), [(PROBLEMS, 7, 8), (20_000, 12, 12), (500, 90, 32)])
def test_tables_and_weights_of_their_own(
    gpu: ModuleType, rng: np.random.Generator, rows: int, channels: int, count: int, ridge: float, total: bool
) -> None:
    tables = rng.random((rows, count, channels)) + 0.1
    spectra = np.einsum("pe,peb->pb", rng.dirichlet(np.ones(count), rows), tables)
    spectra += rng.normal(0, 0.02, spectra.shape)
    spectra[rng.random(spectra.shape) < 0.15] = np.nan
    options: dict[str, Any] = {"sum_to_one": total, "ridge": ridge, "weights": rng.random(spectra.shape) * 4}
    assert_same(on(gpu, spectra, tables, **options), nnls(spectra, tables, **options))


def test_spectra_that_share_tables(gpu: ModuleType, rng: np.random.Generator) -> None:
    tables = rng.random((1000, 5, 8)) + 0.1
    spectra = np.einsum("pde,peb->pdb", rng.dirichlet(np.ones(5), (1000, 48)), tables)
    spectra += rng.normal(0, 0.02, spectra.shape)
    got, want = on(gpu, spectra, tables, sum_to_one=True), nnls(spectra, tables, sum_to_one=True)
    assert got.abundances.shape == want.abundances.shape
    assert_same(got, want)


def test_the_same_bits_each_time_on_an_own_stream(gpu: ModuleType) -> None:
    spectra, endmembers, _ = mixtures(PROBLEMS, 8, 3, noise=0.05)
    spectra[::7, 1] = np.nan
    stream, found = gpu.cuda.Stream(non_blocking=True), set()
    with stream:  # so that the copies come before the kernels
        given: Any = gpu.asarray(spectra), gpu.asarray(endmembers)
        parts: Any = gpu.empty((PROBLEMS, 8)), gpu.empty(PROBLEMS), gpu.empty(PROBLEMS, np.uint8)
    out = Unmixing(*parts)
    for _ in range(10):
        assert nnls(*given, out=out, stream=stream) is out
        stream.synchronize()
        found.add(bytes_of(Unmixing(*(part.get() for part in parts))))
    assert len(found) == 1
