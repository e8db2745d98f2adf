"""Live lines end to end: from a sender over TCP, a Unix socket, standard input or a file, into spools and slabs."""

import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from PIL import Image

from lithostream.engine.errors import ConfigError, DecodeError, SourceError, StoppedError
from lithostream.engine.io import line_stream
from lithostream.engine.io.images import read_image
from lithostream.engine.io.line_file import LineSource, open_lines
from lithostream.engine.io.line_format import END_MARK, LineHeader, to_records
from lithostream.engine.io.line_replay import replay
from lithostream.engine.io.line_stream import receive
from lithostream.engine.io.pixels import Pixels

FAST = float("inf")
HEADER = LineHeader(
    lithostream_lines=1, name="GC01/1", width_px=6, channels=3, px_per_cm=50.0, counts_per_line=2.0
)


def lines(count: int, seed: int = 1) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 3), np.uint8)


def section(pixels: Pixels, name: str = "GC01-1", end: bytes = END_MARK) -> bytes:
    header = HEADER.model_copy(update={"name": name})
    return header.to_line() + to_records(np.arange(len(pixels)) * 2, pixels) + end


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "core.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (700, 40, 3), np.uint8)).save(path)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def sender(send: Callable[[socket.socket], None], folder: Path) -> Iterator[str]:
    """Serve one reader on a Unix socket with what `send` does, then close."""
    path = folder / "socket"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        with suppress(BrokenPipeError, ConnectionResetError), server.accept()[0] as connection:
            send(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"unix:{path}"
    thread.join()
    server.close()


@contextmanager
def camera(*args: object, **options: object) -> Iterator[None]:
    thread = threading.Thread(target=replay, args=args, kwargs=options)
    thread.start()
    yield
    thread.join()


def stacked(source: LineSource, rows: int = 64) -> Pixels:
    return np.concatenate([slab.rgb for slab in source.slabs(rows)])


@pytest.mark.parametrize("kind", ["tcp", "unix", "file"])
def test_a_replayed_image_arrives_whole(kind: str, image: Path, tmp_path: Path) -> None:
    where = {
        "tcp": f"tcp://127.0.0.1:{free_port()}",
        "unix": f"unix:{tmp_path / 's'}",
        "file": str(tmp_path / "live.lines"),
    }[kind]
    options = {"px_per_cm": 50.0, "mm_per_s": FAST, "lost": [(5, 3), (600, 1)], "repeat": 2}
    with camera(image, where, **options), receive(where, tmp_path / "spool") as sections:
        (one,) = sections
        rgb = stacked(one.source)
    expected = np.tile(read_image(image)[0], (2, 1, 1))
    expected[[5, 6, 7, 600]] = 0
    assert (rgb == expected).all()
    assert one.source.conversions == ("4 lines lost in 2 jumps of the encoder: black, and no core",)
    assert one.header.name == "core" and one.header.px_per_cm == 50.0
    assert one.path == (Path(where) if kind == "file" else tmp_path / "spool" / "core.lines")
    again = open_lines(one.path)
    assert (stacked(again) == rgb).all() and again.conversions == one.source.conversions


def test_lines_come_through_standard_input(image: Path, tmp_path: Path) -> None:
    send = (
        "import sys; from pathlib import Path; from lithostream.engine.io.line_replay import replay\n"
        "for name in ('a', 'b'): replay(Path(sys.argv[1]), '-', px_per_cm=50, mm_per_s=1e6, name=name)"
    )
    take = (
        "import sys, json, zlib; from pathlib import Path\n"
        "from lithostream.engine.io.line_stream import receive\n"
        "with receive('-', Path(sys.argv[1])) as sections:\n"
        "    for one in sections:\n"
        "        slabs = list(one.source.slabs(50)); data = b''.join(slab.rgb.tobytes() for slab in slabs)\n"
        "        print(json.dumps([one.path.name, zlib.crc32(data), one.source.conversions]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", send, str(image)], stdout=subprocess.PIPE) as camera_process:
        done = subprocess.run(
            [sys.executable, "-c", take, str(tmp_path / "spool")],
            stdin=camera_process.stdout,
            capture_output=True,
            text=True,
            check=True,
        )
    crc = zlib.crc32(read_image(image)[0].tobytes())
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told == [["a.lines", crc, []], ["b.lines", crc, []]]


