"""One real run through pytest-benchmark, and what the harness records of the machine."""

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

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


def test_a_doubled_time_fails_the_gate_and_a_run_beside_itself_passes(
    selftest: ModuleType, run: Path, tmp_path: Path
) -> None:
    doubled = selftest.measure(tmp_path / "doubled", 2 * selftest.UNCHANGED, passes=PASSES)
    assert selftest.gate(run, run) == 0
    assert selftest.gate(run, doubled) == 1


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
