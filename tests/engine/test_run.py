"""The main job from files to a committed run, on a core whose truth is known."""

import json
from pathlib import Path

import lasio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from lithostream.engine.bundle import sha256_file
from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.core.tables import flags_of, floats_of
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.runner import run

TABLES = ("intervals.parquet", "tiles.parquet", "segments.parquet")


def quiet(section: str, done: int, total: int) -> None:
    assert 0 < done <= total


@pytest.fixture(scope="module")
def finished(core_image: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run([core_image], bundle_path, tmp_path_factory.mktemp("run"), RunSettings(), quiet)


@pytest.fixture(scope="module")
def intervals(finished: RunRecord, core: SyntheticCore) -> pa.Table:
    return pq.read_table(finished.out / core.name / "intervals.parquet")


def test_a_section_folder_holds_what_is_promised(finished: RunRecord, core: SyntheticCore) -> None:
    names = {path.name for path in (finished.out / core.name).iterdir()}
    assert names == {*TABLES, "log.las", "strip.png", "segments.tif", "minerals.png", "checksums.json"}
    assert [path.name for path in finished.out.iterdir() if path.name.startswith(".")] == [".lock"]


def test_units_travel_with_every_number(finished: RunRecord, core: SyntheticCore) -> None:
    for name in TABLES:
        schema = pq.read_schema(finished.out / core.name / name)
        for field in schema:
            assert field.metadata[b"description"], field.name
            if pa.types.is_floating(field.type):
                assert field.metadata[b"unit"], field.name
    assert schema.field("density").metadata[b"unit"] == b"g/cm3"


def test_intervals_cover_the_section_without_a_hole(intervals: pa.Table, core: SyntheticCore) -> None:
    top, base = floats_of(intervals, "top_cm"), floats_of(intervals, "base_cm")
    assert top[0] == 0 and base[-1] == pytest.approx(core.layout.length_cm)
    assert np.array_equal(top[1:], base[:-1])


def test_values_where_there_is_core_and_only_there(intervals: pa.Table, core: SyntheticCore) -> None:
    share = core.truth_at(floats_of(intervals, "top_cm"), floats_of(intervals, "base_cm"))["core_share"]
    known = np.isfinite(floats_of(intervals, "density"))
    assert known[share > 0.99].all()
    assert not known[share < 0.01].any()
    assert np.array_equal(flags_of(intervals, "no_core"), ~known)


def test_properties_are_better_than_the_average(intervals: pa.Table, core: SyntheticCore) -> None:
    truth = core.truth_at(floats_of(intervals, "top_cm"), floats_of(intervals, "base_cm"))
    whole = truth["core_share"] > 0.999
    for name in ("density", "p_wave_velocity", "magnetic_susceptibility"):
        value, true = floats_of(intervals, name)[whole], truth[name][whole]
        assert np.mean((value - true) ** 2) < np.mean((true - true.mean()) ** 2), name


def test_abundances_are_shares(intervals: pa.Table) -> None:
    outside = flags_of(intervals, "out_of_domain")
    assert outside.mean() <= 0.1  # the same generator: almost all of it is known material
    known = np.isfinite(floats_of(intervals, "density")) & ~outside
    minerals = [name for name in intervals.column_names if name.endswith("_vol_pct")]
    total = sum(floats_of(intervals, name) for name in minerals)
    assert len(minerals) == 5
    assert not any(np.isfinite(floats_of(intervals, name)[outside]).any() for name in minerals)
    assert np.allclose(np.asarray(total)[known], 100, atol=1e-6)
    assert min(np.nanmin(floats_of(intervals, name)) for name in minerals) >= 0


def test_segments_tile_the_core(finished: RunRecord, core: SyntheticCore) -> None:
    segments = pq.read_table(finished.out / core.name / "segments.parquet")
    intervals = pq.read_table(finished.out / core.name / "intervals.parquet")
    width = core.core_mask.shape[1]
    rows = (floats_of(intervals, "base_cm") - floats_of(intervals, "top_cm")) * core.px_per_cm
    core_px = floats_of(intervals, "core_fraction") @ rows * width
    assert floats_of(segments, "area_px").sum() == pytest.approx(core_px)


def test_the_segment_map_is_that_of_the_table(finished: RunRecord, core: SyntheticCore) -> None:
    segments = pq.read_table(finished.out / core.name / "segments.parquet")
    labels = tifffile.imread(finished.out / core.name / "segments.tif")
    assert labels.shape == core.core_mask.shape
    area_px = np.bincount(labels.ravel(), minlength=len(segments) + 1)[1:]
    assert np.array_equal(area_px, segments["area_px"].to_numpy())


def test_log_opens_in_lasio(finished: RunRecord, core: SyntheticCore, intervals: pa.Table) -> None:
    las = lasio.read(finished.out / core.name / "log.las")
    assert las.version["VERS"].value == 2.0
    assert np.allclose(las["RHOB"], floats_of(intervals, "density"), atol=1e-5, equal_nan=True)
    assert las.curves["RHOB"].unit == "g/cm3"


def test_strip_is_a_picture(finished: RunRecord, core: SyntheticCore) -> None:
    with Image.open(finished.out / core.name / "strip.png") as strip:
        assert strip.size == (core.image.shape[1] // 2, core.image.shape[0] // 2)


def test_run_record_lets_an_auditor_repeat_the_run(finished: RunRecord, core_image: Path) -> None:
    record = json.loads((finished.out / "run.json").read_text())
    inputs = {Path(item["file"]).name: item["sha256"] for item in record["sections"][0]["inputs"]}
    assert inputs[core_image.name] == sha256_file(core_image)
    assert f"{core_image.stem}.xml" in inputs
    assert record["bundle"]["sha256"] == finished.bundle.sha256
    assert {"lithostream", "onnxruntime", "numpy", "pyarrow", "python"} <= set(record["versions"])
    assert record["settings"] == RunSettings().model_dump()
    assert record["sections"][0]["seconds"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"slab_rows": 7},
        {"slab_rows": 100_000},
        {"batch": 1},
        {"batch": 3},
        {"batch": 333},
        {"threads": 1},
        {"threads": 5},
    ],
    ids=str,
)
def test_same_input_same_bytes(
    finished: RunRecord,
    core: SyntheticCore,
    core_image: Path,
    bundle_path: Path,
    tmp_path: Path,
    changes: dict[str, int],
) -> None:
    again = run([core_image], bundle_path, tmp_path, RunSettings.model_validate(changes), quiet)
    for path in sorted((finished.out / core.name).iterdir()):
        if path.name == "checksums.json":  # says how long it took
            continue
        assert path.read_bytes() == (again.out / core.name / path.name).read_bytes(), path.name


