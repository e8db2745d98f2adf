"""The device code of the segments, run on the host: within a relative 1e-12 of the CPU, repeatable to the bit."""

from types import ModuleType
from typing import Any

import cupy_on_host
import numpy as np
import numpy.typing as npt
import pytest

from lithostream.kernels.errors import ContractError, DeviceMismatchError
from lithostream.kernels.segments import SegmentStats, reference, segment_stats

Array = npt.NDArray[Any]


def host(stats: SegmentStats) -> SegmentStats:
    parts: Any = stats
    return SegmentStats(*(part.get() for part in parts))


def bytes_of(stats: SegmentStats) -> bytes:
    return b"".join(part.tobytes() for part in stats)


def close(got: SegmentStats, want: SegmentStats, *, scale: float = 1.0) -> None:
    np.testing.assert_array_equal(got.count, want.count)
    np.testing.assert_array_equal(got.box, want.box)
    np.testing.assert_array_equal(got.centroid, want.centroid)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(got.variance, want.variance, rtol=1e-12, atol=1e-12 * scale)


def blocks(rng: np.random.Generator, shape: tuple[int, int], side: int) -> npt.NDArray[np.int32]:
    """Squares of labels with frayed borders; label 0 and labels without pixels among them."""
    y, x = np.indices(shape) + rng.integers(0, 3, (2, *shape))
    labels = y // side * (shape[1] // side + 3) + x // side
    found: npt.NDArray[np.int32] = labels.astype(np.int32)
    return found


@pytest.mark.parametrize(
    ("shape", "side", "channels"),
    [
        ((40, 70), 16, 6),
        ((1, 300), 40, 1),
        ((90, 1), 7, 3),
        ((1, 1), 1, 2),
        ((65, 130), 200, 4),
        ((9, 8), 3, 0),
    ],
)
def test_equals_the_cpu(
    cupy: ModuleType, rng: np.random.Generator, shape: tuple[int, int], side: int, channels: int
) -> None:
    labels = blocks(rng, shape, side)
    labels[-1, -1] += 1
    values = rng.normal(1e6, 3, (*shape, channels)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    values[: shape[0] // 2, :, 1:2] = np.nan
    got = segment_stats(cupy.asarray(labels), cupy.asarray(values))
    close(host(got), segment_stats(labels, values))


def test_many_splits_and_many_channels(cupy: ModuleType, rng: np.random.Generator) -> None:
    labels = np.ones((90, 100), np.int32)  # one segment: several blocks share it, 35 channels: two groups
    values = rng.normal(50, 3, (90, 100, 35)).astype(np.float32)
    close(host(segment_stats(cupy.asarray(labels), cupy.asarray(values))), segment_stats(labels, values))


def test_bytes_as_channels(cupy: ModuleType, rng: np.random.Generator) -> None:
    labels, values = blocks(rng, (50, 40), 11), rng.integers(0, 256, (50, 40, 3), np.uint8)
    got = host(segment_stats(cupy.asarray(labels), cupy.asarray(values)))
    close(got, reference.segment_stats(labels, values.astype(np.float32)), scale=1e3)


def test_no_order_of_blocks_and_threads_changes_a_bit(cupy: ModuleType, rng: np.random.Generator) -> None:
    labels, values = blocks(rng, (60, 80), 25), rng.normal(9, 2, (60, 80, 3)).astype(np.float32)
    found = []
    for order in (0, 1, 5):
        with cupy_on_host.ordered(order):
            found.append(bytes_of(host(segment_stats(cupy.asarray(labels), cupy.asarray(values)))))
    assert len(set(found)) == 1


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (3, 3)])
def test_no_pixels_and_no_labels(cupy: ModuleType, shape: tuple[int, int]) -> None:
    labels, values = cupy.zeros(shape, np.int32), cupy.zeros((*shape, 2), np.float32)
    assert [part.shape for part in segment_stats(labels, values)] == [(0,), (0, 2), (0, 2), (0, 4), (0, 2)]
    out = SegmentStats(
        *(
            cupy.empty(s, d)
            for s, d in [(2, "i8"), ((2, 1), "f8"), ((2, 1), "f8"), ((2, 4), "i4"), ((2, 2), "f8")]
        )
    )
    got = host(segment_stats(labels, cupy.zeros((*shape, 1), np.float32), out=out))
    assert got.count.tolist() == [0, 0]
    assert got.box.tolist() == [[0] * 4] * 2
    assert np.isnan(got.mean).all() and np.isnan(got.variance).all() and np.isnan(got.centroid).all()


def test_views_an_own_output_and_a_stream(cupy: ModuleType, rng: np.random.Generator) -> None:
    labels, values = blocks(rng, (30, 40), 9), rng.random((30, 40, 4)).astype(np.float32)
    count = int(labels.max()) + 2
    shapes = [(count,), (count, 2), (count, 2), (count, 4), (count, 2)]
    out = SegmentStats(
        *(cupy.empty(s, d) for s, d in zip(shapes, ["i8", "f8", "f8", "i4", "f8"], strict=True))
    )
    stream = cupy.cuda.Stream(non_blocking=True)
    shown = cupy.asarray(labels)[::2, ::-1], cupy.asarray(values)[::2, ::-1, 1::2]
    got = segment_stats(*shown, out=out, stream=stream)
    assert stream.entered > 0
    assert all(part is given for part, given in zip(got, out, strict=True))
    want = segment_stats(labels[::2, ::-1], values[::2, ::-1, 1::2])
    rows = len(want.count)
    shown_rows: Any = (part[:rows] for part in host(got))
    close(SegmentStats(*shown_rows), want)
    assert host(got).count[rows:].tolist() == [0] * (count - rows)


def test_contract(cupy: ModuleType) -> None:
    labels, values = cupy.asarray(np.array([[1, -2]], np.int32)), cupy.zeros((1, 2, 1), np.float32)
    with pytest.raises(ContractError, match="labels: expected 0 or above, got -2"):
        segment_stats(labels, values)
    with pytest.raises(ContractError, match=r"channels: expected float32 \[1, 2, \*\], got float64"):
        segment_stats(labels, cupy.zeros((1, 2, 1)))
    with pytest.raises(DeviceMismatchError, match="labels on cuda:0, channels on host"):
        segment_stats(labels, np.zeros((1, 2, 1), np.float32))
