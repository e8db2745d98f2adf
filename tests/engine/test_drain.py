"""What stops a run, and what only holds it up: signals at any moment, readers of events that do not read."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from apart import SETTINGS, command, start
from soak import tables

from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.stream.lock import only_runner
from lithostream.engine.stream.runner import run
from lithostream.engine.stream.verify_run import verify_run

STOPPED, DRAIN_S, PATIENCE_S = 4, 5.0, 20.0


class Place:
    """Two cores, their output, and the command on them."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.cores, self.out, self.said = folder / "cores", folder / "out", folder / "said"
        self._bundle = bundle
        self.cores.mkdir()
        for seed in (71, 72):
            write(generate(seed, length_cm=14.0, width_cm=4.0, px_per_cm=30.0), self.cores)
        config = folder / "run.toml"
        config.write_text('backend = "onnxruntime"\nthreads = 1\nrefine = false\nwindow_cm = 1.0\n')
        self._words = ["--bundle", str(bundle), "--config", str(config)]

    def start(self, *words: str, failpoint: str = "") -> BaseProcess:
        given = ["run", str(self.cores), *self._words, "--out", str(self.out), *words]
        return start(command, *given, said=self.said, failpoint=failpoint)

    def wait(self, process: BaseProcess, kind: str) -> None:
        """Until an event of this kind is told."""
        events, until = self.out / "events.jsonl", time.monotonic() + PATIENCE_S
        while not events.exists() or f'"kind": "{kind}"'.encode() not in events.read_bytes():
            assert process.is_alive() and time.monotonic() < until, self.said.read_text()
            time.sleep(0.01)

    def stopped(self, process: BaseProcess) -> float:
        """Ask the process to end; seconds until it does."""
        assert process.pid
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.02)
        with suppress(ProcessLookupError):  # it may have ended by now; how is asserted below
            os.kill(process.pid, signal.SIGINT)  # of somebody impatient, cuts nothing
        process.join(PATIENCE_S)
        assert process.exitcode == STOPPED, self.said.read_text()
        assert "Traceback" not in self.said.read_text()
        return time.monotonic() - begun

    def done(self) -> bool:
        """Run again to the end; as if nothing had happened."""
        self.once(self.out)
        return verify_run(self.out) == (2, [])

    def once(self, out: Path) -> None:
        """The same run, here."""
        settings = SETTINGS.model_copy(update={"window_cm": 1.0})
        assert run([self.cores], self._bundle, out, settings, lambda *_: None).exit_code == 0


@pytest.fixture
def place(tmp_path: Path, bundle_path: Path) -> Place:
    return Place(tmp_path, bundle_path)


@pytest.mark.parametrize("failpoint", ["window-done=hold@3", "files-written=hold"])
def test_a_signal_ends_a_run_in_time(failpoint: str, place: Place) -> None:
    process = place.start(failpoint=failpoint)
    place.wait(process, "rows")
    if "files" in failpoint:
        until = time.monotonic() + PATIENCE_S
        while not list(place.out.glob(".*.partial/checksums.json")):  # the committer is held, the lanes go on
            assert process.is_alive() and time.monotonic() < until
            time.sleep(0.01)
    assert place.stopped(process) < DRAIN_S
    assert place.done()


class Reader:
    """The reading end of a named pipe that holds two pages."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path, self.seen = path, b""
        self.handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.handle, fcntl.F_SETPIPE_SZ, 8192)

    def held(self) -> bytes:
        """What there is to read now."""
        with suppress(BlockingIOError):
            self.seen += os.read(self.handle, 1 << 16)
        return self.seen


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "pipe")
    yield made
    os.close(made.handle)


def stuck(process: BaseProcess, place: Place) -> None:
    """Wait until a run tells nothing any more."""
    place.wait(process, "rows")
    events, size = place.out / "events.jsonl", -1
    while (now := events.stat().st_size) != size:
        size = now
        time.sleep(0.6)


def test_a_signal_ends_a_run_that_waits_for_a_reader(place: Place, reader: Reader) -> None:
    process = place.start("--events", str(reader.path))
    stuck(process, place)
    assert place.stopped(process) < DRAIN_S
    assert place.done()


def test_a_reader_that_pauses_loses_nothing_and_fills_no_memory(place: Place, reader: Reader) -> None:
    process = place.start("--events", str(reader.path))
    stuck(process, place)
    before = resident_kb(process)
    time.sleep(1.5)
    assert process.is_alive() and resident_kb(process) - before < 1024
    while process.is_alive():
        reader.held()
        time.sleep(0.001)
    assert process.exitcode == 0, place.said.read_text()
    assert reader.held() == (place.out / "events.jsonl").read_bytes()
    assert verify_run(place.out) == (2, [])
    place.once(place.out.with_name("other"))
    assert tables(place.out) == tables(place.out.with_name("other"))


def resident_kb(process: BaseProcess) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_a_watch_takes_no_folder_that_another_process_fills(place: Place) -> None:
    with only_runner(place.out):
        process = place.start("--watch")
        process.join(PATIENCE_S)
    assert (
        process.exitcode == 2
        and f"another runner writes here, process {os.getpid()}" in place.said.read_text()
    )