def test_other_settings_make_a_version_beside_the_first(
    core: SyntheticCore, core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    run([core_image], bundle_path, tmp_path, RunSettings(interval_cm=2.0), quiet)
    record = run([core_image], bundle_path, tmp_path, RunSettings(), quiet)
    second = f"{core.name}.v2"
    assert [entry["folder"] for entry in record.sections] == [second]
    assert pq.read_table(tmp_path / core.name / "intervals.parquet").num_rows == 20
    assert pq.read_table(tmp_path / second / "intervals.parquet").num_rows == 40
    names = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert names == [core.name, second, "events.jsonl", "ledger.sqlite", "run.json"]


def test_one_bad_file_quarantines_itself(
    core: SyntheticCore, core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "cut.tif"
    bad.write_bytes(core_image.read_bytes()[: core_image.stat().st_size // 2])
    bad.with_suffix(".xml").write_bytes(core_image.with_suffix(".xml").read_bytes())
    record = run([bad, core_image], bundle_path, tmp_path / "out", RunSettings(), quiet)
    assert record.exit_code == 3
    assert [section["name"] for section in record.sections] == [core.name]
    entry = json.loads((tmp_path / "out" / "quarantine" / "cut.tif.json").read_text())
    assert entry["file"] == str(bad) and entry["reason"] and entry["fix"]
    assert not (tmp_path / "out" / "cut").exists()


def test_abundances_say_what_they_rest_on(finished: RunRecord, core: SyntheticCore) -> None:
    intervals = pq.read_table(finished.out / core.name / "intervals.parquet")
    segments = pq.read_table(finished.out / core.name / "segments.parquet")
    answered = np.isfinite(floats_of(segments, "quartz_vol_pct"))
    names = [f"{name}_source" for name in ("density", "p_wave_velocity", "magnetic_susceptibility")]
    sources = np.stack([segments[name].to_numpy(zero_copy_only=False) for name in names])
    # At the ends of the log and of the core a value may come from neither.
    assert set(sources[:, answered].ravel()) == {"predicted", "measured", None}
    assert (sources[:, answered] != None).any(axis=0).all()
    for table in (intervals, segments):
        low, value, high = (floats_of(table, f"quartz_vol{part}_pct") for part in ("_low", "", "_high"))
        known = np.isfinite(value)
        assert known.any()
        assert (low[known] <= value[known] + 1e-9).all() and (value[known] <= high[known] + 1e-9).all()
