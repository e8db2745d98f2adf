from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.mscl import SensorLog, read_log
from lithostream.engine.manifest import TileInput
from lithostream.training.config import Range
from lithostream.training.data.labels import row_labels
from lithostream.training.data.tiles import TileSet, build_tiles

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
    free = row_labels(log, ("density",), top, top + 1, {}).value
    held = row_labels(log, ("density",), top, top + 1, {"density": Range(low=1.4, high=1.6)}).value
    inside = (free >= 1.4) & (free <= 1.6)
    assert inside.any() and (np.isfinite(free) & ~inside).any()
    assert np.array_equal(np.isfinite(held), inside)
    assert np.array_equal(held[inside], free[inside])


def log_of(path: Path, lines: str) -> SensorLog:
    path.write_text("Depth [cm],Density [g/cc]\n" + lines)
    return read_log(path)


def test_gaps_and_nan_readings_label_nothing(tmp_path: Path) -> None:
    depths = [float(d) for d in range(21) if not 9 <= d <= 12]  # a gap from 8 to 13 cm, and one NaN at 5
    lines = "".join(f"{d},{'' if d == 5 else 1.5 + d / 100}\n" for d in depths)
    edge = np.arange(20.0) - 0.5  # rows are centred on the readings, whose footprint is 1 cm
    labels = row_labels(log_of(tmp_path / "a.csv", lines), ("density",), edge, edge + 1, {})
    depth = np.arange(20)
    silent = (depth < 3) | (depth > 17) | (depth == 5) | ((depth >= 9) & (depth <= 12))
    assert np.array_equal(np.isnan(labels.value[:, 0]), silent)  # 3 cm at each end are read through the caps
    np.testing.assert_allclose(labels.value[~silent, 0], 1.5 + depth[~silent] / 100)
    assert not labels.interpolated.any()


def test_interpolation_bridges_short_gaps_only_and_says_so(tmp_path: Path) -> None:
    depths = [float(d) for d in range(31) if not 9 <= d <= 12 and not 18 <= d <= 19]
    lines = "".join(f"{d},{'' if d == 5 else 1.5 + d / 100}\n" for d in depths)
    log, edge = log_of(tmp_path / "a.csv", lines), np.arange(30.0) - 0.5
    labels = row_labels(log, ("density",), edge, edge + 1, {}, interpolate_cm=3.0)
    assert np.flatnonzero(labels.interpolated).tolist() == [5, 18, 19]  # 8 and 13 cm are 5 cm apart
    np.testing.assert_allclose(labels.value[[5, 18, 19], 0], [1.55, 1.68, 1.69])
    assert np.isnan(labels.value[[0, 1, 2, 9, 10, 11, 12, 28, 29], 0]).all()
    plain = row_labels(log, ("density",), edge, edge + 1, {})
    covered = np.isfinite(plain.value)
    assert np.array_equal(plain.value[covered], labels.value[covered])
    credible = {"density": Range(low=1.0, high=1.695)}
    bounded = row_labels(log, ("density",), edge, edge + 1, credible, interpolate_cm=30.0)
    assert np.isnan(bounded.value[20:, 0]).all()  # nothing credible lies below 17 cm
    alone = log_of(tmp_path / "b.csv", "0,\n10,1.5\n20,\n")
    one = row_labels(alone, ("density",), edge, edge + 1, {}, interpolate_cm=30.0)
    assert np.flatnonzero(np.isfinite(one.value[:, 0])).tolist() == [10]


def test_interpolated_labels_are_learned_from_and_never_scored(tmp_path: Path, core_section: Section) -> None:
    log = tmp_path / "sparse.csv"
    log.write_text("Depth [cm],Density [g/cc]\n" + "".join(f"{d},1.5\n" for d in range(1, 139, 3)))
    one = replace(core_section, log=log)
    plain = build_tiles([one], ("density",), TILE, RunSettings(), {})
    drawn = build_tiles([one], ("density",), TILE, RunSettings(), {}, interpolate_cm=3.5)
    assert drawn.interpolated.any() and not plain.interpolated.any()
    assert np.array_equal(np.isfinite(drawn.measured), ~drawn.interpolated)
    assert np.isfinite(drawn.labels).all()
    assert set(drawn.top_cm[~drawn.interpolated[:, 0]]) == set(plain.top_cm)


def test_the_section_offset_of_the_picture_moves_its_labels(core_section: Section) -> None:
    here = build_tiles([core_section], ("density",), TILE, RunSettings(), {})
    moved = build_tiles([replace(core_section, top_cm=20.0)], ("density",), TILE, RunSettings(), {})
    assert core_section.log is not None
    log = read_log(core_section.log)
    expected = row_labels(log, ("density",), moved.top_cm, moved.base_cm, {}).value
    assert np.array_equal(moved.labels, expected)
    assert moved.top_cm.min() >= 20.0
    shared, a, b = np.intersect1d(here.top_cm, moved.top_cm, return_indices=True)
    assert len(shared) > 50
    assert np.array_equal(here.labels[a], moved.labels[b])
    assert not np.array_equal(here.mean_colour()[a], moved.mean_colour()[b])


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
    assert half.pixels is both.pixels
    assert np.array_equal(half.gather(np.arange(len(half.tile))), core_tiles.pixels)
    assert np.array_equal(half.mean_colour(), core_tiles.mean_colour())
    assert np.array_equal(half.row, core_tiles.row)
    assert np.array_equal(half.labels, core_tiles.labels, equal_nan=True)
