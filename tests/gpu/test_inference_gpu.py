"""Every session on real hardware: one set of tests, each backend that is there; the others skip with their reason."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import Backend
from lithostream.engine.errors import BackendMemoryError
from lithostream.engine.inference import check_golden, onnxruntime, openvino, tensorrt
from lithostream.engine.inference.onnxruntime import OnnxRuntimeCudaSession, OnnxRuntimeSession
from lithostream.engine.inference.openvino import OpenVinoSession
from lithostream.engine.inference.runtimes import tolerance
from lithostream.engine.inference.tensorrt import TensorRtSession
from lithostream.engine.manifest import Precision
from lithostream.kernels.tiling import tiles as cut_tiles

BACKENDS: dict[Backend, tuple[Callable[[], str | None], Any]] = {
    "onnxruntime": (onnxruntime.missing, OnnxRuntimeSession),
    "onnxruntime-cuda": (onnxruntime.missing_cuda, OnnxRuntimeCudaSession),
    "openvino": (openvino.missing, OpenVinoSession),
    "tensorrt": (tensorrt.missing, TensorRtSession),
}
ON_GPU: tuple[Backend, ...] = ("onnxruntime-cuda", "tensorrt")
DEMO = Path(__file__).parents[2] / "engine" / "demo_bundle"
BATCH = 8

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(DEMO)


@pytest.fixture(scope="module")
def pixels(bundle: Bundle) -> Pixels:
    """More than two batches and a rest, of colours as in the golden cases."""
    golden = bundle.golden_tiles
    rng = np.random.default_rng(5)
    mixed = golden[rng.integers(0, len(golden), 21)].astype(np.int16) + rng.integers(-9, 10, (21, 1, 1, 3))
    tiles: Pixels = np.clip(mixed, 0, 255).astype(np.uint8)
    return tiles


def opened(name: Backend, bundle: Bundle, precision: Precision = "fp32", batch: int = BATCH) -> Any:
    missing, session = BACKENDS[name]
    reason = missing()
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return session(bundle, batch=batch, threads=2, precision=precision)


@pytest.fixture(scope="module", params=BACKENDS)
def session(request: pytest.FixtureRequest, bundle: Bundle) -> Any:
    return opened(request.param, bundle)


@pytest.fixture(scope="module", params=ON_GPU)
def gpu_session(request: pytest.FixtureRequest, bundle: Bundle) -> Any:
    return opened(request.param, bundle)


@pytest.fixture(scope="module")
def oracle(bundle: Bundle, pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    found: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] = opened("onnxruntime", bundle).infer(
        pixels
    )
    return found


def close(got: Any, want: npt.NDArray[np.float32], bundle: Bundle) -> None:
    """Within the bundle's tolerance, in standard deviations over the golden cases."""
    spread = np.maximum(bundle.golden_properties.std(axis=0), 1e-6)
    assert np.max(np.abs(got - want) / spread, initial=0.0) <= bundle.tolerance("fp32")


def test_golden_cases(session: Any, bundle: Bundle) -> None:
    check_golden(session, bundle)
    assert session.precision == "fp32"


@pytest.mark.parametrize("count", [0, 1, 5, 8, 16, 21])
def test_any_number_of_tiles(
    session: Any, bundle: Bundle, pixels: Pixels, oracle: tuple[Any, Any], count: int
) -> None:
    for _ in range(3):  # plainly, captured and replayed
        properties, distance = session.infer(pixels[:count])
        assert properties.dtype == distance.dtype == np.float32
        assert properties.shape == (count, len(bundle.targets)) and distance.shape == (count,)
        close(properties, oracle[0][:count], bundle)
        np.testing.assert_allclose(distance, oracle[1][:count], rtol=1e-3, atol=1e-3)


