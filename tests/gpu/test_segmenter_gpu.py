"""The segmenter on real hardware, beside the one on the host."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.stage import Segmented, segment
from lithostream.engine.core.synthetic import SyntheticCore, generate
from lithostream.engine.core.windows import Block, Window
from lithostream.engine.inference.onnxruntime import missing_cuda
from lithostream.engine.inference.segmenter import SegmenterSession
from lithostream.engine.inference.segmenter_cuda import SegmenterCudaSession
from lithostream.engine.io.images import Slab
from lithostream.engine.segmenter_golden import mask_iou
from lithostream.kernels import slic

DEMO = Path(__file__).parents[2] / "engine" / "demo_bundle"
WHOLE = (512, 512)
HEIGHT, HALO = 320, 80

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEMO)


@pytest.fixture(scope="module")
def on_gpu(gpu: ModuleType, bundle: Bundle) -> SegmenterCudaSession:
    reason = missing_cuda()
    if reason is not None:
        pytest.skip(reason)
    return SegmenterCudaSession(bundle, threads=2)


@pytest.fixture(scope="module")
def core() -> SyntheticCore:
    return generate(21, length_cm=20.0, width_cm=7.0, px_per_cm=64.0)


@pytest.fixture
def view(core: SyntheticCore) -> Pixels:
    return np.ascontiguousarray(np.pad(core.image, ((0, 0), (0, 64), (0, 0)))[300:812, :512])


@pytest.fixture
def points(rng: np.random.Generator) -> Floats:
    found: Floats = rng.uniform(10, 500, (64, 2)).astype(np.float32)
    return found


def masks(session: SegmenterSession, view: Pixels, points: Floats) -> tuple[Floats, Floats]:
    session.encode(view, WHOLE)
    parts = []
    for first in range(0, len(points), session.prompts):
        found: Any = session.decode(points[first : first + session.prompts], None)
        parts.append([np.array(one.get() if session.on_gpu else one) for one in found])
    logits, quality = (np.concatenate(one) for one in zip(*parts, strict=True))
    return logits, quality


def test_masks_are_those_of_the_host(
    gpu: ModuleType, on_gpu: SegmenterCudaSession, bundle: Bundle, view: Pixels, points: Floats
) -> None:
    stated = bundle.manifest.segmenter
    assert stated is not None
    want = masks(SegmenterSession(bundle, threads=2), view, points)
    for given in (view, gpu.asarray(view)):
        for _ in range(3):  # captured and replayed
            logits, quality = masks(on_gpu, given, points)
            assert float(np.mean(mask_iou(logits > 0, want[0] > 0))) >= stated.golden_iou
            assert np.max(np.abs(quality - want[1])) <= stated.golden_quality


def test_the_same_bits_each_time_and_in_any_thread(
    gpu: ModuleType, on_gpu: SegmenterCudaSession, bundle: Bundle, view: Pixels, points: Floats
) -> None:
    want = masks(on_gpu, view, points)

    def again(session: SegmenterCudaSession) -> bool:
        with gpu.cuda.Stream(non_blocking=True):  # as a lane, which allocates beside the others
            for size in range(10):
                gpu.zeros((1 << 20) + size, np.uint8)
                logits, quality = masks(session, view, points)
                if not (np.array_equal(logits, want[0]) and np.array_equal(quality, want[1])):
                    return False
        return True

    sessions = [SegmenterCudaSession(bundle, threads=1) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(again, sessions)) == [True] * 3


def test_work_of_the_callers_stream_comes_first(
    gpu: ModuleType, on_gpu: SegmenterCudaSession, view: Pixels, points: Floats
) -> None:
    want, there = masks(on_gpu, view, points), gpu.asarray(view)
    given = gpu.zeros(view.shape, np.uint8)
    gpu.cuda.Device().synchronize()
    with gpu.cuda.Stream(non_blocking=True):
        for _ in range(200):  # keeps the stream busy, so that reading too early would be seen
            given += 1
        given[...] = there
        found = masks(on_gpu, given, points)
    np.testing.assert_array_equal(found[0], want[0])


def test_nothing_is_allocated_in_a_call(
    gpu: ModuleType, on_gpu: SegmenterCudaSession, view: Pixels, points: Floats
) -> None:
    given, pool = gpu.asarray(view), gpu.get_default_memory_pool()
    masks(on_gpu, given, points)
    before = pool.total_bytes()
    for _ in range(5):
        masks(on_gpu, given, points)
    assert pool.total_bytes() == before


def done(on: Any, core: SyntheticCore, segmenter: Segmenter) -> Segmented:
    """Segments of the middle of a core whose arrays `on` has put somewhere."""
    rows = slice(HALO, HALO + HEIGHT)
    part = slice(400, 400 + HEIGHT + 2 * HALO)
    rgb = on(np.ascontiguousarray(core.image[part]))
    mask = on(np.ascontiguousarray(core.core_mask[part][rows]))
    block = Block(1, HEIGHT, HEIGHT, Slab(HEIGHT - HALO, rgb, None), HALO, cast(Grid, None))
    window = Window(1, HEIGHT, rgb[rows], mask)
    superpixels = slic(window.rgb, n_segments=100, compactness=10.0, mask=window.mask)
    return segment(block, window, superpixels, segmenter, HEIGHT, 3 * HEIGHT)


def test_segments_of_a_window_on_the_device(gpu: ModuleType, bundle: Bundle, core: SyntheticCore) -> None:
    host = Segmenter(bundle, threads=2)
    want = done(lambda array: array, core, host)
    for got, wanted in zip(done(gpu.asarray, core, host).refined, want.refined, strict=True):
        np.testing.assert_array_equal(got, wanted)  # with masks of the host all else is the same to the bit


def test_segments_by_masks_of_the_device(
    gpu: ModuleType, on_gpu: SegmenterCudaSession, bundle: Bundle, core: SyntheticCore
) -> None:
    want = done(lambda array: array, core, Segmenter(bundle, threads=2)).refined.labels
    got = done(gpu.asarray, core, Segmenter(bundle, gpu=True)).refined.labels
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):  # borders, not numbers
        same = (got[one] == got[other]) == (want[one] == want[other])
        assert same.mean() >= 0.99
