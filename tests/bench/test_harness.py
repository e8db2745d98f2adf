"""One real run through pytest-benchmark, and what the harness records of the machine."""

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import ceiling
import numpy as np
import pytest

PASSES = 4


@pytest.fixture(scope="module")
def run(selftest: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = selftest.measure(tmp_path_factory.mktemp("tiny") / "run", selftest.UNCHANGED, passes=PASSES)
    assert isinstance(path, Path)
    return path


def test_passes_are_joined_and_kept_apart(run: Path) -> None:
    benchmarks = json.loads(run.read_text())["benchmarks"]
    names = ["bench_paired", "bench_paired_peer_sort", "bench_alone"]
    assert [entry["name"] for entry in benchmarks] == names
    for entry in benchmarks:
        passes = entry["extra_info"]["passes"]
        assert len(passes) == PASSES
        assert (
            sum(turn["rounds"] for turn in passes) == len(entry["stats"]["data"]) == entry["stats"]["rounds"]
        )
        assert entry["stats"]["median"] == pytest.approx(np.median(entry["stats"]["data"]))
        assert all(1e-5 < turn["calibration_s"] < 0.1 for turn in passes)


def test_machine_is_written_down(run: Path) -> None:
    machine = json.loads(run.read_text())["machine_info"]["lithostream"]
    assert machine["cpu"]
    assert machine["cores"] == os.cpu_count()
    assert machine["versions"]["numpy"] == np.__version__
    assert {"numpy", "numba", "scipy"} <= set(machine["versions"])
    assert machine["threads"]["numba"] >= 1
    assert 0 <= machine["taken_by_others"] <= 1


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs /proc/stat")
def test_work_of_others_is_told_from_our_own(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    wall_s, own_s, all_s = harness.cpu_seconds()
    monkeypatch.setattr(harness, "STARTED", (wall_s - 100, own_s - 40, all_s - 40 - 50 * cores))
    assert harness.taken_by_others() == pytest.approx(0.5, abs=0.01)
    monkeypatch.setattr(harness, "STARTED", (wall_s - 100, own_s - 90, all_s - 90))
    assert harness.taken_by_others() == pytest.approx(0.0, abs=0.01)


def test_a_doubled_time_fails_the_gate_and_a_run_beside_itself_passes(
    selftest: ModuleType, run: Path, tmp_path: Path
) -> None:
    doubled = selftest.measure(tmp_path / "doubled", 2 * selftest.UNCHANGED, passes=PASSES)
    assert selftest.gate(run, run) == 0
    assert selftest.gate(run, doubled) in {1, 2}  # 2 on a busy machine, which proves no loss


def fake_cupy(monkeypatch: pytest.MonkeyPatch, *, device: bool) -> None:
    class CUDARuntimeError(RuntimeError):
        pass

    def properties(index: int) -> dict[str, bytes]:
        if not device:
            raise CUDARuntimeError("cudaErrorNoDevice")
        return {"name": b"Test GPU"}

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceProperties=properties, driverGetVersion=lambda: 12040
    )
    module = ModuleType("cupy")
    module.__spec__ = ModuleSpec("cupy", None)
    monkeypatch.setattr(module, "cuda", SimpleNamespace(runtime=runtime), raising=False)
    monkeypatch.setitem(sys.modules, "cupy", module)


@pytest.mark.parametrize(("device", "words"), [(True, "Test GPU, driver for CUDA 12040"), (False, "none")])
def test_gpu_of_the_machine(
    harness: ModuleType, monkeypatch: pytest.MonkeyPatch, device: bool, words: str
) -> None:
    fake_cupy(monkeypatch, device=device)
    assert harness.gpu() == words


def test_no_cupy_is_no_gpu(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    assert harness.gpu() == "none"


def test_share_of_the_ceiling(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    content = json.loads(run.read_text())
    machine, entry = content["machine_info"]["lithostream"], content["benchmarks"][0]
    assert machine["copy_gb_s"] > 0.5
    entry["extra_info"]["bytes"] = machine["copy_gb_s"] * 1e9 * entry["stats"]["median"] / 4
    ((name, _, _, share),) = ceiling.shares(content)
    assert name == "bench_paired"
    assert share == pytest.approx(0.25)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    assert ceiling.main(path) == 0
    assert "25.0%" in capsys.readouterr().out
    path.write_text("[]")
    assert ceiling.main(path) == 2
    assert str(path) in capsys.readouterr().err
