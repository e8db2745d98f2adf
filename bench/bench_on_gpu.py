"""Kernels that memory bounds, on a GPU: beside a copy of the same bytes (`python bench/ceiling.py RUN`)."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ceiling import gpu_seconds
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.engine.core.synthetic import generate
from lithostream.kernels import core_roi, segment_stats, slic, tiles

HEIGHT, WIDTH = 20_000, 2_000
SLIC: dict[str, Any] = {"n_segments": 20_000, "compactness": 10.0}  # of 2,000 px each
CHANNELS = 6

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def core(gpu: ModuleType) -> Bytes:
    """A core of 40 megapixels."""
    return generate(7, length_cm=HEIGHT / 250, width_cm=WIDTH / 250, px_per_cm=250).image


def timed(benchmark: BenchmarkFixture, gpu: ModuleType, moved: int, work: Callable[[], object]) -> None:
    def whole() -> None:
        work()
        gpu.cuda.get_current_stream().synchronize()

    benchmark(whole)
    benchmark.extra_info["bytes"] = moved
    benchmark.extra_info["gpu_s"] = gpu_seconds(gpu, work)


@pytest.mark.benchmark(group="gpu")
def bench_core_roi_gpu(benchmark: BenchmarkFixture, gpu: ModuleType, core: Bytes) -> None:
    image, out = gpu.asarray(core), gpu.empty((HEIGHT, WIDTH), np.bool_)
    timed(benchmark, gpu, 4 * out.nbytes, lambda: core_roi(image, crack_px=75, min_piece_px=250, out=out))
    np.testing.assert_array_equal(out.get(), core_roi(core, crack_px=75, min_piece_px=250).mask)


@pytest.mark.parametrize("size", [200, 224])
@pytest.mark.benchmark(group="gpu")
def bench_tiles_gpu(benchmark: BenchmarkFixture, gpu: ModuleType, core: Bytes, size: int) -> None:
    edges = np.arange(0, HEIGHT + 1, 200), np.arange(0, WIDTH + 1, 200)
    image, out = gpu.asarray(core), gpu.empty((100, 10, size, size, 3), np.uint8)
    timed(benchmark, gpu, core.nbytes + out.nbytes, lambda: tiles(image, *edges, size, out=out))
    np.testing.assert_array_equal(out.get(), tiles(core, *edges, size))


@pytest.mark.benchmark(group="gpu")
def bench_slic_gpu(benchmark: BenchmarkFixture, gpu: ModuleType, core: Bytes) -> None:
    image, out = gpu.asarray(core), gpu.empty((HEIGHT, WIDTH), np.int32)
    timed(benchmark, gpu, image.nbytes + out.nbytes, lambda: slic(image, out=out, **SLIC))
    benchmark.extra_info["pixels_per_s"] = out.size / benchmark.extra_info["gpu_s"]
    np.testing.assert_array_equal(out.get(), slic(core, **SLIC))


@pytest.mark.benchmark(group="gpu")
def bench_segments_gpu(benchmark: BenchmarkFixture, gpu: ModuleType, core: Bytes) -> None:
    labels = slic(gpu.asarray(core), **SLIC)
    channels = gpu.asarray(np.repeat(core, CHANNELS // 3, axis=2).astype(np.float32))
    out: Any = segment_stats(labels, channels)
    moved = labels.nbytes + channels.nbytes
    timed(benchmark, gpu, moved, lambda: segment_stats(labels, channels, out=out))
    want = segment_stats(gpu.asnumpy(labels), gpu.asnumpy(channels))
    np.testing.assert_allclose(gpu.asnumpy(out.mean), want.mean, rtol=1e-12)
