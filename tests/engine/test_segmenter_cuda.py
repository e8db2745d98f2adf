"""The segmenter on a GPU: ONNX Runtime and CuPy are stand-ins that read, write and copy on the host, and count."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import cupy_on_host
import lane_on_host
import numpy as np
import numpy.typing as npt
import onnxruntime_on_host
import pytest
from onnxruntime_on_host import Session

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.segmenter import MaskSet, Segmenter
from lithostream.engine.core.segmenter.stage import Segmented, segment
from lithostream.engine.core.windows import Block, Window
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.graph_segmenter import IMAGE_SIDE
from lithostream.engine.inference import segmenter_cuda
from lithostream.engine.inference.segmenter import PROMPTS, SegmenterSession
from lithostream.engine.inference.segmenter_cuda import CUDA_PROMPTS, SegmenterCudaSession
from lithostream.engine.io.images import Slab
from lithostream.kernels import loader, slic

HEIGHT, HALO = 64, 16

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="module")
def on_host(bundle: Bundle) -> Segmenter:
    return Segmenter(bundle)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, on_host: Segmenter) -> ModuleType:
    """CuPy and ONNX Runtime as on a machine with a GPU; what runs on the host was opened before."""
    if shutil.which("g++") is None:
        pytest.skip("device code runs on the host through g++ -std=c++20: install g++")
    loader._load.cache_clear()
    onnxruntime_on_host.install(monkeypatch)
    return lane_on_host.install(monkeypatch)


@pytest.fixture
def as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many prompts a call as on the host, so that sums have the same order."""
    monkeypatch.setattr(SegmenterCudaSession, "prompts", PROMPTS)


def clasts(
    rng: np.random.Generator, shape: tuple[int, int], places: list[tuple[int, int]], radius: int
) -> Pixels:
    """Bright discs on dark ground, under grain."""
    y, x = np.indices(shape)
    inside = np.any([np.hypot(y - row, x - column) < radius for row, column in places], axis=0)
    grain = rng.integers(-2, 3, (*shape, 3))
    return (np.where(inside[..., None], (190, 180, 170), (95, 80, 70)) + grain).astype(np.uint8)


@pytest.fixture
def view(rng: np.random.Generator) -> Pixels:
    return clasts(rng, (512, 512), [(row, row + 9) for row in range(40, 480, 90)], 30)


@pytest.fixture
def points(rng: np.random.Generator) -> Floats:
    """More than a call's."""
    found: Floats = rng.uniform(0, 512, (CUDA_PROMPTS + 6, 2)).astype(np.float32)
    found[:5] = [(row + 9, row) for row in range(40, 480, 90)]
    return found


def same(one: MaskSet, other: MaskSet) -> None:
    for got, wanted in zip(one, other, strict=True):
        assert not isinstance(got, cupy_on_host.ndarray)
        np.testing.assert_array_equal(got, wanted)


def memory() -> int:
    """Arrays of the device made so far."""
    return len(cupy_on_host._memory)


def test_masks_are_those_of_the_host_wherever_the_view_lies(
    cupy: ModuleType, bundle: Bundle, on_host: Segmenter, view: Pixels, points: Floats, as_many: None
) -> None:
    on_gpu = Segmenter(bundle, gpu=True)
    assert on_gpu.on_gpu and on_gpu.backend.endswith("CUDAExecutionProvider")
    assert not on_host.on_gpu and on_host.backend.endswith("CPUExecutionProvider")
    valid, boxes = (400, 380), np.concatenate([points - 40, points + 40], axis=1)
    asked = points[: PROMPTS + 4], boxes[: PROMPTS + 4]
    want = on_host.masks(view, *asked, valid=valid)
    assert len(want.quality) > 3
    for given in (view, np.asfortranarray(view), cupy.asarray(view)):
        same(on_gpu.masks(given, *asked, valid=valid), want)
        same(on_host.masks(given, *asked, valid=valid), want)
    assert len(on_gpu.masks(cupy.asarray(view), points[:0]).quality) == 0


