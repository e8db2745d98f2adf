"""Inverse distance weighting beside a k-d tree that is asked for the neighbours of each cell."""

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import idw
from lithostream.kernels.gridding import Grid

POINTS, SIDE, K = 7234, 1024, 12
CHANNELS = [1, 16]
CHUNK = 256  # rows, so that the peers' tables of neighbours stay small
GRID = Grid(0.5, 0.5, 1, 1, SIDE, SIDE)

Floats = npt.NDArray[np.float64]


def problem(channels: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(1)
    centres = rng.random((60, 2))
    clustered = centres[rng.integers(0, 60, POINTS // 2)] + rng.normal(0, 0.03, (POINTS // 2, 2))
    points = np.concatenate([clustered, rng.random((POINTS - POINTS // 2, 2))])
    return points * SIDE, rng.normal(size=(POINTS, channels))


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
