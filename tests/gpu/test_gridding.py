"""Rasters on a GPU: the bits of the host with power 2, else within the last bit of float32."""

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from lithostream.kernels import idw
from lithostream.kernels.gridding import Grid

Floats = npt.NDArray[np.float64]
GRID = Grid(-5.0, 104.0, 0.31, -0.29, 381, 367)


def scattered(rng: np.random.Generator, count: int, channels: int) -> tuple[Floats, Floats]:
    tight = rng.random((5, 2))[rng.integers(0, 5, count // 2)] + rng.normal(0, 0.02, (count // 2, 2))
    points = np.concatenate([tight, rng.random((count - count // 2, 2))]) * 100
    return points, rng.normal(size=(count, channels)) * 10


def on(gpu: ModuleType, points: Any, values: Any, grid: Grid, **options: Any) -> npt.NDArray[np.float32]:
    found: Any = idw(gpu.asarray(points), gpu.asarray(values), grid, **options)
    host: npt.NDArray[np.float32] = found.get()
    return host


@pytest.mark.parametrize("channels", [1, 3, 16, 20])
@pytest.mark.parametrize("k", [1, 5, 12, 13, 40])
@pytest.mark.parametrize("radius", [None, 6.0])
def test_equals_the_host_to_the_bit(
    gpu: ModuleType, rng: np.random.Generator, channels: int, k: int, radius: float | None
) -> None:
    points, values = scattered(rng, 900, channels)
    want = idw(points, values, GRID, k=k, radius=radius)
    np.testing.assert_array_equal(on(gpu, points, values, GRID, k=k, radius=radius), want)


@pytest.mark.parametrize("k", [6, 40, None])
def test_equals_the_host_among_ties_and_gaps(
    gpu: ModuleType, rng: np.random.Generator, k: int | None
) -> None:
    points, values = scattered(rng, 900, 3)
    points = np.round(points / 4) * 4
    values[rng.random(values.shape) < 0.3] = np.nan
    grid = Grid(0, 0, 1, 2, 100, 51)
    np.testing.assert_array_equal(on(gpu, points, values, grid, k=k), idw(points, values, grid, k=k))


@pytest.mark.parametrize("power", [0.5, 1.0, 3.7, 300.0])
def test_other_powers(gpu: ModuleType, rng: np.random.Generator, power: float) -> None:
    points, values = scattered(rng, 900, 2)
    want = idw(points, values, GRID, power=power)
    np.testing.assert_allclose(on(gpu, points, values, GRID, power=power), want, rtol=2e-7, atol=1e-12)


def test_more_points_than_room(gpu: ModuleType, rng: np.random.Generator) -> None:
    points, values = rng.normal(50, 1e-3, (20_000, 2)), rng.normal(size=(20_000, 2))
    grid = Grid(0, 0, 1.5, 1.5, 70, 70)
    np.testing.assert_array_equal(on(gpu, points, values, grid), idw(points, values, grid))


def test_the_same_bits_each_time_on_an_own_stream(gpu: ModuleType, rng: np.random.Generator) -> None:
    points, values = (gpu.asarray(array) for array in scattered(rng, 7000, 4))
    out: Any = gpu.empty((4, 1000, 1100), np.float32)
    stream, found = gpu.cuda.Stream(non_blocking=True), set()
    gpu.cuda.Device().synchronize()  # the copies were queued elsewhere
    for _ in range(10):
        with stream:
            out.fill(0)
        filled: Any = idw(points, values, Grid(0, 0, 0.1, 0.1, 1100, 1000), out=out, stream=stream)
        assert filled is out
        stream.synchronize()
        found.add(out.get().tobytes())
    assert len(found) == 1


@pytest.mark.realdata
def test_equals_the_raster_of_qgis(gpu: ModuleType, data_dir: Callable[[str], Path]) -> None:
    folder = data_dir("gtk-eis") / "interpolating"
    path = folder / "interpolation_test_data_small.gpkg"
    rows = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True).execute(
        "SELECT geom, value FROM interpolation_test_data_small ORDER BY fid"
    )
    found = [(*struct.unpack("<dd", place[-16:]), value) for place, value in rows]  # WKB: x, y come last
    table = np.array(found)
    with tifffile.TiffFile(folder / "idw_result_qgis.tif") as tif:
        page = tif.pages.first
        (dx, dy, _), tie = page.tags["ModelPixelScaleTag"].value, page.tags["ModelTiepointTag"].value
        raster = page.asarray()
    height, width = raster.shape
    grid = Grid(tie[3] + dx / 2, tie[4] - dy / 2, dx, -dy, width, height)
    got = on(gpu, table[:, :2].copy(), table[:, 2:].copy(), grid, k=None)[0]
    np.testing.assert_allclose(got, raster, rtol=2e-7)  # the file holds eight digits
