"""Reflectance through a whole run: there where a manifest calibrates colours, and nowhere else."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tifffile

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.core.tables import floats_of
from lithostream.engine.stream.runner import run

COLUMNS = ("red_reflectance", "green_reflectance", "blue_reflectance")


def quiet(section: str, done: int, total: int) -> None:
    pass


def test_a_plate_of_known_white_gives_every_segment_its_reflectance(
    core: SyntheticCore, core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    plate = np.full((20, core.core_mask.shape[1], 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "plate.tif", plate)
    (tmp_path / "core.tif").write_bytes(core_image.read_bytes())
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        '[calibration]\ntransfer = "linear"\nflat = "plate.tif"\nflat_reflectance = 0.8\n'
        f'[[section]]\nfile = "core.tif"\npx_per_cm = {core.px_per_cm}\ntop_cm = 0.0\n'
    )
    record = run([manifest], bundle_path, tmp_path / "out", RunSettings(), quiet)
    assert not record.quarantined
    entry = record.sections[0]
    assert any("calibrated on the plate" in note for note in entry["notes"])  # type: ignore[attr-defined]
    assert any("plate.tif" in item["file"] for item in entry["inputs"])  # type: ignore[attr-defined]
    segments = pq.read_table(tmp_path / "out" / str(entry["folder"]) / "segments.parquet")
    for colour, column in zip(("red", "green", "blue"), COLUMNS, strict=True):
        found, expected = floats_of(segments, column), floats_of(segments, colour) / 200 * 0.8
        known = np.isfinite(found)
        assert known.mean() > 0.9
        # Clipped pixels, at most 1 % of a segment, count in the colour and not in the reflectance.
        np.testing.assert_allclose(found[known], expected[known], rtol=0.02)


def test_without_calibration_there_is_no_reflectance(
    core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    record = run([core_image], bundle_path, tmp_path / "out", RunSettings(), quiet)
    entry = record.sections[0]
    assert any("colours not calibrated" in note for note in entry["notes"])  # type: ignore[attr-defined]
    segments = pq.read_table(tmp_path / "out" / str(entry["folder"]) / "segments.parquet")
    assert all(np.isnan(floats_of(segments, column)).all() for column in COLUMNS)
