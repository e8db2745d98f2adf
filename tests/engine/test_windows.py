"""Windows and tiles: cut the same however the rows arrive, and only where there is core."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.core.windows import Window, open_section, section_grid, window_tiles, windows
from lithostream.engine.errors import ConfigError, ScaleError, SourceError
from lithostream.engine.io.discover import discover
from lithostream.engine.manifest import TileInput

TILE = TileInput(tile_cm=1.0, size_px=16)


@pytest.fixture
def section(core_image: Path) -> Section:
    (found,), errors = discover([core_image])
    assert errors == []
    return found


def cut(section: Section, settings: RunSettings) -> Iterator[Window]:
    source = open_section(section)
    return windows(source, section_grid(section, source, TILE, settings), settings, section.core_cm)


def test_windows_put_together_are_the_image(section: Section, core: SyntheticCore) -> None:
    parts = list(cut(section, RunSettings()))
    assert np.array_equal(np.concatenate([part.rgb for part in parts]), core.image)
    assert [part.row_px for part in parts] == [0, 256, 512, 768, 1024]


@pytest.mark.parametrize("slab_rows", [1, 33, 256, 5000])
def test_slab_height_changes_nothing(section: Section, slab_rows: int) -> None:
    usual, other = cut(section, RunSettings()), cut(section, RunSettings(slab_rows=slab_rows))
    for one, two in zip(usual, other, strict=True):
        assert np.array_equal(one.rgb, two.rgb) and np.array_equal(one.mask, two.mask)


def test_the_mask_agrees_with_the_generator(section: Section, core: SyntheticCore) -> None:
    mask = np.concatenate([part.mask for part in cut(section, RunSettings())])
    assert (mask & core.core_mask).sum() / (mask | core.core_mask).sum() > 0.95


def test_nothing_is_core_beyond_what_the_instrument_measured(section: Section) -> None:
    mask = np.concatenate([part.mask for part in cut(replace(section, core_cm=(5.0, 20.0)), RunSettings())])
    assert not mask[:160].any() and mask[160:640].any() and not mask[640:].any()


def test_tiles_are_the_pixels_under_them(section: Section, core: SyntheticCore) -> None:
    settings = RunSettings()
    source = open_section(section)
    grid = section_grid(section, source, TileInput(tile_cm=1.0, size_px=32), settings)
    for window in windows(source, grid, settings, None):
        found = window_tiles(window, grid, TileInput(tile_cm=1.0, size_px=32), settings)
        for pixels, row, col, fraction in zip(*found[:4], strict=True):
            y, x = grid.tile_rows[row], grid.tile_cols[col]
            assert np.array_equal(pixels, core.image[y : y + 32, x : x + 32])
            assert fraction == window.mask[y - window.row_px :][:32, x : x + 32].mean()
            assert fraction >= settings.min_core_fraction


def test_what_no_grid_can_hold_is_refused(section: Section) -> None:
    source = open_section(section)
    with pytest.raises(ConfigError, match="whole number"):
        section_grid(section, source, TileInput(tile_cm=3.0, size_px=16), RunSettings())
    with pytest.raises(ScaleError, match="too coarse"):
        section_grid(replace(section, px_per_cm=0.5), source, TILE, RunSettings())
    with pytest.raises(SourceError, match="smaller than one tile"):
        section_grid(replace(section, px_per_cm=300.0), source, TILE, RunSettings())
