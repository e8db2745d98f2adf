"""The command that maps."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from map_scene import PREDICTORS, write_stack
from typer.testing import CliRunner

from lithostream.engine.cli_map import map_command, verify_files, verify_map_bundle
from lithostream.engine.errors import ConfigError

app = typer.Typer()
app.command("map")(map_command)
app.command("other")(lambda: None)  # with one command alone there would be no name


def invoke(*words: object) -> str:
    done = CliRunner().invoke(app, ["map", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def write_points(file: Path) -> None:
    np.savetxt(
        file,
        np.random.default_rng(1).normal(size=(5, 7)),
        delimiter=",",
        header=",".join(one.name for one in PREDICTORS),
        comments="",
    )


def test_points_become_a_table(map_bundle: Path, tmp_path: Path) -> None:
    write_points(tmp_path / "p.csv")
    out = tmp_path / "MAP.csv"
    said = json.loads(invoke(tmp_path / "p.csv", "--bundle", map_bundle, "--out", out, "--json"))
    assert said["files"] == [str(out)] and said["counts"]["answered"] == 5 and not said["unchanged"]
    assert any("no coordinates" in note for note in said["notes"])
    assert invoke(tmp_path / "p.csv", "--bundle", map_bundle, "--out", out).strip() == str(out)


def test_files_of_a_map_are_verified(
    map_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_points(tmp_path / "p.csv")
    out = tmp_path / "MAP.csv"
    invoke(tmp_path / "p.csv", "--bundle", map_bundle, "--out", out)
    verify_files(out)
    assert capsys.readouterr().out == "1 files whole\n"
    out.write_text(out.read_text().replace("0.", "1.", 1))
    with pytest.raises(ConfigError, match="1 problems"):
        verify_files(out)
    assert "MAP.csv: its SHA-256 is not that of MAP.json" in capsys.readouterr().err


def test_a_bundle_is_verified(map_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify_map_bundle(map_bundle)
    said = capsys.readouterr().out
    assert said.startswith("random perceptrons ") and "whole; golden rows met by onnxruntime" in said


def test_rasters_become_a_raster(map_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="rasters need rasterio: [geo]")
    pytest.importorskip("pyogrio", reason="GeoPackages need pyogrio: [geo]")
    write_stack(tmp_path / "stack.tif", (30, 40))
    words = [tmp_path / "stack.tif", "--bundle", map_bundle, "--out", tmp_path / "MAP.tif", "--threads", 2]
    said = json.loads(invoke(*words, "--targets", 3, "--json"))
    assert said["counts"]["all"] == 1200
    assert sorted(Path(file).name for file in said["files"]) == [
        "MAP.html", "MAP.tif", "MAP_flags.tif", "MAP_targets.csv", "MAP_targets.gpkg",
    ]  # fmt: skip
    assert all(Path(file).is_file() for file in said["files"])
