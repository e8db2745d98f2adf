"""Statistics of segments on a GPU: those of the host but for the last digits, and the same bits each time."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.kernels.segments import SegmentStats, segment_stats

Labels = npt.NDArray[np.int32]


def host(stats: SegmentStats) -> SegmentStats:
    parts: Any = stats
    return SegmentStats(*(part.get() for part in parts))


def close(got: SegmentStats, want: SegmentStats) -> None:
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_array_equal(got.box, want.box)
    np.testing.assert_array_equal(got.centroid, want.centroid)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(got.variance, want.variance, rtol=1e-12, atol=1e-12)


def squares(rng: np.random.Generator, shape: tuple[int, int], side: int) -> Labels:
    y, x = np.indices(shape) + rng.integers(0, 3, (2, *shape))
    labels: Labels = (y // side * (shape[1] // side + 3) + x // side).astype(np.int32)
    return labels


@pytest.mark.parametrize("side", [7, 45, 5000])
@pytest.mark.parametrize("channels", [0, 1, 3, 6, 40])
@pytest.mark.parametrize("shape", [(1, 3000), (700, 1), (530, 777)])
def test_equals_the_host(
    gpu: ModuleType, rng: np.random.Generator, shape: tuple[int, int], channels: int, side: int
) -> None:
    labels = squares(rng, shape, side)
    labels[-1, -1] += 1  # so that a label without pixels or of one pixel comes last
    values = rng.normal(1e6, 3, (*shape, channels)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    close(host(segment_stats(gpu.asarray(labels), gpu.asarray(values))), segment_stats(labels, values))


def test_bytes_views_an_own_output_and_a_stream(gpu: ModuleType, rng: np.random.Generator) -> None:
    labels, values = squares(rng, (300, 400), 30), rng.integers(0, 256, (300, 400, 3), np.uint8)
    want = segment_stats(labels[:, ::-1], values[:, ::-1])
    out = SegmentStats(*(gpu.empty(part.shape, part.dtype) for part in want))
    stream = gpu.cuda.Stream(non_blocking=True)
    with stream:  # so that the copies come before the kernels
        given: Any = gpu.asarray(labels)[:, ::-1], gpu.asarray(values)[:, ::-1]
    got = segment_stats(*given, out=out, stream=stream)
    stream.synchronize()
    assert all(part is own for part, own in zip(got, out, strict=True))
    close(host(got), want)


def test_the_same_bits_each_time(gpu: ModuleType, rng: np.random.Generator) -> None:
    labels = gpu.asarray(squares(rng, (2000, 1000), 45))
    values = gpu.asarray(rng.normal(100, 10, (2000, 1000, 6)).astype(np.float32))
    runs = [host(segment_stats(labels, values)) for _ in range(20)]
    assert len({b"".join(part.tobytes() for part in run) for run in runs}) == 1
