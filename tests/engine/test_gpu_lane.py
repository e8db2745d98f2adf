"""A lane on a GPU, emulated: the results of the host, and each byte of an image moved once."""

import shutil
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cupy_on_host
import lane_on_host
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from lane_case import OnGpu, assert_same, plan_of

from lithostream.engine import device
from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.lane import Tools, process_window
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.device import HOST, Gpu, open_device
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.inference import fallback
from lithostream.engine.inference.choose import Choice
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.io.discover import discover
from lithostream.engine.stream import workshop
from lithostream.engine.stream.runner import run
from lithostream.kernels import loader
from lithostream.kernels.arrays import on_gpu
from lithostream.kernels.errors import BackendUnavailableError


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if shutil.which("g++") is None:
        pytest.skip("device code runs on the host through g++ -std=c++20: install g++")
    loader._load.cache_clear()
    return lane_on_host.install(monkeypatch)


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(bundle, batch=32, threads=1)


@pytest.fixture(scope="module")
def section(core_image: Path) -> Section:
    (found,), _ = discover([core_image])
    return found


@pytest.mark.parametrize("segments", [True, False])
def test_a_window_is_what_it_is_on_the_host(
    cupy: ModuleType, section: Section, bundle: Bundle, session: OnnxRuntimeSession, segments: bool
) -> None:
    chosen, plan = plan_of(section, bundle, segments=segments)
    here, there = Tools(session, None, HOST), Tools(OnGpu(session), None, Gpu())
    for block in chosen:
        wanted = process_window(block, plan, here)
        assert_same(process_window(block, plan, there), wanted)
        assert len(wanted.tiles.row) > 8 and (len(wanted.segments.area_px) > 10) == segments
    cupy_on_host.check_guards()


def test_bytes_of_an_image_are_moved_once(
    cupy: ModuleType, section: Section, bundle: Bundle, session: OnnxRuntimeSession
) -> None:
    (_, block), plan = plan_of(section, bundle)
    taking = OnGpu(session)
    process_window(block, plan, Tools(taking, None, Gpu()))
    pixels, window = len(block.slab.rgb) * plan.grid.width_px, block.height_px * plan.grid.width_px
    up, down = (sorted(cupy_on_host.moved[way], reverse=True) for way in ("up", "down"))
    assert up[:2] == [3 * pixels, pixels] and sum(up[2:]) < 0.25 * pixels  # colours, then where there are any
    assert down[0] == 4 * window  # labels, then tiles for a session that is none, a preview and tables
    assert sum(down[1:]) - taking.taken < 1.5 * window
    assert not any(size == 3 * window for size in down)


def test_memory_is_pinned_once(
    cupy: Any, section: Section, bundle: Bundle, session: OnnxRuntimeSession
) -> None:
    chosen, plan = plan_of(section, bundle)
    asked: list[int] = []

    def pinned(size: int) -> bytearray:
        asked.append(size)
        return bytearray(size)

    cupy.cuda.alloc_pinned_memory = pinned
    tools = Tools(OnGpu(session), None, Gpu())
    process_window(chosen[1], plan, tools)
    assert len(asked) <= 2 and max(asked) >= chosen[1].slab.rgb.nbytes
    for block in chosen:
        process_window(block, plan, tools)
    assert len(asked) <= 2