def test_two_sections_on_one_stream_cut_at_any_place(tmp_path: Path) -> None:
    first, second = lines(9), lines(4, seed=2)
    data = section(first) + section(second, name="GC01-1")

    def send(connection: socket.socket) -> None:
        for start in range(0, len(data), 37):
            connection.sendall(data[start : start + 37])

    with sender(send, tmp_path) as where, receive(where, tmp_path / "spool") as sections:
        found = [(one.path.name, stacked(one.source)) for one in sections]
    assert [name for name, _ in found] == ["GC01-1.lines", "GC01-1-2.lines"]
    assert (found[0][1] == first).all() and (found[1][1] == second).all()
    written = (tmp_path / "spool" / "GC01-1.lines").read_bytes()
    assert written == section(first)


def test_a_sender_that_dies_within_a_line_ends_the_section(tmp_path: Path) -> None:
    pixels = lines(5)
    data = section(pixels, end=b"")[:-4]
    with (
        sender(lambda connection: connection.sendall(data), tmp_path) as where,
        receive(where, tmp_path / "spool") as sections,
    ):
        (one,) = sections
        rgb = stacked(one.source)
    assert (rgb == pixels[:4]).all()
    note = "ended without an end mark after 4 lines, and 22 bytes of a torn one"
    assert one.source.conversions == open_lines(one.path).conversions == (note,)
    assert one.path.read_bytes() == data


def test_a_reader_sees_each_line_before_the_next_is_sent(tmp_path: Path) -> None:
    pixels, seen = lines(20), threading.Semaphore(0)
    records = [to_records(np.array([2 * row]), pixels[row : row + 1]) for row in range(20)]

    def send(connection: socket.socket) -> None:
        connection.sendall(HEADER.to_line())
        for record in records:
            connection.sendall(record)
            assert seen.acquire(timeout=10)
        connection.sendall(END_MARK)

    begun = time.monotonic()
    with sender(send, tmp_path) as where, receive(where, tmp_path / "spool") as sections:
        one = next(sections)
        for slab in one.source.slabs(512):
            assert len(slab.rgb) == 1
            assert begun <= one.source.arrived_s(slab.row_px) <= time.monotonic()
            seen.release()
    assert one.path.name.startswith("GC01_1-")  # the name holds a slash


def test_padding_after_the_end_mark_is_named(tmp_path: Path) -> None:
    data = section(lines(3)) + bytes(18)
    with (
        sender(lambda connection: connection.sendall(data), tmp_path) as where,
        receive(where, tmp_path / "spool") as sections,
    ):
        assert len(stacked(next(sections).source)) == 3
        with pytest.raises(DecodeError, match="a section starts with") as caught:
            next(sections)
    assert caught.value.file == where


@pytest.mark.parametrize("size", [0, 1, 30, len(HEADER.to_line()) - 1])
def test_a_stream_that_ends_within_a_header(tmp_path: Path, size: int) -> None:
    with (
        sender(lambda connection: connection.sendall(HEADER.to_line()[:size]), tmp_path) as where,
        receive(where, tmp_path / "spool") as sections,
    ):
        if size:
            with pytest.raises(DecodeError, match="ends within a header"):
                next(sections)
        else:
            assert list(sections) == []


def test_a_full_disk_stops_reader_and_iterator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = line_stream._new_spool

    class Full:
        def __init__(self, file: object) -> None:
            self.file, self.room = file, 2000

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()  # type: ignore[operator]

        def write(self, data: bytes) -> None:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(28, os.strerror(28))
            self.file.write(data)  # type: ignore[attr-defined]

    monkeypatch.setattr(line_stream, "_new_spool", lambda *args: Full(make(*args)))
    pixels, seen = lines(200), threading.Event()

    def send(connection: socket.socket) -> None:
        connection.sendall(section(pixels[:20], end=b""))
        seen.wait(10)
        connection.sendall(to_records(np.arange(20, 200) * 2, pixels[20:]))

    with sender(send, tmp_path) as where, receive(where, tmp_path / "spool") as sections:
        slabs = (one := next(sections)).source.slabs(100)
        assert len(next(slabs).rgb) == 20
        seen.set()
        with pytest.raises(StoppedError, match="disk full"):
            list(slabs)
        with pytest.raises(StoppedError, match="disk full"):
            next(sections)
    assert open_lines(one.path).height_px == 20


