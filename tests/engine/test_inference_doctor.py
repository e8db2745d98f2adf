"""`lithostream doctor` and the options of `run`, as a person and a script see them."""

import json
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from lithostream.engine import doctor, machine
from lithostream.engine.cli import app
from lithostream.engine.config import AnyBackend, Backend
from lithostream.engine.inference.openvino import missing as openvino_missing


def told(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_backend_is_listed_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "missing", lambda name: None if name == "onnxruntime" else f"get {name} [extra]"
    )
    said = told()
    for name in get_args(Backend):
        assert name in said
        assert (f"{name}: get {name} [extra]" in said) == (name != "onnxruntime")
    assert machine.cpu_model() in said and "onnxruntime " in said
    assert "auto picks" not in said


def test_with_a_bundle_it_measures_and_says_what_auto_picks(bundle_path: Path) -> None:
    found = json.loads(told(bundle_path, "--json"))
    states = {one["backend"]: one for one in found["backends"]}
    assert list(states) == list(get_args(Backend))
    oracle = states["onnxruntime"]["measured"]
    assert states["onnxruntime"]["missing"] is None and oracle["tiles_per_s"] > 0
    assert oracle["deviation"] <= oracle["allowed"] == 1e-3
    assert (states["openvino"]["measured"] is None) == (openvino_missing() is not None)
    assert found["picks"].split()[0] in ("onnxruntime", "openvino") and found["why"]
    said = told(bundle_path)
    assert f"auto picks {found['picks']} for fp32: {found['why']}" in said
    assert "of 0.001" in said


def test_a_precision_that_nothing_serves_is_told(bundle_path: Path) -> None:
    found = json.loads(told(bundle_path, "--precision", "int8", "--json"))
    assert found["picks"] is None and "no int8 graph" in found["why"]


def test_a_bundle_that_is_not_whole_exits_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["doctor", str(tmp_path)]).exit_code != 0


def test_options_of_a_run_stand_above_its_settings(
    core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text('backend = "tensorrt"\nprecision = "fp32"\nbatch = 16\n')
    out = tmp_path / "out"
    arguments = ["run", core_image, "--bundle", bundle_path, "--out", out, "--config", config]
    done = CliRunner().invoke(app, [*map(str, arguments), "--backend", "onnxruntime"])
    assert done.exit_code == 0, done.output
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["backend"] == "onnxruntime" and record["settings"]["batch"] == 16
    assert record["backend"].startswith("onnxruntime ") and record["precision"] == "fp32"
    assert record["notes"] == []


def test_names_of_backends() -> None:
    assert get_args(AnyBackend) == ("auto", *get_args(Backend))


def test_the_machine_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("vendor_id : x\nmodel name\t: Some CPU @ 3 GHz\n")
    card = tmp_path / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 4\n")
    monkeypatch.setattr(machine, "CPU_FILE", cpu)
    monkeypatch.setattr(machine, "GPU_FOLDER", tmp_path / "gpus")
    assert machine.cpu_model() == "Some CPU @ 3 GHz"
    assert machine.gpus() == ("NVIDIA H200",)
    monkeypatch.setattr(machine, "GPU_FOLDER", tmp_path / "none")
    assert machine.gpus() == () and machine.usable_cores() >= 1
    assert machine.versions(("numpy", "no-such-package")).keys() == {"numpy"}
