"""The study of USGS 2019-643-FA on a small copy of the release: its names, columns and layout, generated cores."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.bundle import load_bundle
from lithostream.engine.config import RunSettings, load_toml
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.core.synthetic.files import sensor_log
from lithostream.engine.core.tables import floats_of
from lithostream.engine.stream.runner import run
from lithostream.training.config import TrainConfig
from lithostream.training.data.sources import labelled_sections
from lithostream.training.data.tiles import TileSet, build_tiles

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "usgs-2019-643-fa.toml"
LENGTH_CM, WIDTH_CM, PX_PER_CM = 20.0, 4.0, 16.0
CORES = ("GC01", "JPC40")
SECTIONS = 2
COLUMNS = ("sb_depth_cm", "pwave_vel", "density", "mag_sus")


def write_core(folder: Path, number: int) -> None:
    """Write the sections of one core as TIFF and XML, and one log on depths through the core."""
    name = f"2019_643_FA_{CORES[number]}"
    rows: list[list[float]] = []
    for section in range(SECTIONS):
        core = generate(
            2200 + 10 * number + section, length_cm=LENGTH_CM, width_cm=WIDTH_CM, px_per_cm=PX_PER_CM
        )
        image = write(replace(core, name=f"{name}_{section + 1:02d}"), folder / "photos")
        for more in ("_mscl.csv", "_truth.parquet"):
            image.with_name(image.stem + more).unlink()
        log = sensor_log(core)
        log["sb_depth_cm"] = log["sb_depth_cm"] + section * LENGTH_CM
        rows += np.stack([log[column] for column in COLUMNS], axis=1).tolist()
    (folder / "mscl").mkdir(exist_ok=True)
    with (folder / "mscl" / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        table.writerows([["" if np.isnan(value) else f"{value:.4f}" for value in row] for row in rows])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("2019-643-FA")
    for number in range(len(CORES)):
        write_core(folder, number)
    return folder


@pytest.fixture(scope="module")
def tiles(release: Path) -> TileSet:
    config = load_toml(CONFIG, TrainConfig)
    tile = config.tile.model_copy(update={"size_px": 16}).as_input()
    return build_tiles(labelled_sections([release]), config.targets, tile, config.run_settings(), config.qc)


def smaller(text: str, **changes: object) -> str:
    """Replace single settings of a configuration."""
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value} ", text)
        assert count == 1, key
    return text


def test_the_configuration_is_that_of_the_release() -> None:
    config = load_toml(CONFIG, TrainConfig)
    assert set(config.targets) == {"density", "p_wave_velocity", "magnetic_susceptibility"}
    assert (config.tile.tile_cm, config.tile.size_px) == (1.0, 200)
    assert (config.fit.network, config.split.kind) == ("hrnet_w18", "core")


def test_rows_carry_the_readings_of_their_own_depth(tiles: TileSet) -> None:
    assert [(one.core, one.section) for one in tiles.sections] == [
        (core, f"{section + 1:02d}") for core in CORES for section in range(SECTIONS)
    ]
    assert [one.top_cm for one in tiles.sections] == [0.0, LENGTH_CM] * len(CORES)
    for number, section in enumerate(tiles.sections):
        seed = 2200 + 10 * CORES.index(str(section.core)) + int(section.section or 0) - 1
        core = generate(seed, length_cm=LENGTH_CM, width_cm=WIDTH_CM, px_per_cm=PX_PER_CM)
        rows = np.flatnonzero(tiles.section == number)
        assert len(rows) >= 6
        truth = core.truth_at(tiles.top_cm[rows] - section.top_cm, tiles.base_cm[rows] - section.top_cm)
        for column, bound in (("density", 0.05), ("p_wave_velocity", 25.0)):
            error = tiles.labels[rows, tiles.targets.index(column)] - truth[column]
            assert np.nanmean(np.abs(error)) < bound, (section.name, column)


def test_the_study_runs_to_a_bundle(release: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from lithostream.export.bundle import export_bundle
    from lithostream.training.study import train_properties

    config = tmp_path / "study.toml"
    config.write_text(
        smaller(
            CONFIG.read_text(),
            data=f'["{release}"]',
            size_px=16,
            network='"resnet18"',  # `test_hrnet` exports HRNet, which takes 20 s
            device='"cpu"',
            epochs=1,
            patience=1,
            batch_rows=32,
            tiles_per_row=1,
            folds=2,
            seeds="[0]",
        )
    )
    result = train_properties(config, tmp_path / "checkpoint")
    targets = result["targets"]
    assert isinstance(targets, dict) and set(targets) == set(load_toml(CONFIG, TrainConfig).targets)
    bundle = export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    assert set(load_bundle(bundle).targets) == set(targets)
    record = run([release], bundle, tmp_path / "run", RunSettings(), lambda *_: None)
    assert record.exit_code == 0 and len(record.sections) == len(CORES) * SECTIONS
    table = load_intervals(tmp_path / "run" / "2019_643_FA_GC01_02")
    assert table["top_m"][0] == pytest.approx(LENGTH_CM / 100)
    assert np.isfinite(table["density"]).sum() > 6 and np.isfinite(table["density_measured"]).sum() > 6


def load_intervals(folder: Path) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "intervals.parquet")
    return {name: floats_of(table, name) for name in ("top_m", "density", "density_measured")}
