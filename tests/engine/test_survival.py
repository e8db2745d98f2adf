"""What a run survives: kills at any moment and place, a full disk, a lost device, each without loss or doubling."""

import errno
import itertools
import json
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from apart import SETTINGS, command, run_sections, start
from soak import ANY, kills, memory, tables

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import BackendError, BackendMemoryError, StoppedError
from lithostream.engine.inference import runtimes
from lithostream.engine.inference.choose import Choice
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.stream import failpoints
from lithostream.engine.stream.commit import ASIDE
from lithostream.engine.stream.failpoints import NAMES, VARIABLE
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.runner import run
from lithostream.engine.stream.verify_run import verify_run

CORES, KILLS = 3, 20  # bench/soak.py kills more often


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cores")
    for seed in range(CORES):
        write(generate(60 + seed, length_cm=12.0, width_cm=4.0, px_per_cm=30.0), path)
    return path


@pytest.fixture(scope="module")
def wanted(cores: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("wanted")
    once(cores, bundle_path, out)
    return tables(out)


def once(cores: Path, bundle: Path, out: Path) -> RunRecord:
    return run([cores], bundle, out, SETTINGS, lambda *_: None)


def whole(out: Path, wanted: dict[str, bytes]) -> bool:
    assert tables(out) == wanted
    assert verify_run(out) == (CORES, [])
    assert not list(out.glob(".*.partial")) and not (out / ASIDE).exists()
    return True


def test_killed_at_random_times_a_rerun_gives_the_same_bytes() -> None:
    assert kills(KILLS, seed=7, length_cm=12.0, places=(ANY,)) > KILLS // 2


@pytest.mark.parametrize(("leak_mb", "passes"), [(0.0, True), (10.0, False)])
def test_memory_that_grows_is_seen(leak_mb: float, passes: bool) -> None:
    found = memory(0.02, leak_mb, 12.0, SETTINGS)
    assert found.passed == passes, found


@pytest.mark.parametrize("places", [NAMES[:3], NAMES[3:4]])
def test_killed_at_the_second_time_of_each_place(
    places: tuple[str, ...], cores: Path, bundle_path: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for place in places:  # one after another, in one folder
        process = start(run_sections, cores, bundle_path, out, said=tmp_path / "said", failpoint=f"{place}@2")
        process.join()
        assert process.exitcode == -signal.SIGKILL, (place, (tmp_path / "said").read_text())
    record = once(cores, bundle_path, out)
    assert whole(out, wanted) and len(record.sections) == CORES


@pytest.mark.parametrize(
    "place", [f"{name}=full" for name in NAMES] + ["window-done=full@4", "files-written=full@2"]
)
def test_a_full_disk_leaves_nothing_half_done(
    place: str,
    cores: Path,
    bundle_path: Path,
    wanted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failpoints, "_times", defaultdict(lambda: itertools.count(1)))
    monkeypatch.setenv(VARIABLE, place)
    with pytest.raises(OSError, match="No space left"):
        once(cores, bundle_path, tmp_path)
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    stopped = next(one for one in told if one["kind"] == "stopped")
    assert "No space left" in stopped["reason"]
    assert {one["kind"] for one in told[told.index(stopped) + 1 :]} <= {"committed"}  # what was under way
    done, problems = verify_run(tmp_path)
    renamed = place.startswith("folder-renamed")  # in place, and not yet marked: the rerun takes it up
    assert len(problems) == renamed and done < CORES + place.startswith("record-written")
    assert not (tmp_path / "run.json").exists() or place.startswith("record-written")
    monkeypatch.delenv(VARIABLE)
    assert once(cores, bundle_path, tmp_path).exit_code == 0
    assert whole(tmp_path, wanted)


def test_a_full_disk_is_named_by_the_command(cores: Path, bundle_path: Path, tmp_path: Path) -> None:
    out, said, config = tmp_path / "out", tmp_path / "said", tmp_path / "run.toml"
    config.write_text('backend = "onnxruntime"\nthreads = 1\nrefine = false\n')
    words = ["run", cores, "--bundle", bundle_path, "--out", out, "--config", config]
    process = start(command, *map(str, words), said=said, failpoint="files-written=full@2")
    process.join()
    assert process.exitcode == 4
    assert "disk full" in said.read_text() and "Traceback" not in said.read_text()
    assert verify_run(out) == (1, [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("left_kb", [16, 120, 240, 360])
def test_a_disk_that_is_really_full(
    left_kb: int, small_disk: Path, cores: Path, bundle_path: Path, wanted: dict[str, bytes]
) -> None:
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - left_kb * 1024)
    with pytest.raises(OSError) as error:
        once(cores, bundle_path, small_disk)
    assert error.value.errno == errno.ENOSPC
    ballast.unlink()
    assert once(cores, bundle_path, small_disk).exit_code == 0
    assert whole(small_disk, wanted)


class Failing:
    """Answers rightly until the given call, then fails for good."""

    precision = "fp32"
    on_gpu = False

    def __init__(self, bundle: Bundle, name: str, batch: int, at: int, error: BackendError) -> None:
        self.backend = f"failing {name} {batch}"
        self._real = OnnxRuntimeSession(bundle, batch=batch, threads=1)
        self._left, self._error = at, error

    def infer(self, tiles: npt.NDArray[np.uint8]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._real.infer(tiles)


LOST = BackendError("onnxruntime fails: CUDA failure 719: unspecified launch failure", fix="x")
FULL = BackendMemoryError("onnxruntime is out of memory: CUDA failure 2", fix="x")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[BackendError, bool], None]:
    """Let a backend serve that fails at its fourth call, with the processor behind it, or nothing."""

    def install(error: BackendError, behind: bool) -> None:
        def opened(name: str, bundle: Bundle, batch: int, *_: object) -> Any:
            if name == "onnxruntime-cuda" and batch > 32:
                return Failing(bundle, name, batch, 4, error)
            return OnnxRuntimeSession(bundle, batch=batch, threads=1)

        order = ("onnxruntime-cuda", "onnxruntime") if behind else ("onnxruntime-cuda",)
        monkeypatch.setattr(runtimes, "_open", opened)
        choice = Choice(order=order, why="")  # type: ignore[arg-type]
        monkeypatch.setattr("lithostream.engine.inference.choose.choose", lambda *_, **__: choice)

    return install


@pytest.mark.parametrize("error", [LOST, FULL])
def test_a_device_that_fails_hands_its_section_over_whole(
    error: BackendError,
    gpu: Callable[[BackendError, bool], None],
    cores: Path,
    bundle_path: Path,
    wanted: dict[str, bytes],
    tmp_path: Path,
) -> None:
    gpu(error, True)
    record = once(cores, bundle_path, tmp_path)
    assert whole(tmp_path, wanted)
    served = [str(entry["backend"]).split()[0] for entry in record.sections]
    assert served == [
        "failing",
        "onnxruntime",
        "onnxruntime",
    ]  # of the first, committed while the second retreats
    assert record.notes[0] == error.reason and "went on with onnxruntime" in record.notes[1]


def test_a_lost_device_with_nothing_behind_it_stops_the_run_whole(
    gpu: Callable[[BackendError, bool], None],
    cores: Path,
    bundle_path: Path,
    wanted: dict[str, bytes],
    tmp_path: Path,
) -> None:
    gpu(LOST, False)
    with pytest.raises(StoppedError, match="CUDA failure 719"):
        once(cores, bundle_path, tmp_path)
    assert verify_run(tmp_path) == (1, [])
    gpu(LOST, True)
    once(cores, bundle_path, tmp_path)
    assert whole(tmp_path, wanted)
