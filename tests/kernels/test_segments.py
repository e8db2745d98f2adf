from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lithostream.kernels.errors import ContractError
from lithostream.kernels.segments import SegmentStats, reference, segment_stats

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def bytes_of(stats: SegmentStats) -> bytes:
    numbers = stats.count.tobytes() + stats.box.tobytes()
    return numbers + stats.mean.tobytes() + stats.variance.tobytes() + stats.centroid.tobytes()


@st.composite
def problems(draw: st.DrawFn) -> tuple[Labels, Floats]:
    shape = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.integers(0, draw(st.integers(1, 9)), shape).astype(np.int32)
    channels = rng.normal(draw(st.sampled_from([0, 50, 1e6])), 3, (*shape, draw(st.integers(0, 4))))
    missing = rng.random(channels.shape) < draw(st.sampled_from([0, 0.2, 0.9]))
    channels[missing] = rng.choice([np.nan, np.inf, -np.inf], missing.sum())
    return labels, channels.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_equals_the_reference(problem: tuple[Labels, Floats]) -> None:
    got, want = segment_stats(*problem), reference.segment_stats(*problem)
    assert np.array_equal(got.count, want.count)
    assert np.array_equal(got.box, want.box)
    np.testing.assert_allclose(got.centroid, want.centroid, rtol=1e-14)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(got.variance, want.variance, rtol=1e-12, atol=1e-12)


def test_values_by_hand() -> None:
    labels = np.array([[1, 1, 0], [3, 1, 0]], np.int32)
    channels = np.array([[[1, 5], [3, np.nan], [9, 9]], [[7, np.nan], [8, 7], [9, 9]]], np.float32)
    stats = segment_stats(labels, channels)
    assert stats.count.tolist() == [3, 0, 1]
    assert stats.box.tolist() == [[0, 0, 2, 2], [0, 0, 0, 0], [1, 0, 2, 1]]
    np.testing.assert_allclose(stats.mean, np.array([[4, 6], [np.nan, np.nan], [7, np.nan]]))
    np.testing.assert_allclose(stats.variance, np.array([[26 / 3, 1], [np.nan, np.nan], [0, np.nan]]))
    np.testing.assert_allclose(stats.centroid, np.array([[1 / 3, 2 / 3], [np.nan, np.nan], [1, 0]]))


def test_equals_scipy_on_a_bigger_image() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 40, (200, 150)).astype(np.int32)
    channels = rng.random((200, 150, 3)).astype(np.float32)
    stats = segment_stats(labels, channels)
    index = np.arange(1, 40)
    plane = channels[..., 1].astype(np.float64)
    np.testing.assert_allclose(stats.mean[:, 1], ndimage.mean(plane, labels, index), rtol=1e-13)
    np.testing.assert_allclose(stats.variance[:, 1], ndimage.variance(plane, labels, index), rtol=1e-12)
    np.testing.assert_allclose(stats.centroid, ndimage.center_of_mass(labels > 0, labels, index), rtol=1e-13)
    assert np.array_equal(stats.count, np.bincount(labels.ravel())[1:])
    slices = ndimage.find_objects(labels)
    boxes = [(y.start, x.start, y.stop, x.stop) for y, x in slices]
    assert stats.box.tolist() == [list(box) for box in boxes]


@pytest.mark.parametrize("first", [0.0, 1e6])
def test_a_large_offset_does_not_cancel(first: float) -> None:
    # the mean itself is rounded at 1e6 * 1e-16, which leaves ten digits of a variance of 0.25
    values = np.random.default_rng(5).normal(1e6, 0.5, 10_000).astype(np.float32)
    values[0] += first
    stats = segment_stats(np.ones((100, 100), np.int32), values.reshape(100, 100, 1))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(stats.mean[0, 0], exact.mean(), rtol=1e-13)
    np.testing.assert_allclose(stats.variance[0, 0], exact.var(), rtol=1e-9)


