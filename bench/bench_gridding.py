"""Inverse distance weighting beside a k-d tree that is asked for the neighbours of each cell."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ceiling import gpu_seconds
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import idw
from lithostream.kernels.gridding import Grid

POINTS, SIDE, K = 7234, 1024, 12
CHANNELS = [1, 16]
CHUNK = 256  # rows, so that the peers' tables of neighbours stay small
GPU_SIDE = 3072
GPU_CHUNK = 1 << 16  # cells, so that the distances of a chunk stay below 2 GB
GRID = Grid(0.5, 0.5, 1, 1, SIDE, SIDE)

Floats = npt.NDArray[np.float64]


def problem(channels: int, side: int = SIDE) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    centres = rng.random((60, 2))
    clustered = centres[rng.integers(0, 60, POINTS // 2)] + rng.normal(0, 0.03, (POINTS // 2, 2))
    points = np.concatenate([clustered, rng.random((POINTS - POINTS // 2, 2))])
    return points * side, rng.normal(size=(POINTS, channels))


def moved(points: Floats, values: Floats, side: int) -> int:
    """Bytes that must be read and written."""
    channels = len(values[0])
    return 8 * (points.size + values.size) + 4 * channels * side * side


def by_tree(tree: Any, values: Floats, **options: int) -> tuple[npt.NDArray[np.float32], Floats]:
    """Raster and gap between the K-th and the next distance."""
    out, gap = np.empty((values.shape[1], SIDE, SIDE), np.float32), np.empty((SIDE, SIDE))
    x = np.arange(SIDE) + 0.5
    for first in range(0, SIDE, CHUNK):
        cells = np.stack(np.meshgrid(x, x[first : first + CHUNK]), axis=-1).reshape(-1, 2)
        distance, index = tree.query(cells, k=K + 1, **options)
        weight = distance[:, :K] ** -2
        weight /= weight.sum(axis=1, keepdims=True)
        part = (weight[:, None] @ values[index[:, :K]])[:, 0]
        out[:, first : first + CHUNK] = part.T.reshape(-1, CHUNK, SIDE)
        gap[first : first + CHUNK] = (distance[:, K] - distance[:, K - 1]).reshape(CHUNK, SIDE)
    return out, gap


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.benchmark(group="idw")
def bench_idw(benchmark: BenchmarkFixture, channels: int) -> None:
    points, values = problem(channels)
    benchmark.extra_info["bytes"] = moved(points, values, SIDE)
    found = benchmark(idw, points, values, GRID, k=K)
    spatial = pytest.importorskip("scipy.spatial", reason="peer: pip install 'lithostream[dev]'")
    want, gap = by_tree(spatial.cKDTree(points), values)
    assert np.abs(found - want)[:, gap > 1e-9].max() < 1e-4


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.benchmark(group="idw")
def bench_idw_peer_scipy(benchmark: BenchmarkFixture, channels: int) -> None:
    spatial = pytest.importorskip("scipy.spatial", reason="peer: pip install 'lithostream[dev]'")
    points, values = problem(channels)
    benchmark(lambda: by_tree(spatial.cKDTree(points), values, workers=-1))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.benchmark(group="idw")
def bench_idw_peer_pykdtree(benchmark: BenchmarkFixture, channels: int) -> None:
    pytest.importorskip("pykdtree", reason="peer: pip install pykdtree")
    tree = importlib.import_module("pykdtree.kdtree").KDTree
    points, values = problem(channels)
    benchmark(lambda: by_tree(tree(points), values))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.benchmark(group="idw")
def bench_idw_gpu(benchmark: BenchmarkFixture, gpu: ModuleType, channels: int) -> None:
    points, values = problem(channels, GPU_SIDE)
    grid = Grid(0.5, 0.5, 1, 1, GPU_SIDE, GPU_SIDE)
    given: Any = (gpu.asarray(points), gpu.asarray(values), grid)
    out = gpu.empty((channels, GPU_SIDE, GPU_SIDE), np.float32)

    def run() -> None:
        idw(*given, k=K, out=out)
        gpu.cuda.get_current_stream().synchronize()

    run()
    np.testing.assert_array_equal(
        out.get()[:, ::64], idw(points, values, Grid(0.5, 0.5, 1, 64, GPU_SIDE, 48), k=K)
    )
    benchmark.extra_info["bytes"] = moved(points, values, GPU_SIDE)
    benchmark.extra_info["gpu_s"] = gpu_seconds(gpu, run)
    benchmark(run)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.benchmark(group="idw")
def bench_idw_gpu_peer_torch(benchmark: BenchmarkFixture, channels: int) -> None:
    torch = pytest.importorskip("torch", reason="peer: pip install 'lithostream[train]'")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device and a build of PyTorch for it")
    points, values = (
        torch.tensor(array, dtype=torch.float32).cuda() for array in problem(channels, GPU_SIDE)
    )
    x = torch.arange(GPU_SIDE, device="cuda") + 0.5
    cells = torch.cartesian_prod(x, x).flip(1)
    out = torch.empty(channels, len(cells), device="cuda")

    def run() -> None:
        for first in range(0, len(cells), GPU_CHUNK):
            part = slice(first, first + GPU_CHUNK)
            distance, index = torch.cdist(cells[part], points).topk(K, largest=False)
            weight = distance.clamp_min(1e-9) ** -2
            weight /= weight.sum(dim=1, keepdim=True)
            out[:, part] = torch.einsum("nk,nkc->cn", weight, values[index])
        torch.cuda.synchronize()

    benchmark(run)
