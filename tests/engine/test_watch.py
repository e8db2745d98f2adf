"""A folder that fills: settle time, late sidecars, rename into place, growing files, a share that goes away."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import generate
from lithostream.engine.core.synthetic.files import write
from lithostream.engine.stream.runner import Runner
from lithostream.engine.stream.verify_run import verify_run
from lithostream.engine.stream.watch import Settling, Watch

SETTLE_S = 5.0


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A watched folder, its clock, and what was taken."""

    def __init__(self, folder: Path, runner: Runner) -> None:
        self.clock, self.folder, self.runner = Hand(), folder, runner
        self.watch = Watch(folder, runner, Settling(SETTLE_S, self.clock))

    def after(self, seconds: float) -> int:
        self.clock.now += seconds
        return self.watch.round(lambda *_: None)

    @property
    def done(self) -> list[str]:
        return [str(entry["folder"]) for entry in self.runner.record.sections]

    @property
    def refused(self) -> list[str | None]:
        return [entry["name"] for entry in self.runner.record.quarantined]


@pytest.fixture
def place(tmp_path: Path, bundle_path: Path) -> Iterator[Place]:
    folder = tmp_path / "in"
    folder.mkdir()
    settings = RunSettings(backend="onnxruntime", threads=1)
    with Runner(bundle_path, tmp_path / "out", settings) as runner:
        yield Place(folder, runner)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image of a short core; its sidecar lies beside it."""
    made = generate(41, length_cm=10.0, width_cm=4.0, px_per_cm=30.0)
    return write(made, tmp_path_factory.mktemp("core"))


def test_a_file_is_taken_once_it_has_settled(place: Place, core: Path) -> None:
    assert place.after(0) == 0
    for path in core.parent.iterdir():
        shutil.copy2(path, place.folder)
    assert place.after(0) == 0
    assert place.after(SETTLE_S - 0.1) == 0
    assert place.after(0.2) == 1
    assert place.done == [core.stem]
    assert place.after(100) == 0


def test_a_growing_file_is_waited_for(place: Place, core: Path) -> None:
    content = core.read_bytes()
    shutil.copy2(core.with_suffix(".xml"), place.folder)
    target = place.folder / core.name
    for share in (0.3, 0.6, 0.9):
        target.write_bytes(content[: int(share * len(content))])
        assert place.after(SETTLE_S - 1) == 0
    target.write_bytes(content)
    assert place.after(1) == 0
    assert place.after(SETTLE_S) == 1
    assert place.done == [core.stem] and not place.refused


def test_a_late_sidecar_mends_a_refusal(place: Place, core: Path) -> None:
    tifffile.imwrite(place.folder / core.name, tifffile.imread(core))  # nothing says its scale
    place.after(0)
    assert place.after(SETTLE_S) == 1
    assert (place.done, place.refused) == ([], [core.name])
    shutil.copy2(core.with_suffix(".xml"), place.folder)
    place.after(0)
    assert place.after(SETTLE_S) == 1
    assert place.done == [core.stem] and place.refused == []
    assert not list((place.runner.record.out / "quarantine").iterdir())


def test_a_rename_into_place_is_a_new_file(place: Place, core: Path) -> None:
    shutil.copy2(core.with_suffix(".xml"), place.folder)
    hidden = place.folder / f".{core.name}.tmp"
    shutil.copy2(core, hidden)
    assert place.after(2 * SETTLE_S) == 0
    hidden.rename(place.folder / core.name)
    assert place.after(0) == 0
    assert place.after(SETTLE_S) == 1


def test_a_new_scan_under_the_same_name_is_a_new_version(place: Place, core: Path) -> None:
    for path in core.parent.iterdir():
        shutil.copy2(path, place.folder)
    place.after(0)
    assert place.after(SETTLE_S) == 1
    pixels = bytearray(core.read_bytes())
    pixels[len(pixels) // 2] ^= 1
    (place.folder / core.name).write_bytes(pixels)
    place.after(0)
    assert place.after(SETTLE_S) == 1
    assert place.done == [f"{core.stem}.v2"]


def test_a_share_that_goes_and_comes_back_is_no_loss(place: Place, core: Path) -> None:
    for path in core.parent.iterdir():
        shutil.copy2(path, place.folder)
    place.after(0)
    away = place.folder.rename(place.folder.with_name("away"))
    assert place.after(SETTLE_S) == 0 and not place.refused
    away.rename(place.folder)
    assert place.after(0) + place.after(SETTLE_S) == 1
    assert place.done == [core.stem]


def test_a_damaged_file_stops_nothing(place: Place, core: Path) -> None:
    for path in core.parent.iterdir():
        shutil.copy2(path, place.folder)
    (place.folder / "cut.tif").write_bytes(core.read_bytes()[:1000])
    place.after(0)
    assert place.after(SETTLE_S) == 2
    assert place.done == [core.stem] and place.refused == ["cut.tif"]
    assert place.after(SETTLE_S) == 0


def test_the_command_takes_what_comes_and_stops_whole(core: Path, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    config = tmp_path / "run.toml"
    config.write_text('settle_s = 0.2\nbackend = "onnxruntime"\n')
    program = [sys.executable, "-m", "lithostream.engine.cli", "run", str(tmp_path / "in"), "--watch"]
    process = subprocess.Popen(
        [*program, "--bundle", str(bundle_path), "--out", str(tmp_path / "out"), "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for path in core.parent.iterdir():
        shutil.copy2(path, tmp_path / "in")
    report, deadline = tmp_path / "out" / "report.html", time.monotonic() + 60
    while not report.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 4, said
    assert report.exists(), said
    assert verify_run(tmp_path / "out") == (1, [])
