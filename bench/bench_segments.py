"""Statistics of superpixels beside scipy.ndimage, which does one channel and one statistic at a time."""

from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import segment_stats

CHANNELS = 6
SIDE = 45

Problem = tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]


def superpixels(height: int, width: int) -> Problem:
    """Squares of 45 px with wavy, frayed borders: runs of 22 px, SLIC makes 12 to 16; noise in six channels."""
    rng = np.random.default_rng(4)
    y, x = np.indices((height, width))
    row = (y + 6 * np.sin(x / 17) + rng.normal(0, 0.7, x.shape)).clip(0) // SIDE
    column = (x + 6 * np.sin(y / 13) + rng.normal(0, 0.7, x.shape)).clip(0) // SIDE
    labels = np.unique(row * width + column, return_inverse=True)[1].reshape(x.shape) + 1
    labels[:, :10] = 0  # the liner
    return labels.astype(np.int32), rng.normal(100, 10, (height, width, CHANNELS)).astype(np.float32)


SIZES = {"0.2Mpx": (400, 500), "2Mpx": (2000, 1000)}


@pytest.fixture(scope="module", params=list(SIZES.values()), ids=list(SIZES))
def problem(request: pytest.FixtureRequest) -> Problem:
    return superpixels(*request.param)


def scipy_stats(ndimage: ModuleType, problem: Problem) -> list[npt.NDArray[np.float64]]:
    labels, channels = problem
    index = np.arange(1, labels.max() + 1)
    return [
        statistic(channels[..., c], labels, index)
        for c in range(CHANNELS)
        for statistic in (ndimage.mean, ndimage.variance)
    ]


@pytest.mark.benchmark(group="segments")
def bench_segments(benchmark: BenchmarkFixture, problem: Problem) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="check: pip install 'lithostream[bench]'")
    labels, channels = problem
    benchmark.extra_info["bytes"] = 2 * labels.nbytes + channels.nbytes
    benchmark.extra_info["operations"] = 5 * channels.size
    stats = benchmark(segment_stats, labels, channels)
    found = scipy_stats(ndimage, (labels, channels.astype(np.float64)))
    np.testing.assert_allclose(stats.mean, np.stack(found[::2], axis=1), rtol=1e-12)
    np.testing.assert_allclose(stats.variance, np.stack(found[1::2], axis=1), rtol=1e-11)


@pytest.mark.benchmark(group="segments")
def bench_segments_peer_scipy(benchmark: BenchmarkFixture, problem: Problem) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="peer: pip install 'lithostream[bench]'")
    benchmark(scipy_stats, ndimage, problem)
