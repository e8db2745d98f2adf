"""GenICam lines: Harvesters is stood in for, since a real one needs a camera and its maker's producer."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Self

import numpy as np
import pytest

from lithostream.engine.errors import BackendError, DecodeError
from lithostream.engine.io.line_camera import send_lines
from lithostream.engine.io.line_file import open_lines
from lithostream.engine.io.line_format import LineHeader
from lithostream.engine.io.pixels import Pixels

HEADER = LineHeader(
    lithostream_lines=1, name="live", width_px=8, channels=3, px_per_cm=50.0, counts_per_line=2.0
)
FRAMES = np.random.default_rng(3).integers(0, 256, (5, 4, 8, 3), np.uint8)  # buffers of four lines
ENCODER = [100, 108, 116, 132, 140]  # of each buffer's first line: one buffer was lost


class TimeoutException(Exception):
    pass


class Chunk:
    """Chunk data of the buffer at hand, one count a line."""

    def __init__(self, camera: "Camera") -> None:
        self._camera = camera

    @property
    def value(self) -> int:
        camera = self._camera
        selector = getattr(camera.nodes, "ChunkScanLineSelector", None)
        line = int(selector.value) if selector else 0
        return ENCODER[camera.frame] + 2 * line + 2 * (camera.frame == 4 and line >= 2)


class Camera:
    def __init__(self, chunks: tuple[str, ...], data_format: str) -> None:
        self.frame, self.data_format, self.started, self.queued = -1, data_format, False, 0
        self.nodes = SimpleNamespace()
        if "encoder" in chunks:
            self.nodes.ChunkEncoderValue = Chunk(self)
        if "line" in chunks:
            self.nodes.ChunkScanLineSelector = SimpleNamespace(value=0)
        self.remote_device = SimpleNamespace(node_map=self.nodes)

    def start(self) -> None:
        self.started = True

    @contextmanager
    def buffer(self) -> Iterator[SimpleNamespace]:
        pixels: Pixels = FRAMES[self.frame].copy()
        component = SimpleNamespace(width=8, height=4, data_format=self.data_format, data=pixels.reshape(-1))
        yield SimpleNamespace(
            payload=SimpleNamespace(components=[component]), frame_id=(7, 8, 9, 11, 12)[self.frame]
        )
        pixels[:] = 0  # the camera's memory again
        self.queued += 1

    def fetch(self, *, timeout: float) -> object:
        assert self.started and timeout == 2.5
        self.frame += 1
        if self.frame == len(FRAMES):
            raise TimeoutException
        return self.buffer()


@pytest.fixture
def harvesters(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Camera]]:
    cameras: list[Camera] = []

    class Harvester:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def add_file(self, path: str) -> None:
            assert path == "maker.cti"

        def update(self) -> None:
            pass

        @contextmanager
        def create(self) -> Iterator[Camera]:
            yield cameras[0]

    core = ModuleType("harvesters.core")
    core.Harvester, core.TimeoutException = Harvester, TimeoutException  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "harvesters", ModuleType("harvesters"))
    monkeypatch.setitem(sys.modules, "harvesters.core", core)
    yield cameras


def sent(camera: Camera, tmp_path: Path) -> tuple[Pixels, tuple[str, ...]]:
    out = io.BytesIO()
    send_lines(Path("maker.cti"), HEADER, out, idle_s=2.5)
    path = tmp_path / "a.lines"
    path.write_bytes(out.getvalue())
    source = open_lines(path)
    assert camera.queued == len(FRAMES)
    return np.concatenate([slab.rgb for slab in source.slabs(100)]), source.conversions


@pytest.mark.parametrize("chunks", [(), ("encoder",), ("encoder", "line")])
def test_buffers_become_lines_and_a_lost_buffer_a_gap(
    chunks: tuple[str, ...], harvesters: list[Camera], tmp_path: Path
) -> None:
    harvesters.append(Camera(chunks, "RGB8"))
    rgb, notes = sent(harvesters[0], tmp_path)
    black = np.zeros_like(FRAMES[0])
    expected = np.concatenate([*FRAMES[:3], black, *FRAMES[3:]])
    if "line" in chunks:  # the encoder went on by one line more within the last buffer
        expected = np.concatenate([expected[:22], black[:1], expected[22:]])
    assert (rgb == expected).all()
    lost = "5 lines lost in 2" if "line" in chunks else "4 lines lost in 1"
    assert notes == (f"{lost} jumps of the encoder: black, and no core",)


def test_other_pixels_than_stated_are_refused(harvesters: list[Camera]) -> None:
    harvesters.append(Camera((), "Mono8"))
    with pytest.raises(DecodeError, match="sends 8 px of Mono8, the header states 8 px of 3 channels"):
        send_lines(Path("maker.cti"), HEADER, io.BytesIO(), idle_s=2.5)


def test_without_harvesters_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "harvesters", None)
    with pytest.raises(BackendError) as caught:
        send_lines(Path("maker.cti"), HEADER, io.BytesIO(), idle_s=1.0)
    assert caught.value.fix == "pip install harvesters"
