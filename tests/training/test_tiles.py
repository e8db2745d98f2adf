from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.bundle import TileInput
from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.mscl import read_log
from lithostream.training.config import Range
from lithostream.training.data.tiles import TileSet, build_tiles, row_labels

TILE = TileInput(tile_cm=1.0, size_px=16)


def test_every_row_has_tiles_and_a_reading(core_tiles: TileSet) -> None:
    rows = len(core_tiles.labels)
    assert np.array_equal(np.unique(core_tiles.row), np.arange(rows))
    assert np.isfinite(core_tiles.labels).any(axis=1).all()
    assert np.all(np.diff(core_tiles.row) >= 0)
    assert np.allclose(core_tiles.base_cm - core_tiles.top_cm, 1.0)


def test_no_label_is_invented(core_tiles: TileSet, core_section: Section) -> None:
    assert core_section.log is not None
    log = read_log(core_section.log)
    for column, target in enumerate(core_tiles.targets):
        reading, half = log.values[target], log.footprint_cm[target] / 2
        for top, base, label in zip(
            core_tiles.top_cm, core_tiles.base_cm, core_tiles.labels[:, column], strict=True
        ):
            near = (log.depth_cm + half > top) & (log.depth_cm - half < base) & np.isfinite(reading)
            if np.isfinite(label):
                assert near.any()
                assert reading[near].min() - 1e-9 <= label <= reading[near].max() + 1e-9
                assert not log.near_section_end[near].any()


def test_a_reading_outside_the_credible_range_is_no_label(core_section: Section) -> None:
    assert core_section.log is not None
    log = read_log(core_section.log)
    top = np.arange(0.0, 140.0)
    free = row_labels(log, ("density",), top, top + 1, {})
    held = row_labels(log, ("density",), top, top + 1, {"density": Range(low=1.4, high=1.6)})
    inside = (free >= 1.4) & (free <= 1.6)
    assert inside.any() and (np.isfinite(free) & ~inside).any()
    assert np.array_equal(np.isfinite(held), inside)
    assert np.array_equal(held[inside], free[inside])


def test_a_target_measured_nowhere_is_an_error(tmp_path: Path, core_section: Section) -> None:
    log = tmp_path / "only_density.csv"
    log.write_text("Depth [cm],Density [g/cc]\n" + "".join(f"{d},1.5\n" for d in range(1, 130)))
    with pytest.raises(ConfigError, match="magnetic_susceptibility"):
        build_tiles(
            [replace(core_section, log=log)], ("density", "magnetic_susceptibility"), TILE, RunSettings(), {}
        )


def test_sections_without_a_log_are_not_labelled(core_section: Section) -> None:
    with pytest.raises(ConfigError, match="density"):
        build_tiles([replace(core_section, log=None)], ("density",), TILE, RunSettings(), {})


def test_row_mean_weights_by_core_area(core_tiles: TileSet) -> None:
    ones = np.ones((len(core_tiles.row), 1), np.float32)
    assert np.allclose(core_tiles.row_mean(ones), 1.0)
    first = core_tiles.row == 0
    value = np.arange(len(first), dtype=np.float64)[:, None]
    wanted = np.average(value[first, 0], weights=core_tiles.core_fraction[first])
    assert core_tiles.row_mean(value)[0, 0] == pytest.approx(wanted)


def test_two_sections_keep_their_rows_apart(core_section: Section, core_tiles: TileSet) -> None:
    both = build_tiles(
        [core_section, replace(core_section, name="twin")], core_tiles.targets, TILE, RunSettings(), {}
    )
    rows = len(core_tiles.labels)
    assert len(both.labels) == 2 * rows
    assert np.array_equal(both.section, np.repeat([0, 1], rows))
    half = both.of_rows(both.section == 1)
    assert np.array_equal(half.pixels, core_tiles.pixels)
    assert np.array_equal(half.row, core_tiles.row)
    assert np.array_equal(half.labels, core_tiles.labels, equal_nan=True)