def test_sixty_four_prompts_a_call_find_the_same(
    cupy: ModuleType, bundle: Bundle, view: Pixels, points: Floats
) -> None:
    host, gpu = SegmenterSession(bundle, threads=1), SegmenterCudaSession(bundle, threads=1)
    assert (host.prompts, gpu.prompts) == (16, 64)
    for session in (host, gpu):
        session.encode(view, (512, 512))
    found: Any = gpu.decode(points[:CUDA_PROMPTS], None)
    assert all(type(one) is cupy_on_host.ndarray for one in found)
    logits, quality = (one.get() for one in found)
    assert logits.shape == (CUDA_PROMPTS, 3, 128, 128) and quality.shape == (CUDA_PROMPTS, 3)
    few = [host.decode(points[first : first + 16], None) for first in range(0, CUDA_PROMPTS, 16)]
    np.testing.assert_allclose(quality, np.concatenate([one for _, one in few]), atol=1e-5)
    np.testing.assert_allclose(logits, np.concatenate([one for one, _ in few]), atol=1e-3)


def test_a_call_moves_prompts_alone_and_allocates_nothing(
    cupy: ModuleType, bundle: Bundle, view: Pixels, points: Floats
) -> None:
    session = SegmenterCudaSession(bundle, threads=1)
    given: Any = cupy.asarray(view)
    before = memory()
    for moved in cupy_on_host.moved.values():
        moved.clear()
    Session.runs.clear()
    session.encode(given, (512, 512))
    first = session.decode(points[:3], None)[0]
    kept: Any = cast(Any, first).get()
    second = session.decode(points[3:8], None)[0]
    assert memory() == before
    rows = CUDA_PROMPTS * np.dtype(np.float32).itemsize
    assert cupy_on_host.moved == {"up": [16, 2 * rows, 4 * rows, 2 * rows, 4 * rows], "down": [kept.nbytes]}
    encoded, *decoded = Session.runs
    for run in decoded:
        assert {name: run[name] for name in IMAGE_SIDE} == {name: encoded[name] for name in IMAGE_SIDE}
    assert decoded[0] == decoded[1]
    assert (cast(Any, first).get() != kept).any()  # the session's memory: what was found last lies there
    np.testing.assert_array_equal(cast(Any, first).get(), cast(Any, second).get()[:3])


