"""A folder as facilities have them: one good scan among everything that can be wrong with the others."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import SyntheticCore, write
from lithostream.engine.stream.runner import run

SIDECAR = "<linescan><pixels-per-CM>{scale}</pixels-per-CM><physical-top>0</physical-top>{more}</linescan>"


def grey(height: int = 80, width: int = 64) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), 120, np.uint8)


def scan(path: Path, *, scale: str = "32", more: str = "", rows: int = 80, width: int = 64) -> Path:
    tifffile.imwrite(path, grey(rows, width), photometric="rgb", rowsperstrip=16)
    path.with_suffix(".xml").write_text(SIDECAR.format(scale=scale, more=more))
    return path


def truncated_tiff(folder: Path) -> None:
    path = scan(folder / "truncated.tif")
    path.write_bytes(path.read_bytes()[:-500])


def truncated_png(folder: Path) -> None:
    path = folder / "truncated.png"
    Image.fromarray(grey()).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    path.with_suffix(".xml").write_text(SIDECAR.format(scale="32", more=""))


def truncated_jpeg(folder: Path) -> None:
    path = folder / "truncated.jpg"
    Image.fromarray(grey()).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    path.with_suffix(".xml").write_text(SIDECAR.format(scale="32", more=""))


def header_bomb(folder: Path) -> None:
    header = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + struct.pack(">IIBBBBB", 400_000, 400_000, 8, 2, 0, 0, 0)
    )
    (folder / "bomb.png").write_bytes(header + b"\0" * 64)


def no_scale(folder: Path) -> None:
    tifffile.imwrite(folder / "noscale.tif", grey(), photometric="rgb")


def contradicting_scale(folder: Path) -> None:
    path = folder / "contradiction.tif"
    tifffile.imwrite(path, grey(), photometric="rgb", resolution=(40, 40), resolutionunit="CENTIMETER")
    path.with_suffix(".xml").write_text(SIDECAR.format(scale="32", more=""))


def thin(folder: Path) -> None:
    scan(folder / "thin.tif", rows=1, width=64)


def zero_scale(folder: Path) -> None:
    scan(folder / "zeroscale.tif", scale="0")


def leaving_sidecar(folder: Path) -> None:
    scan(folder / "leaving.tif", more="<image-file>../../etc/passwd</image-file>")


def wrong_unit_log(folder: Path) -> None:
    path = scan(folder / "wrongunit.tif")
    path.with_name("wrongunit_mscl.csv").write_text("depth,density\ncm,furlong\n1,1.5\n2,1.6\n")


CASES = {
    "truncated.tif": truncated_tiff,
    "truncated.png": truncated_png,
    "truncated.jpg": truncated_jpeg,
    "bomb.png": header_bomb,
    "noscale.tif": no_scale,
    "contradiction.tif": contradicting_scale,
    "thin.tif": thin,
    "zeroscale.xml": zero_scale,
    "leaving.xml": leaving_sidecar,
    "wrongunit_mscl.csv": wrong_unit_log,
}


def test_each_bad_file_says_why_and_the_good_one_finishes(
    core: SyntheticCore, bundle_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(core, folder)
    for make in CASES.values():
        make(folder)
    record = run([folder], bundle_path, tmp_path / "out", RunSettings(), lambda *_: None)
    assert record.exit_code == 3
    assert [section["name"] for section in record.sections] == [core.name]
    named = {Path(str(entry["file"])).name for entry in record.quarantined}
    assert named == set(CASES)
    for entry in record.quarantined:
        assert entry["reason"] and entry["fix"], entry
    stored = [json.loads(path.read_text()) for path in (tmp_path / "out" / "quarantine").iterdir()]
    assert len(stored) == len(CASES)
    assert {Path(entry["file"]).name for entry in stored} == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_bad_file_alone_leaves_no_numbers(name: str, bundle_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    CASES[name](folder)
    record = run([folder], bundle_path, tmp_path / "out", RunSettings(), lambda *_: None)
    assert record.sections == [] and len(record.quarantined) == 1
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_inputs_of_one_name_keep_their_own_reasons(bundle_path: Path, tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / "in" / place).mkdir(parents=True)
        no_scale(tmp_path / "in" / place)
    run([tmp_path / "in"], bundle_path, tmp_path / "out", RunSettings(), lambda *_: None)
    stored = [json.loads(path.read_text()) for path in (tmp_path / "out" / "quarantine").iterdir()]
    assert sorted(Path(entry["file"]).parent.name for entry in stored) == ["a", "b"]
    scan(tmp_path / "in" / "a" / "noscale.tif")
    scan(tmp_path / "in" / "b" / "noscale.tif")
    record = run([tmp_path / "in"], bundle_path, tmp_path / "out", RunSettings(), lambda *_: None)
    assert record.exit_code == 0 and not (tmp_path / "out" / "quarantine").exists()
