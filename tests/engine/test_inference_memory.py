"""Memory that runs out: half the batch, then the next backend, and no section of two sessions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import Backend, RunSettings
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.inference import runtimes
from lithostream.engine.inference.choose import Choice
from lithostream.engine.inference.fallback import ServingSession
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.stream.runner import run

TABLES = ("intervals.parquet", "tiles.parquet", "segments.parquet", "log.las", "strip.png")


class Hungry:
    """Meets the golden cases, then answers wrongly, and runs out of memory at the third call of a section."""

    precision = "fp32"
    on_gpu = False

    def __init__(self, bundle: Bundle, name: str, batch: int) -> None:
        self.backend = f"hungry {name} {batch}"
        self._real, self._calls = OnnxRuntimeSession(bundle, batch=batch, threads=1), 0

    def infer(self, tiles: npt.NDArray[np.uint8]) -> Any:
        self._calls += 1
        if self._calls == 4:
            raise BackendMemoryError(f"{self.backend}: full", fix="less")
        properties, distance = self._real.infer(tiles)
        return properties + np.float32(0 if self._calls == 1 else 1), distance


class Machine:
    """Opens hungry sessions of more than `enough` tiles; a backend named in `broken` opens none."""

    def __init__(self, enough: dict[Backend, int]) -> None:
        self.enough, self.opened = enough, list[tuple[str, int]]()
        self.broken: dict[str, Exception] = {}

    def open(self, name: Backend, bundle: Bundle, batch: int, *_: object) -> Any:
        self.opened.append((name, batch))
        if name in self.broken:
            raise self.broken[name]
        if batch > self.enough[name]:
            return Hungry(bundle, name, batch)
        return OnnxRuntimeSession(bundle, batch=batch, threads=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine({"onnxruntime": 8, "openvino": 8})
    monkeypatch.setattr(runtimes, "_open", made.open)
    monkeypatch.setattr(runtimes, "CPU_CALL", 64)  # so that there is something to halve
    return made


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def serving(bundle: Bundle, batch: int = 16) -> ServingSession:
    order: tuple[Backend, ...] = ("onnxruntime", "openvino")
    return ServingSession(bundle, Choice(order=order, why=""), batch=batch, threads=1, precision="fp32")


def exhaust(session: ServingSession, bundle: Bundle) -> None:
    for _ in range(3):
        session.infer(bundle.golden_tiles)


def test_tiles_a_call() -> None:
    assert runtimes.call_sizes("onnxruntime-cuda", 20) == [20, 10, 5, 2, 1]
    assert runtimes.call_sizes("tensorrt", 1) == [1]
    for on_cpu in ("onnxruntime", "openvino"):  # more gain nothing there
        assert runtimes.call_sizes(on_cpu, 64) == [4, 2, 1]
        assert runtimes.call_sizes(on_cpu, 3) == [3, 1]


def test_a_section_is_computed_again_as_a_whole(
    machine: Machine, core: SyntheticCore, core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    told: list[int] = []
    settings = RunSettings(batch=32, backend="onnxruntime", threads=1)
    found = run([core_image], bundle_path, tmp_path / "a", settings, lambda _s, done, _t: told.append(done))
    assert machine.opened == [("onnxruntime", 32), ("onnxruntime", 16), ("onnxruntime", 8)]
    assert told.count(told[0]) == 3  # begun three times
    machine.enough["onnxruntime"] = 32
    plain = run([core_image], bundle_path, tmp_path / "b", settings, lambda *_: None)
    for name in TABLES:
        ours, theirs = (tmp_path / folder / core.name / name for folder in "ab")
        assert ours.read_bytes() == theirs.read_bytes(), name
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["backend"] == "hungry onnxruntime 32" and record["precision"] == "fp32"
    assert record["sections"][0]["backend"] == plain.backend
    assert record["notes"] == found.notes and "8 tiles per call" in found.notes[-1]
    assert plain.notes == []


def test_after_one_tile_the_next_backend_serves(machine: Machine, bundle: Bundle) -> None:
    machine.enough["onnxruntime"] = 0
    session = serving(bundle, 2)
    with pytest.raises(BackendMemoryError) as error:
        exhaust(session, bundle)
    session.retreat(error.value)
    with pytest.raises(BackendMemoryError) as error:
        exhaust(session, bundle)
    session.retreat(error.value)
    assert machine.opened == [("onnxruntime", 2), ("onnxruntime", 1), ("openvino", 2)]
    exhaust(session, bundle)
    np.testing.assert_allclose(session.infer(bundle.golden_tiles)[0], bundle.golden_properties, rtol=1e-4)
    assert [note for note in session.notes if "full" in note] == [
        "hungry onnxruntime 2: full",
        "hungry onnxruntime 1: full",
    ]


def test_where_nothing_is_left_the_memory_is_named(
    machine: Machine, core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    machine.enough["onnxruntime"] = 0
    with pytest.raises(BackendMemoryError, match="hungry onnxruntime 1: full"):
        run([core_image], bundle_path, tmp_path, RunSettings(batch=4, backend="onnxruntime"), lambda *_: None)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_session_that_does_not_open_gives_way(machine: Machine, bundle: Bundle) -> None:
    machine.broken["onnxruntime"] = BackendError("no such provider", fix="x")
    session = serving(bundle, 8)
    assert machine.opened == [("onnxruntime", 8), ("openvino", 8)]  # a smaller batch would not help
    assert session.notes == ["onnxruntime of 8 tiles per call: no such provider"]


def test_memory_that_runs_out_while_opening_halves_the_batch(machine: Machine, bundle: Bundle) -> None:
    machine.broken["onnxruntime"] = BackendMemoryError("full", fix="x")
    serving(bundle, 4)
    assert machine.opened == [("onnxruntime", 4), ("onnxruntime", 2), ("onnxruntime", 1), ("openvino", 4)]


def test_the_first_reason_is_given_where_none_opens(machine: Machine, bundle: Bundle) -> None:
    machine.broken["onnxruntime"] = BundleError("misses by 0.2", fix="x")
    machine.broken["openvino"] = BackendError("broken", fix="x")
    with pytest.raises(BundleError, match=r"misses by 0\.2"):
        serving(bundle)
