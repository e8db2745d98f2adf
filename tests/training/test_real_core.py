"""The real core: what is labelled, and the score that the method has to reach."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lithostream.engine.config import RunSettings, load_toml
from lithostream.engine.core.tables import flags_of, floats_of
from lithostream.engine.stream.runner import run
from lithostream.training.config import TrainConfig
from lithostream.training.data.sources import labelled_sections
from lithostream.training.data.tiles import TileSet, build_tiles

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "m9907-11pc.toml"

pytestmark = pytest.mark.realdata


@pytest.fixture
def manifest(data_dir: Callable[[str], Path], tmp_path: Path) -> Path:
    lines = CONFIG.with_suffix(".manifest.toml").read_text().splitlines()
    lines = [f'root = "{data_dir("m9907-cascadia")}"' if line.startswith("root") else line for line in lines]
    path = tmp_path / "manifest.toml"
    path.write_text("\n".join(lines))
    return path


def test_rows_are_labelled_from_the_log_and_never_in_foam(
    manifest: Path, data_dir: Callable[[str], Path]
) -> None:
    config = load_toml(CONFIG, TrainConfig)
    sections = labelled_sections([manifest])
    tiles: TileSet = build_tiles(
        sections, config.targets, config.tile.as_input(), config.run_settings(), config.qc
    )
    # 319 readings, of which 18 lie at section ends and some beside foam or outside the credible range.
    assert 250 <= len(tiles.labels) <= 301
    density = tiles.labels[:, 0]
    assert np.nanmin(density) >= 1.1 and np.nanmax(density) <= 2.1
    truth = json.loads((data_dir("m9907-cascadia") / "11PC_not_core.json").read_text())
    for first_px, last_px in truth["gap_rows"]:
        inside = (tiles.top_cm > first_px / 15.287) & (tiles.base_cm < last_px / 15.287)
        assert not inside.any()


def test_rows_of_the_depth_model_beat_ridge_and_forest_on_unseen_blocks(manifest: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from lithostream.training.out_of_fold import baseline_folds, depth_folds
    from lithostream.training.report import MODEL, report_target

    config = load_toml(CONFIG, TrainConfig)
    tiles = build_tiles(
        labelled_sections([manifest]),
        config.targets,
        config.tile.as_input(),
        config.run_settings(),
        config.qc,
    )
    flags = config.logarithmic_flags()
    runs = [
        depth_folds(MODEL, tiles, config.split, seed, flags).joined(
            baseline_folds(tiles, config.split, seed, flags)
        )
        for seed in range(20, 25)  # not those of the configuration
    ]
    for column in range(len(config.targets)):
        report = report_target(tiles, column, runs, flags)
        assert report.better_baseline is not None
        assert report.r2_gain[report.better_baseline].mean > 0
        assert report.intervals[MODEL].score < report.intervals[report.better_baseline].score
        assert 0.85 <= report.coverage_90 <= 0.95


@pytest.mark.skipif(
    "LITHOSTREAM_SLOW" not in os.environ, reason="takes minutes: set LITHOSTREAM_SLOW=1 to run"
)
def test_a_trained_bundle_beats_both_baselines_out_of_fold(manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from lithostream.export.bundle import export_bundle
    from lithostream.training.checkpoint import load_checkpoint
    from lithostream.training.study import train_properties

    train_properties(CONFIG, tmp_path / "checkpoint", [manifest])
    _, record = load_checkpoint(tmp_path / "checkpoint")
    assert len(record.config.split.seeds) >= 5
    for target in ("density", "magnetic_susceptibility"):
        report = record.metrics[target]
        low = report.r2_gain[report.better_baseline or ""].low
        assert low is not None and low > 0, target
    bundle = export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    run([manifest], bundle, tmp_path / "run", RunSettings(), lambda *_: None)
    table = pq.read_table(tmp_path / "run" / "M9907-11PC_RGB_crop" / "intervals.parquet")
    known = ~flags_of(table, "no_core")
    assert np.isfinite(floats_of(table, "quartz_vol_pct"))[known].mean() > 0.95