def test_constant_values_have_zero_variance() -> None:
    stats = segment_stats(np.ones((50, 7), np.int32), np.full((50, 7, 1), 0.1, np.float32))
    assert stats.variance[0, 0] == 0
    assert stats.mean[0, 0] == np.float32(0.1)


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (130, 90)])
def test_a_small_variance_far_from_zero_with_holes(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    labels = (1 + 2 * (np.indices(shape).sum(axis=0) // 700)).astype(np.int32)  # none of the even labels
    channels = rng.normal(1e6, 0.1, (*shape, 11)).astype(np.float32)
    channels[rng.random(channels.shape) < 0.1] = np.nan
    channels.reshape(-1, 11)[:4] = np.array([[np.inf], [-np.inf], [np.nan], [1e6]])
    channels[..., 10] = np.inf
    got, want = segment_stats(labels, channels), reference.segment_stats(labels, channels)
    assert 0.005 < want.variance[-1, 0] < 0.02
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-15)
    np.testing.assert_allclose(got.variance, want.variance, rtol=1e-11)
    assert np.isnan(got.mean[1::2]).all() and np.isnan(got.variance[:, 10]).all()
    assert got.count[1::2].tolist() == [0] * len(got.count[1::2])


def test_a_first_value_far_from_all_others() -> None:
    values = np.random.default_rng(6).normal(0, 1, (700, 500, 1)).astype(np.float32)
    values[0, 0] = 1e6
    stats = segment_stats(np.ones((700, 500), np.int32), values)
    exact = values.astype(np.longdouble)
    np.testing.assert_allclose(stats.mean[0, 0], float(exact.mean()), rtol=1e-10)
    np.testing.assert_allclose(stats.variance[0, 0], float(exact.var()), rtol=1e-9)


def test_the_largest_floats_do_not_overflow() -> None:
    values = np.full((40, 3, 2), np.finfo(np.float32).max)
    values[::2] *= -1
    stats = segment_stats(np.ones((40, 3), np.int32), values)
    np.testing.assert_allclose(stats.mean, [[0, 0]], atol=1e24)
    np.testing.assert_allclose(stats.variance, [[float(np.finfo(np.float32).max) ** 2] * 2])


@pytest.mark.parametrize("channels", [0, 1, 3, 7, 8, 9])
def test_bytes_as_channels(rng: np.random.Generator, channels: int) -> None:
    labels = rng.integers(0, 6, (70, 30)).astype(np.int32)
    values = rng.integers(0, 256, (70, 30, channels), np.uint8)
    assert bytes_of(segment_stats(labels, values)) == bytes_of(
        segment_stats(labels, values.astype(np.float32))
    )


def test_threads_do_not_change_the_bits(rng: np.random.Generator) -> None:
    # The bands are the same in both, but only the wide one is shared out over threads.
    labels, channels = rng.integers(0, 9, (320, 60)), rng.normal(1e3, 1, (320, 60, 2))
    wide = np.zeros((320, 2000), np.int32), np.ones((320, 2000, 2), np.float32)
    wide[0][:, :60], wide[1][:, :60] = labels, channels
    want = segment_stats(labels.astype(np.int32), channels.astype(np.float32))
    assert bytes_of(segment_stats(*wide)) == bytes_of(want)


def first_rows(stats: SegmentStats, rows: int) -> SegmentStats:
    parts: list[Any] = [part[:rows] for part in stats]
    return SegmentStats(*parts)


def own_output(rows: int, channels: int, **other: Any) -> SegmentStats:
    parts = {
        "count": np.full(rows, -1, np.int64),
        "mean": np.full((rows, channels), -1.0),
        "variance": np.full((rows, channels), -1.0),
        "box": np.full((rows, 4), -1, np.int32),
        "centroid": np.full((rows, 2), -1.0),
    }
    return SegmentStats(**(parts | other))


def test_fills_an_own_output_of_more_rows(rng: np.random.Generator) -> None:
    labels, channels = (
        rng.integers(0, 5, (20, 30)).astype(np.int32),
        rng.random((20, 30, 3)).astype(np.float32),
    )
    out = own_output(6, 3)
    got, want = segment_stats(labels, channels, out=out), segment_stats(labels, channels)
    assert all(part is given for part, given in zip(got, out, strict=True))
    assert bytes_of(first_rows(got, 4)) == bytes_of(want)
    assert got.count[4:].tolist() == [0, 0]
    assert got.box[4:].tolist() == [[0] * 4] * 2
    assert (
        np.isnan(got.mean[4:]).all() and np.isnan(got.variance[4:]).all() and np.isnan(got.centroid[4:]).all()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out": own_output(3, 2)}, "labels: expected at most 3, the length of out, got 4"),
        ({"out": own_output(4, 1)}, r"out.mean: expected float64 \[4, 2\], got float64 \[4, 1\]"),
        ({"out": own_output(4, 2, box=np.zeros((4, 4)))}, r"out.box: expected int32 \[4, 4\], got float64"),
        (
            {"out": own_output(4, 2, count=np.zeros(8, np.int64)[::2])},
            "out.count: expected a writeable C-cont",
        ),
        (
            {"out": own_output(4, 2, count=[0] * 4)},
            r"out.count: expected a NumPy or CuPy array int64 \[\*\], got list",
        ),
        ({"out": (1, 2)}, "out: expected SegmentStats, got tuple"),
        ({"stream": object()}, "stream: expected None for NumPy arrays, got object"),
    ],
)
def test_contract_of_the_output(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        segment_stats(np.full((3, 4), 4, np.int32), np.zeros((3, 4, 2), np.float32), **given)


def test_no_pixels_and_no_labels_give_no_rows() -> None:
    for shape in ((0, 4), (4, 0), (3, 3)):
        stats = segment_stats(np.zeros(shape, np.int32), np.ones((*shape, 2), np.float32))
        assert [len(part) for part in stats] == [0] * 5
        assert stats.mean.shape == (0, 2)


def test_reads_views() -> None:
    rng = np.random.default_rng(2)
    labels, channels = (
        rng.integers(0, 5, (20, 30)).astype(np.int32),
        rng.random((20, 30, 4)).astype(np.float32),
    )
    got = segment_stats(labels[::2, ::-1], channels[::2, ::-1, 1::2])
    want = segment_stats(labels[::2, ::-1].copy(), channels[::2, ::-1, 1::2].copy())
    assert bytes_of(got) == bytes_of(want)


def test_eight_threads_get_the_same_bytes() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 50, (300, 200)).astype(np.int32)
    channels = rng.random((300, 200, 3)).astype(np.float32)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: bytes_of(segment_stats(labels, channels)), range(16)))
    assert set(results) == {bytes_of(segment_stats(labels, channels))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((3, 4), np.int64)}, r"labels: expected int32 \[\*, \*\], got int64"),
        ({"labels": np.full((3, 4), -2, np.int32)}, "labels: expected 0 or above, got -2"),
        ({"labels": [[0]]}, "labels: expected a NumPy or CuPy array"),
        ({"channels": np.zeros((3, 4, 2))}, r"channels: expected float32 \[3, 4, \*\], got float64"),
        ({"channels": np.zeros((3, 5, 2), np.float32)}, r"channels: expected float32 \[3, 4, \*\]"),
    ],
)
def test_contract(change: dict[str, Any], message: str) -> None:
    arguments = {"labels": np.zeros((3, 4), np.int32), "channels": np.zeros((3, 4, 2), np.float32)} | change
    with pytest.raises(ContractError, match=message):
        segment_stats(**arguments)
