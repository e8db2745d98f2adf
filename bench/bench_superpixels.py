"""SLIC beside `skimage.segmentation.slic` on one window of a generated core."""

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.engine.core.synthetic import generate
from lithostream.kernels import slic

SEGMENTS = 400


@pytest.fixture(scope="module")
def window() -> npt.NDArray[np.uint8]:
    return generate(1, length_cm=60, width_cm=8, px_per_cm=60).image[600:1560].copy()


@pytest.mark.benchmark(group="slic")
def bench_slic(benchmark: BenchmarkFixture, window: npt.NDArray[np.uint8]) -> None:
    labels = benchmark(slic, window, n_segments=SEGMENTS, compactness=10.0)
    assert labels.min() == 1
    assert 0.5 * SEGMENTS < labels.max() < 3 * SEGMENTS


@pytest.mark.benchmark(group="slic")
def bench_slic_peer_skimage(benchmark: BenchmarkFixture, window: npt.NDArray[np.uint8]) -> None:
    segmentation = pytest.importorskip("skimage.segmentation", reason="peer: pip install 'lithostream[dev]'")
    benchmark(segmentation.slic, window, n_segments=SEGMENTS, compactness=10.0, start_label=1)
