"""The physical grid: aligned at any scale, whole, and the same seen from anywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lithostream.engine.core.grid import Grid, edges_px

SCALES = st.floats(1.0, 400.0)


def grid(height_px: int, px_per_cm: float, *, interval_cm: float = 1.0, width_px: int = 50) -> Grid:
    return Grid(height_px, width_px, px_per_cm, 3.0, 1.0, interval_cm, 8)


@given(st.integers(1, 20_000), st.floats(0.5, 20.0), SCALES)
def test_edges_follow_physical_distance(length_px: int, step_cm: float, px_per_cm: float) -> None:
    if step_cm * px_per_cm < 1:
        with pytest.raises(ValueError, match="under one pixel"):
            edges_px(length_px, step_cm, px_per_cm)
        return
    edges = edges_px(length_px, step_cm, px_per_cm)
    assert edges[0] == 0 and edges[-1] <= length_px
    assert (np.diff(edges) > 0).all()
    assert np.abs(edges - np.arange(len(edges)) * step_cm * px_per_cm).max() <= 0.5 + 1e-6
    assert edges[-1] + step_cm * px_per_cm > length_px - 1  # no whole cell is left out


@given(st.integers(8, 20_000), st.floats(1.0, 200.0))
def test_windows_and_intervals_cover_every_row(height_px: int, px_per_cm: float) -> None:
    here = grid(height_px, px_per_cm)
    for edges in (here.window_rows, here.interval_rows):
        assert edges[0] == 0 and edges[-1] == height_px
        assert (np.diff(edges) > 0).all()
    assert set(here.window_rows[:-1]) <= set(here.tile_rows)  # no tile is cut by a window


def test_known_core() -> None:
    here = grid(6711, 15.3)
    assert len(here.interval_rows) - 1 == 439
    assert here.tile_rows[:4].tolist() == [0, 15, 31, 46]
    assert here.depth_cm(here.interval_rows)[0] == 3.0