def test_what_fails_on_the_gpu_is_typed(
    cupy: Any, section: Section, bundle: Bundle, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block, _), plan = plan_of(section, bundle)
    tools = Tools(OnGpu(session), None, Gpu())
    for raised, kind in (
        (cupy.cuda.memory.OutOfMemoryError("Out of memory allocating 12 bytes"), BackendMemoryError),
        (cupy.cuda.runtime.CUDARuntimeError("cudaErrorLaunchFailure"), BackendError),
        (
            cupy.cuda.driver.CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS"),
            BackendError,
        ),  # which launches raise
        (cupy.cuda.driver.CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY"), BackendMemoryError),
        (cupy.cuda.compiler.CompileException("no such header"), BackendError),
    ):

        def fail(*_: object, error: Exception = raised) -> None:
            raise error

        monkeypatch.setattr(cupy, "empty", fail)
        with pytest.raises(kind, match=r"the GPU (is out of memory|fails)") as caught:
            process_window(block, plan, tools)
        assert isinstance(caught.value, BackendMemoryError) == (kind is BackendMemoryError)


def test_a_gpu_that_gives_no_stream_is_a_typed_error(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(**_: object) -> None:
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(cupy.cuda, "Stream", lost)
    with pytest.raises(BackendError, match="the GPU fails: cudaErrorIllegalAddress"):
        Gpu()


def test_a_whole_run_gives_the_tables_of_the_host(
    cupy: ModuleType,
    bundle: Bundle,
    bundle_path: Path,
    tmp_path: Path,
    session: OnnxRuntimeSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = write(generate(8, length_cm=12.0, width_cm=3.0, px_per_cm=20.0), tmp_path)
    settings = RunSettings(threads=1, refine=True, window_cm=4.0, backend="onnxruntime")
    serving: Any = OnGpu(session, warm=bundle.golden_tiles)
    serving.on_gpu, serving.precision, serving.notes = True, "fp32", []
    tables = []
    for name in ("host", "gpu"):
        record = run([image], bundle_path, tmp_path / name, settings, lambda *_: None)
        assert not record.quarantined
        folder = tmp_path / name / str(record.sections[0]["folder"])
        tables.append([pq.read_table(folder / f"{table}.parquet") for table in ("intervals", "segments")])
        tables[-1].append(pa.table({"label": tifffile.imread(folder / "segments.tif").ravel()}))
        monkeypatch.setattr(workshop, "open_sessions", lambda *_, **__: [serving])
    assert serving.taken and len(cupy_on_host.moved["up"]) > 10
    for here, there in zip(*tables, strict=True):
        assert there.schema.equals(here.schema) and there.num_rows == here.num_rows
        for name in here.column_names:
            one, other = (table[name].to_numpy(zero_copy_only=False) for table in (here, there))
            if one.dtype.kind == "f":
                np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6, err_msg=name)
            else:
                np.testing.assert_array_equal(other, one, err_msg=name)


class Moving:
    """A session on a GPU that has the processor behind it."""

    precision, backend, notes = "fp32", "moving", ()

    def __init__(self, full: bool = False) -> None:
        self.on_gpu, self._full = True, full
        self.left: list[BackendError] = []
        self.served: list[tuple[str, bool]] = []

    def infer(self, tiles: Any) -> None:
        self.served.append((threading.current_thread().name, on_gpu(tiles=tiles)))
        if self._full:
            raise BackendMemoryError("full", fix="x")

    def retreat(self, error: BackendError) -> None:
        self.left.append(error)
        self.on_gpu = False


def test_a_lane_is_where_its_session_is(
    cupy: Any, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_device(False) is HOST and isinstance(open_device(True), Gpu)
    sessions = [Moving(), Moving()]
    monkeypatch.setattr(workshop, "open_sessions", lambda *_, **__: sessions)
    made = workshop.Workshop(bundle_path, RunSettings())
    devices = [tools.device for tools in made._lanes.tools]
    assert all(isinstance(device, Gpu) for device in devices) and devices[0] is not devices[1]
    lost = BackendError("the GPU fails: lost", fix="x")
    made.retreat(lost)
    assert [tools.device for tools in made._lanes.tools] == [HOST, HOST]
    assert [session.left for session in sessions] == [[lost], [lost]]
    assert cupy.get_default_memory_pool().given_back == 2  # of each lane, before another runtime begins
    threads = [{name for name, _ in session.served} for session in sessions]
    assert [len(names) for names in threads] == [1, 1] and threads[0] != threads[1]
    assert threads[0].pop().startswith("lane")
    warm = [there for _, there in sessions[0].served]
    assert warm == [False, True, False, True]  # twice by each way before any window, on the GPU alone
    made.close()


def test_a_lost_gpu_has_no_memory_to_give_back(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(cupy.get_default_memory_pool(), "free_all_blocks", lost)
    Gpu().release()


def test_all_lanes_leave_a_gpu_that_draws_other_masks(
    cupy: ModuleType, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Segmenter:
        def __init__(self, _bundle: Bundle, *, gpu: bool) -> None:
            if gpu:
                raise BundleError("misses the segmenter's golden cases", fix="x")

    sessions = [Moving(), Moving()]
    monkeypatch.setattr(workshop, "open_sessions", lambda *_, **__: sessions)
    monkeypatch.setattr(workshop, "Segmenter", Segmenter)
    monkeypatch.setattr(workshop, "missing_cuda", lambda: None)
    monkeypatch.setattr(Bundle, "refines", lambda *_: True)
    made = workshop.Workshop(bundle_path, RunSettings())
    assert [tools.device for tools in made._lanes.tools] == [HOST, HOST]
    assert all("golden cases" in session.left[0].reason for session in sessions)
    made.close()


@pytest.fixture
def no_numba_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        if name.endswith("launch"):
            raise BackendUnavailableError("Numba CUDA cannot be imported")
        return import_module(name)

    monkeypatch.setattr(device, "import_module", missing)


@pytest.mark.usefixtures("no_numba_cuda")
def test_a_gpu_asked_for_by_name_that_cannot_serve_is_told_before_any_section(
    cupy: ModuleType, bundle: Bundle, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "open_gated", lambda *_, **__: SimpleNamespace(session=Moving()))
    choice = Choice(order=("onnxruntime-cuda",), why="")
    session = fallback.ServingSession(bundle, choice, batch=1, threads=1, precision="fp32")
    monkeypatch.setattr(workshop, "open_sessions", lambda *_, **__: [session])
    with pytest.raises(BackendError, match="Numba CUDA cannot be imported"):
        workshop.Workshop(bundle_path, RunSettings(threads=1))


@pytest.mark.usefixtures("no_numba_cuda")
def test_without_numba_cuda_the_processor_serves(
    cupy: ModuleType, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Moving()
    monkeypatch.setattr(workshop, "open_sessions", lambda *_, **__: [session])
    made = workshop.Workshop(bundle_path, RunSettings(threads=1))
    assert [tools.device for tools in made._lanes.tools] == [HOST]
    assert "Numba CUDA cannot be imported" in session.left[0].reason and "cuda13" in session.left[0].fix
    made.close()
