"""Live scans that are killed, stopped, repeated: what arrived is processed, in the order it came, once."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from apart import SETTINGS, command, start
from soak import tables

from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.images import read_image
from lithostream.engine.io.line_format import END_MARK, LineHeader, to_records
from lithostream.engine.io.pixels import Pixels
from lithostream.engine.stream.ledger import Ledger
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.runner import Runner, run
from lithostream.engine.stream.scan import SPOOL, scan
from lithostream.engine.stream.verify_run import verify_run

LIVE = SETTINGS.model_copy(update={"window_cm": 1.0})
PX_PER_CM, PATIENCE_S = 30.0, 20.0


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    made = generate(81, length_cm=12.0, width_cm=4.0, px_per_cm=PX_PER_CM)
    return read_image(write(made, tmp_path_factory.mktemp("core")))[0]


def lines(pixels: Pixels, name: str = "A", end: bytes = END_MARK) -> bytes:
    """One section as it is sent."""
    header = LineHeader(
        lithostream_lines=1,
        name=name,
        width_px=pixels.shape[1],
        channels=3,
        px_per_cm=PX_PER_CM,
        counts_per_line=1.0,
    )
    return header.to_line() + to_records(np.arange(len(pixels)), pixels) + end


@contextmanager
def camera(folder: Path, sent: bytes, *, hold: bool = False) -> Iterator[str]:
    """Send to one reader, and hang up; or never hang up, until the reader goes."""
    path = folder / "socket"
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        with suppress(ConnectionError), server.accept()[0] as link:
            link.sendall(sent)
            if hold:
                link.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"unix:{path}"
    thread.join(PATIENCE_S)
    server.close()


def scanned(folder: Path, bundle: Path, out: Path, sent: bytes) -> RunRecord:
    with camera(folder, sent) as address, Runner(bundle, out, LIVE) as runner:
        scan(address, runner, lambda *_: None)
    return runner.record


@pytest.fixture
def waiting(tmp_path: Path, bundle_path: Path, pixels: Pixels) -> Iterator[BaseProcess]:
    """A scan that has all lines of a section, but for the end mark, and waits for more."""
    sent, spool = lines(pixels, end=b""), tmp_path / "out" / SPOOL / "A.lines"
    config = tmp_path / "run.toml"
    config.write_text('backend = "onnxruntime"\nthreads = 1\nrefine = false\nwindow_cm = 1.0\n')
    with camera(tmp_path, sent, hold=True) as address:
        words = ["scan", address, "--bundle", bundle_path, "--out", tmp_path / "out", "--config", config]
        process = start(command, *map(str, words), said=tmp_path / "said")
        until = time.monotonic() + PATIENCE_S
        while not (spool.exists() and spool.stat().st_size == len(sent) and told(tmp_path / "out")):
            assert process.is_alive() and time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.01)
        yield process
        process.kill()
        process.join()


def told(out: Path) -> bool:
    return b'"kind": "rows"' in (out / "events.jsonl").read_bytes()


def as_file(tmp_path: Path, bundle: Path, spool: Path) -> dict[str, bytes]:
    """What a run of the spool alone makes of it."""
    shutil.copy(spool, tmp_path / "A.lines")
    run([tmp_path / "A.lines"], bundle, tmp_path / "file", LIVE, lambda *_: None)
    return tables(tmp_path / "file")


def killed(process: BaseProcess, _said: Path) -> None:
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def stopped(process: BaseProcess, said: Path) -> None:
    assert process.pid
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.join(PATIENCE_S)
    assert process.exitcode == 4 and time.monotonic() - begun < 5.0
    assert "Traceback" not in said.read_text()


@pytest.mark.parametrize("end", [killed, stopped])
def test_lines_that_arrived_outlast_the_scan(
    end: Callable[[BaseProcess, Path], None],
    waiting: BaseProcess,
    bundle_path: Path,
    pixels: Pixels,
    tmp_path: Path,
) -> None:
    end(waiting, tmp_path / "said")
    assert verify_run(tmp_path / "out") == (0, [])
    record = scanned(tmp_path, bundle_path, tmp_path / "out", lines(pixels[::-1], "B"))
    assert [entry["name"] for entry in record.sections] == ["A", "B"]
    assert verify_run(tmp_path / "out") == (2, [])
    wanted = as_file(tmp_path, bundle_path, tmp_path / "out" / SPOOL / "A.lines")
    found = tables(tmp_path / "out")
    assert len(wanted) == 7 and {name: found[name] for name in wanted} == wanted


def test_a_scan_holds_its_folder(waiting: BaseProcess, bundle_path: Path, tmp_path: Path) -> None:
    reason = f"another runner writes here, process {waiting.pid}"
    with pytest.raises(ConfigError, match=reason):
        run([tmp_path / "out" / SPOOL / "A.lines"], bundle_path, tmp_path / "out", LIVE, lambda *_: None)
    with pytest.raises(ConfigError, match=reason), Runner(bundle_path, tmp_path / "out", LIVE):
        pass


def test_spools_left_behind_are_taken_in_the_order_they_came(
    bundle_path: Path, pixels: Pixels, tmp_path: Path
) -> None:
    spool = tmp_path / "out" / SPOOL
    spool.mkdir(parents=True)
    names = ["A.lines", "A-2.lines", "A-10.lines"]
    for lost, name in enumerate(names):
        (spool / name).write_bytes(lines(pixels[lost:]))
        os.utime(spool / name, (1e9 - lost, 1e9 - lost))  # a clock that went back
    scanned(tmp_path, bundle_path, tmp_path / "out", b"")
    rows = Ledger(tmp_path / "out").rows()
    assert [(row.version, Path(row.entry["inputs"][0]["file"]).name) for row in rows] == list(
        enumerate(names, 1)
    )
    assert scanned(tmp_path, bundle_path, tmp_path / "out", b"").sections == []


def test_the_same_lines_again_are_no_work_and_others_a_version(
    bundle_path: Path, pixels: Pixels, tmp_path: Path
) -> None:
    for sent, version in [(pixels, 1), (pixels, 1), (pixels[::-1], 2)]:
        record = scanned(tmp_path, bundle_path, tmp_path / "out", lines(sent))
        assert record.sections[-1]["folder"] == ("A" if version == 1 else "A.v2")
        assert verify_run(tmp_path / "out") == (version, [])
    assert len(list((tmp_path / "out" / SPOOL).iterdir())) == 3