def test_a_graph_is_replayed_where_it_was_captured_or_done_without(
    cupy: ModuleType, bundle: Bundle, view: Pixels, points: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for refused in ("", "open", "run"):
        monkeypatch.setattr(Session, "refused", refused)
        session: Any = SegmenterCudaSession(bundle, threads=1)
        assert ("enable_cuda_graph" in Session.asked[0][1]) == (not refused)
        assert Session.asked[0][1].items() >= {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}.items()
        Session.replayed = Session.synchronized = 0
        session.encode(view, (512, 512))
        found.append([one.get() for one in session.decode(points[:4], None)])
        assert Session.replayed == (0 if refused else 2) and Session.synchronized == 2
    for other in found[1:]:
        np.testing.assert_array_equal(other[0], found[0][0])
        np.testing.assert_array_equal(other[1], found[0][1])


def test_work_of_the_callers_stream_comes_first(
    cupy: ModuleType, bundle: Bundle, view: Pixels, points: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SegmenterCudaSession(bundle, threads=1)
    happened: list[str] = []
    current, run = cupy.cuda.get_current_stream(), Session.run_with_iobinding

    def ran(*given: Any) -> None:
        happened.append("ran")
        run(*given)

    monkeypatch.setattr(current, "synchronize", lambda: happened.append("waited"))
    monkeypatch.setattr(Session, "run_with_iobinding", ran)
    session.encode(view, (512, 512))
    session.decode(points[:1], None)
    assert happened == ["waited", "ran"] * 2


def test_a_silent_fallback_to_the_cpu_is_refused(
    cupy: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "providers", ("CPUExecutionProvider",))
    with pytest.raises(BackendError, match="uses CPUExecutionProvider in place of the GPU"):
        Segmenter(bundle, gpu=True)


def test_a_machine_without_a_gpu_says_so(
    cupy: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError) as caught:
        Segmenter(bundle, gpu=True)
    assert "nvidia-smi" in str(caught.value)


def test_memory_that_runs_out_is_a_typed_error(
    cupy: ModuleType, bundle: Bundle, view: Pixels, points: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SegmenterCudaSession(bundle, threads=1)

    def full(*_: object) -> None:
        raise onnxruntime_on_host.state.RuntimeException("BFCArena: Failed to allocate memory")

    monkeypatch.setattr(Session, "run_with_iobinding", full)
    with pytest.raises(BackendMemoryError):
        session.encode(view, (512, 512))
    with pytest.raises(BackendMemoryError):
        session.decode(points[:1], None)
    with pytest.raises(BackendMemoryError):  # not tried again without the graph
        Segmenter(bundle, gpu=True)
    assert Session.asked[0][1]["enable_cuda_graph"] == "1"
    monkeypatch.setattr(
        cupy, "zeros", lambda *_: (_ for _ in ()).throw(cupy.cuda.memory.OutOfMemoryError("full"))
    )
    with pytest.raises(BackendMemoryError):
        Segmenter(bundle, gpu=True)


def test_a_device_that_is_lost_is_a_typed_error(
    cupy: ModuleType, bundle: Bundle, view: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SegmenterCudaSession(bundle, threads=1)

    def lost() -> None:
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")

    monkeypatch.setattr(cupy.cuda.get_current_stream(), "synchronize", lost)
    with pytest.raises(BackendError, match="onnxruntime fails: cudaErrorLaunchFailure") as error:
        session.encode(view, (512, 512))
    assert not isinstance(error.value, BackendMemoryError)


def test_golden_cases_that_are_missed_are_refused(cupy: ModuleType, bundle: Bundle) -> None:
    golden = bundle.segmenter_golden
    assert golden is not None
    other = replace(bundle, segmenter_golden=golden._replace(quality=golden.quality + np.float32(0.5)))
    with pytest.raises(BundleError, match=r"CUDAExecutionProvider misses .* quality is off by 0\.5"):
        Segmenter(other, gpu=True)


def test_numbers_that_a_gpu_cannot_hand_on_are_refused(
    cupy: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter_cuda, "KINDS", {"tensor(float16)": np.float16})
    with pytest.raises(BackendError, match=r"gives image as tensor\(float\)"):
        Segmenter(bundle, gpu=True)


def done(cupy: Any, image: Pixels, mask: npt.NDArray[np.bool_], segmenter: Segmenter) -> Segmented:
    """Segments of the middle of an image, in NumPy's arrays or in those of `cupy`."""
    on = (lambda array: array) if cupy is None else cupy.asarray
    rgb, rows = on(image), slice(HALO, HALO + HEIGHT)
    block = Block(1, HEIGHT, HEIGHT, Slab(HEIGHT - HALO, rgb, None), HALO, cast(Grid, None))
    window = Window(1, HEIGHT, rgb[rows], on(mask[rows]))
    superpixels = slic(window.rgb, n_segments=12, compactness=10.0, mask=window.mask)
    for moved in cupy_on_host.moved.values():
        moved.clear()
    return segment(block, window, superpixels, segmenter, HEIGHT, 3 * HEIGHT)


def test_segments_of_a_window_on_the_device_are_those_of_the_host(
    cupy: ModuleType,
    bundle: Bundle,
    on_host: Segmenter,
    rng: np.random.Generator,
    as_many: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = clasts(rng, (HEIGHT + 2 * HALO, 40), [(40, 16), (68, 28)], 9)
    mask = np.ascontiguousarray(np.broadcast_to((np.arange(40) >= 2) & (np.arange(40) < 37), image.shape[:2]))
    want = done(None, image, mask, on_host)
    assert want.refined.labels.max() > 2 and (want.refined.object >= 0).any()
    pixels: list[tuple[int, ...]] = []
    get = cupy_on_host.ndarray.get

    def noted(array: Any, *options: Any) -> Any:
        if array.dtype == np.uint8:
            pixels.append(array.shape)
        return get(array, *options)

    monkeypatch.setattr(cupy_on_host.ndarray, "get", noted)
    found = done(cupy, image, mask, Segmenter(bundle, gpu=True))
    for got, wanted in zip(found.refined, want.refined, strict=True):
        np.testing.assert_array_equal(got, wanted)
    for seam, wanted_seam in zip(found[1:], want[1:], strict=True):
        np.testing.assert_array_equal(seam.inside, wanted_seam.inside)
        np.testing.assert_array_equal(seam.segment, wanted_seam.segment)
    assert pixels == [] and max(cupy_on_host.moved["up"]) <= 16 * PROMPTS  # boxes
