"""From tiles and segments to intervals: weighted means that keep what they are given."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.engine.core.aggregate import overlap, segments_to_intervals, tiles_to_intervals
from lithostream.engine.core.grid import Grid

Floats = npt.NDArray[np.float64]


def grid(height_px: int, interval_cm: float, px_per_cm: float = 10.0) -> Grid:
    return Grid(height_px, 40, px_per_cm, 0.0, 1.0, interval_cm, 8)


@given(st.integers(20, 3000), st.sampled_from([0.3, 0.5, 1.0, 1.7, 2.0, 10.0]), st.floats(5, 60))
def test_the_parts_of_a_tile_row_are_the_whole_row(
    height_px: int, interval_cm: float, px_per_cm: float
) -> None:
    if height_px < px_per_cm + 1:
        return
    here = grid(height_px, interval_cm, px_per_cm)
    pieces = overlap(here)
    assert np.allclose(np.bincount(pieces.tile_row, pieces.share), 1)
    assert (np.diff(pieces.interval) >= 0).all()
    assert pieces.interval.max() < len(here.interval_rows) - 1


def test_a_tile_counts_by_its_core_and_its_overlap() -> None:
    here = grid(40, 2.0)  # four tile rows, two intervals
    row = np.array([0, 0, 1, 3])
    fraction = np.array([1.0, 0.5, 0.5, 1.0])
    values = np.array([[1.0], [4.0], [3.0], [7.0]])
    found = tiles_to_intervals(overlap(here), here, row, fraction, values)
    assert found.mean[:, 0].tolist() == pytest.approx([(1 + 2 + 1.5) / 2, 7.0])
    assert found.std[1, 0] == 0
    assert found.std[0, 0] == pytest.approx(np.sqrt((1 * 1.25**2 + 0.5 * 1.75**2 + 0.5 * 0.75**2) / 2))
    assert found.tiles.tolist() == [3, 1]


def test_an_interval_without_tiles_has_no_value() -> None:
    here = grid(40, 1.0)
    found = tiles_to_intervals(overlap(here), here, np.array([2]), np.ones(1), np.array([[5.0]]))
    assert np.isnan(found.mean[[0, 1, 3], 0]).all() and found.mean[2, 0] == 5
    nothing = tiles_to_intervals(overlap(here), here, np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2)))
    assert nothing.mean.shape == (4, 2) and np.isnan(nothing.mean).all() and not nothing.tiles.any()


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0, 1.7, 3.0]))
def test_a_constant_stays_constant_and_an_offset_does_not_touch_the_spread(
    seed: int, interval_cm: float
) -> None:
    rng = np.random.default_rng(seed)
    here = grid(200, interval_cm)
    row = np.sort(rng.integers(0, 20, 60))
    fraction, values = rng.uniform(0.6, 1, 60), rng.normal(size=(60, 2))
    values[:, 1] = 1234.5
    found = tiles_to_intervals(overlap(here), here, row, fraction, values)
    known = found.tiles > 0
    assert np.allclose(found.mean[known, 1], 1234.5) and np.allclose(found.std[known, 1], 0, atol=1e-6)
    moved = tiles_to_intervals(overlap(here), here, row, fraction, values + 1e6)
    assert np.allclose(moved.std[known], found.std[known], atol=1e-6)


def test_segments_count_by_shared_pixels_and_unknown_ones_do_not() -> None:
    pixels = np.array([[0, 0, 30], [1, 0, 10], [1, 1, 5], [2, 1, 99]])
    values: Floats = np.array([[1.0, 2.0], [5.0, np.nan], [np.nan, 4.0]])
    found = segments_to_intervals(pixels, values, 3)
    assert found[0].tolist() == pytest.approx([2.0, 2.0])
    assert found[1].tolist() == pytest.approx([5.0, 4.0])
    assert np.isnan(found[2]).all()