def test_leaving_stops_a_receiver_whose_sender_goes_on(tmp_path: Path) -> None:
    left = threading.Event()

    def send(connection: socket.socket) -> None:
        connection.sendall(section(lines(3), end=b""))
        assert left.wait(10)

    with sender(send, tmp_path) as where:
        with receive(where, tmp_path / "spool") as sections:
            source = next(sections).source
            slabs = source.slabs(10)
            assert len(next(slabs).rgb) == 3
        left.set()
        assert list(slabs) == []
    assert source.conversions == ("ended without an end mark after 3 lines",)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("tcp://127.0.0.1:{port}", "cannot be reached: Connection refused"),
        ("unix:{folder}/none", "cannot be reached: No such file"),
        ("unix:{folder}/" + "x" * 200, "cannot be reached"),
        ("tcp://127.0.0.1", "is no address"),
        ("tcp://127.0.0.1:99999", "is no address"),
        ("{folder}/none.lines", "no such file"),
        ("{folder}/empty.lines", "no header line has come"),
        ("{folder}", "Is a directory"),
    ],
)
def test_nobody_to_receive_from(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "empty.lines").touch()
    source = source.format(port=free_port(), folder=tmp_path)
    begun = time.monotonic()
    with (
        pytest.raises(SourceError, match=said) as caught,
        receive(source, tmp_path / "spool", patience_s=0.15),
    ):
        pass
    assert caught.value.file == source and caught.value.fix
    assert time.monotonic() - begun < 5


def test_a_camera_that_starts_late_is_waited_for(image: Path, tmp_path: Path) -> None:
    where = f"tcp://127.0.0.1:{free_port()}"
    late = threading.Timer(0.3, replay, [image, where], {"px_per_cm": 50.0, "mm_per_s": FAST})
    late.start()
    with receive(where, tmp_path / "spool") as sections:
        assert stacked(next(sections).source).shape == (700, 40, 3)
    late.join()


def test_replay_keeps_its_speed(image: Path, tmp_path: Path) -> None:
    where, begun = f"unix:{tmp_path / 's'}", time.monotonic()
    with camera(image, where, px_per_cm=100.0, mm_per_s=100.0), receive(where, tmp_path / "x") as sections:
        source = next(sections).source
        for _ in source.slabs(512):
            pass
    first, middle, last = (source.arrived_s(row) - begun for row in (0, 349, 699))
    assert middle >= 0.35 and 0.7 <= last < 2.0  # 700 lines of 0.1 mm at 100 mm/s
    assert first < middle < last


def test_replay_says_what_is_wrong_with_its_sink(image: Path, tmp_path: Path) -> None:
    (tmp_path / "there.lines").touch()
    for sink in (str(tmp_path / "there.lines"), f"unix:{tmp_path}/none/socket"):
        with pytest.raises(SourceError, match="cannot be written") as caught:
            replay(image, sink, px_per_cm=50.0, mm_per_s=FAST)
        assert caught.value.file == sink
    with pytest.raises(ConfigError, match="a scan at 0 mm/s"):
        replay(image, "-", px_per_cm=50.0, mm_per_s=0.0)
    with pytest.raises(DecodeError, match="header: px_per_cm"):
        replay(image, "-", px_per_cm=0.0, mm_per_s=1.0)


def test_the_sender_of_the_document_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "live-lines.md").read_text(encoding="utf-8")
    (tmp_path / "sender.py").write_text(text.split("```python\n")[1].split("```")[0])
    names = runpy.run_path(str(tmp_path / "sender.py"))
    pixels = np.random.default_rng(4).integers(0, 256, (3, 2048, 3), np.uint8)
    with (tmp_path / "a.lines").open("wb") as out:
        names["send"](out, "GC01-1", ((5 * row + 7, pixels[row].tobytes()) for row in range(3)))
    source = open_lines(tmp_path / "a.lines")
    assert (stacked(source) == pixels).all() and source.conversions == ()
