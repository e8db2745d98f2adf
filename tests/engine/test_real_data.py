"""Every real scan at hand through the shipped bundle: read, registered, flagged, never given minerals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lithostream.engine.bundle import load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.tables import flags_of, floats_of
from lithostream.engine.core.windows import open_section, section_grid, windows
from lithostream.engine.io.discover import discover
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.runner import run

pytestmark = pytest.mark.realdata

DataDir = Callable[[str], Path]


def quiet(section: str, done: int, total: int) -> None:
    assert done <= total


def manifest(folder: Path, root: Path, sections: list[str]) -> Path:
    path = folder / "manifest.toml"
    path.write_text(f'root = "{root}"\n' + "".join(f"[[section]]\n{text}\n" for text in sections))
    return path


def go(
    path: Path, bundle: Path, out: Path, settings: RunSettings | None = None
) -> tuple[RunRecord, dict[str, pa.Table]]:
    record = run([path], bundle, out, settings or RunSettings(), quiet)
    names = [str(section["name"]) for section in record.sections]
    return record, {name: pq.read_table(out / name / "intervals.parquet") for name in names}


def flagged_without_minerals(table: pa.Table) -> bool:
    minerals = [name for name in table.column_names if name.endswith("_vol_pct")]
    given = any(np.isfinite(floats_of(table, name)).any() for name in minerals)
    return bool(minerals) and bool(flags_of(table, "out_of_domain").all()) and not given


@pytest.fixture
def cascadia(data_dir: DataDir, tmp_path: Path) -> Path:
    file = 'file = "M9907-11PC_RGB_crop.png"\nlog = "M9907-11PC_MST.csv"\n'
    return manifest(tmp_path, data_dir("m9907-cascadia"), [file + "px_per_cm = 15.3\ntop_cm = 0.0"])


def test_cascadia_piston_core(cascadia: Path, data_dir: DataDir, bundle_path: Path, tmp_path: Path) -> None:
    record, tables = go(cascadia, bundle_path, tmp_path / "out")
    assert record.exit_code == 0
    (table,) = tables.values()
    top, base = floats_of(table, "top_cm"), floats_of(table, "base_cm")
    assert top[0] == 0 and abs(base[-1] - 439) <= 1
    assert flagged_without_minerals(table)
    known = np.isfinite(floats_of(table, "density"))
    marks = json.loads((data_dir("m9907-cascadia") / "11PC_not_core.json").read_text())
    foam = np.zeros(len(top), bool)
    for y0, y1 in marks["gap_rows"]:
        inside = (top >= y0 / 15.3) & (base <= y1 / 15.3)
        assert inside.any() and not known[inside].any()
        foam |= (base > y0 / 15.3) & (top < y1 / 15.3)
    assert known[~foam].mean() > 0.99
    measured = floats_of(table, "density_measured")
    assert 200 < np.isfinite(measured).sum() < 400  # a quarter of the log is missing
    assert 1.1 < np.nanmedian(measured) < 2.1
    assert not np.isfinite(floats_of(table, "p_wave_velocity_measured")).any()  # uncalibrated: refused


def test_cascadia_mask_against_marks_by_hand(cascadia: Path, data_dir: DataDir, bundle_path: Path) -> None:
    (section,), errors = discover([cascadia])
    assert errors == []
    source, settings = open_section(section), RunSettings()
    grid = section_grid(section, source, load_bundle(bundle_path).manifest.input, settings)
    mask = np.concatenate([window.mask for window in windows(source, grid, settings, section.core_cm)])
    marks = json.loads((data_dir("m9907-cascadia") / "11PC_not_core.json").read_text())
    truth = np.zeros(mask.shape, bool)
    truth[slice(*marks["frame"]["y_core"]), slice(*marks["frame"]["x_core"])] = True
    for y0, x0, y1, x1 in [*marks["pins"], *([y0, 0, y1, mask.shape[1]] for y0, y1 in marks["gap_rows"])]:
        truth[y0:y1, x0:x1] = False
    assert (mask & truth).sum() / (mask | truth).sum() >= 0.97


@pytest.mark.parametrize("core", ["23PC", "25PC"])
def test_cascadia_thumbnails(core: str, data_dir: DataDir, bundle_path: Path, tmp_path: Path) -> None:
    folder = data_dir("m9907-cascadia")
    name = f"M9907-{core}_RGB_lowres_crop.png"
    with Image.open(folder / name) as picture:
        length = {"23PC": 783, "25PC": 797}[core]
        px_per_cm = picture.height / length
    path = manifest(tmp_path, folder, [f'file = "{name}"\npx_per_cm = {px_per_cm}'])
    _, tables = go(path, bundle_path, tmp_path / "out")
    (table,) = tables.values()
    assert abs(floats_of(table, "base_cm")[-1] - length) <= 1
    assert flagged_without_minerals(table)


def test_itrax_marine_core(data_dir: DataDir, bundle_path: Path, tmp_path: Path) -> None:
    record, tables = go(data_dir("itrax-cd166-19"), bundle_path, tmp_path)
    assert set(tables) == {"S1"} and record.exit_code == 3
    assert [Path(str(entry["file"])).name for entry in record.quarantined] == ["S2", "S3"]  # no colour image
    table = tables["S1"]
    top, base = floats_of(table, "top_cm"), floats_of(table, "base_cm")
    assert abs(top[0] - 0.05) < 0.1 and abs(base[-1] - 140.13) < 0.1
    known = np.isfinite(floats_of(table, "density"))
    assert known[(top > 2.5) & (base < 131)].mean() > 0.99
    assert not known[top > 131.5].any()  # colour card and wooden block at the high end
    assert flagged_without_minerals(table)


def test_itrax_lake_cores(data_dir: DataDir, bundle_path: Path, tmp_path: Path) -> None:
    record, tables = go(data_dir("itrax-ardley-yanou"), bundle_path, tmp_path)
    assert record.exit_code == 0
    ends_cm = {
        "ARD1B": 65.0,
        "ARD1C": 98.5,
        "ARD1D": 99.5,
        "ARD1E": 82.5,
        "YAN8A2_2mm": 85.29,
        "YAN8B2_2mm": 38.18,
        "YAN9B1_2mm": 99.94,
    }
    assert set(tables) == set(ends_cm)
    for name, table in tables.items():
        base = floats_of(table, "base_cm")
        assert abs(base[-1] - ends_cm[name]) < 0.03 * ends_cm[name], name
        assert flagged_without_minerals(table), name
        assert np.isfinite(floats_of(table, "density")).mean() > 0.9, name


def test_core_box_photographs(data_dir: DataDir, bundle_path: Path, tmp_path: Path) -> None:
    folder = data_dir("bgs-corescore") / "images"
    files = sorted(path.name for path in folder.iterdir())
    sections = [
        f'file = "{name}"\npx_per_cm = 62.88\ndepth_axis = "x"' for name in files
    ]  # boxes of about 1 m
    record, tables = go(
        manifest(tmp_path, folder, sections),
        bundle_path,
        tmp_path / "out",
        RunSettings(roi="box", superpixels_per_cm2=1),
    )
    assert record.exit_code == 0 and len(tables) == 5
    for table in tables.values():
        assert floats_of(table, "base_cm")[-1] == pytest.approx(100)
        assert flagged_without_minerals(table)
        assert np.isfinite(floats_of(table, "density")).mean() > 0.5