def test_the_same_bits_each_time(session: Any, pixels: Pixels) -> None:
    first = session.infer(pixels)
    for _ in range(10):
        for one, other in zip(first, session.infer(pixels), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_view_is_read_as_numpy_reads_it(session: Any, bundle: Bundle, pixels: Pixels) -> None:
    flipped = pixels[::-1, :, ::-1]
    copied = session.infer(np.ascontiguousarray(flipped))[0]
    np.testing.assert_array_equal(session.infer(flipped)[0], copied)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", BACKENDS)
def test_variants_meet_their_tolerance(name: Backend, bundle: Bundle, precision: Precision) -> None:
    if precision not in bundle.variants:
        pytest.skip(f"the bundle that ships has no {precision} graph")
    check_golden(opened(name, bundle, precision), bundle, tolerance(name, bundle, precision))


def test_gpu_tiles_give_gpu_results(gpu: ModuleType, gpu_session: Any, pixels: Pixels) -> None:
    want = gpu_session.infer(pixels)
    for given in (gpu.asarray(pixels), gpu.asarray(pixels[:, ::-1])[:, ::-1]):
        got = gpu_session.infer(given)
        for found, wanted in zip(got, want, strict=True):
            assert isinstance(found, gpu.ndarray)
            np.testing.assert_array_equal(found.get(), wanted)


def test_work_of_the_callers_stream_comes_first(gpu: ModuleType, gpu_session: Any, pixels: Pixels) -> None:
    want = gpu_session.infer(pixels)[0]
    stream = gpu.cuda.Stream(non_blocking=True)
    given = gpu.zeros(pixels.shape, np.uint8)
    gpu.cuda.Device().synchronize()
    with stream:
        for _ in range(200):  # keeps the stream busy, so that reading too early would be seen
            given += 1
        given[...] = gpu.asarray(pixels)
        got = gpu_session.infer(given)[0]
        given.fill(0)
        found = got.copy()
    np.testing.assert_array_equal(found.get(stream=stream), want)


def test_a_second_session_finds_the_plan(bundle: Bundle, pixels: Pixels) -> None:
    first, second = opened("tensorrt", bundle), opened("tensorrt", bundle)
    assert not second.plan.built and second.plan.content == first.plan.content
    np.testing.assert_array_equal(first.infer(pixels)[0], second.infer(pixels)[0])


def test_every_batch_size_is_captured_as_a_graph(bundle: Bundle, pixels: Pixels) -> None:
    session = opened("tensorrt", bundle)
    for count in (1, 2, 4, 8):
        session.infer(pixels[:count])
    assert all(bucket._graph is not None for bucket in session._buckets)


def test_onnx_runtime_replays_a_cuda_graph_to_the_same_bits(
    gpu: ModuleType, bundle: Bundle, pixels: Pixels
) -> None:
    session = opened("onnxruntime-cuda", bundle)
    assert session._session.get_provider_options()[onnxruntime.CUDA]["enable_cuda_graph"] == "1"
    replayed = session.infer(pixels[:BATCH])
    plainly = session.infer(gpu.asarray(pixels[:BATCH]))  # read in place, so not by the graph
    again = session.infer(pixels[:BATCH])
    for one, other, third in zip(replayed, plainly, again, strict=True):
        np.testing.assert_array_equal(one, other.get())
        np.testing.assert_array_equal(one, third)


def test_the_memory_cap_is_kept(gpu: ModuleType, bundle: Bundle) -> None:
    opened("tensorrt", bundle)
    pool = gpu.get_default_memory_pool()
    before = pool.get_limit()
    try:
        pool.set_limit(size=1024)
        with pytest.raises(BackendMemoryError):
            opened("tensorrt", bundle)
    finally:
        pool.set_limit(size=before)


def test_tiles_of_the_kernel_go_straight_in(gpu: ModuleType, gpu_session: Any, bundle: Bundle) -> None:
    rng, size = np.random.default_rng(3), bundle.manifest.input.size_px
    image = rng.integers(0, 256, (4 * size, 2 * size, 3), np.uint8)
    rows, columns = np.arange(5) * size, np.arange(3) * size
    shape = (8, size, size, 3)
    host = cut_tiles(image, rows, columns, size).reshape(shape)
    there = cut_tiles(gpu.asarray(image), rows, columns, size).reshape(shape)
    np.testing.assert_array_equal(gpu_session.infer(there)[0].get(), gpu_session.infer(host)[0])
