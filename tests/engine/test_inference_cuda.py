"""ONNX Runtime on a GPU, against a stand-in that reads and writes the very addresses it is bound to."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime_on_host
import pytest
import tensorrt_on_host as host
from onnxruntime_on_host import Session

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.errors import BackendError, BackendMemoryError
from lithostream.engine.inference import check_golden
from lithostream.engine.inference import onnxruntime as backend
from lithostream.engine.inference.onnxruntime import CUDA, OnnxRuntimeCudaSession


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    onnxruntime_on_host.install(monkeypatch)
    module: ModuleType = host.cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def opened(bundle: Bundle, batch: int = 8) -> OnnxRuntimeCudaSession:
    return OnnxRuntimeCudaSession(bundle, batch=batch, threads=1)


def read() -> list[int]:
    """Where the tiles lay, call by call."""
    return [run["tiles"] for run in Session.runs]


def test_numpy_tiles_give_numpy_results(cupy: Any, bundle: Bundle) -> None:
    session = opened(bundle)
    assert session.backend.endswith(f" {CUDA}") and session.precision == "fp32"
    assert check_golden(session, bundle) < 1e-3
    assert all(type(one) is np.ndarray for one in session.infer(bundle.golden_tiles))
    batches = -(-len(bundle.golden_tiles) // 8)
    assert Session.synchronized == 1 + 2 * batches and len(set(read())) == 1  # the session's own buffer
    assert Session.replayed == 2 * batches  # all but the first, which opening the session makes
    assert [one.shape for one in session.infer(bundle.golden_tiles[:0])] == [(0, 3), (0,)]


def test_full_batches_of_gpu_tiles_are_read_where_they_lie(cupy: Any, bundle: Bundle) -> None:
    session, tiles = opened(bundle), bundle.golden_tiles[:19]
    want = session.infer(tiles)
    Session.runs.clear()
    given = cupy.asarray(tiles)
    found: Any = session.infer(given)
    at = [given.data.ptr + k * 8 * tiles[0].nbytes for k in range(2)]
    aligned = given.data.ptr % 256 == 0
    assert (read()[:2] == at) == aligned and read()[2] not in at
    assert Session.replayed == (4 if aligned else 6)
    for got, wanted in zip(found, want, strict=True):
        assert type(got).__module__.startswith("cupy")
        np.testing.assert_array_equal(got.get(), wanted)


def test_what_is_copied_outlives_the_copy(cupy: Any, bundle: Bundle) -> None:
    session, tiles = opened(bundle), bundle.golden_tiles[:, ::-1]
    want = session.infer(np.ascontiguousarray(tiles))
    for got, wanted in zip(session.infer(tiles), want, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_settings_that_keep_the_digits(cupy: Any, bundle: Bundle) -> None:
    opened(bundle)
    ((name, options),) = Session.asked
    assert name == CUDA
    kept = {"device_id": 0, "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert options == {**kept, "enable_cuda_graph": "1"}


@pytest.mark.parametrize("refused", ["open", "run"])
def test_a_network_that_cannot_be_captured_runs_without(
    cupy: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    want = opened(bundle).infer(bundle.golden_tiles)
    monkeypatch.setattr(Session, "refused", refused)
    session = opened(bundle)
    assert "enable_cuda_graph" not in Session.asked[0][1]
    for got, wanted in zip(session.infer(bundle.golden_tiles), want, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_silent_fallback_to_the_cpu_is_refused(
    cupy: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "providers", ("CPUExecutionProvider",))
    with pytest.raises(BackendError, match="uses CPUExecutionProvider in place of the GPU"):
        opened(bundle)


def test_memory_of_the_device_that_runs_out_is_a_typed_error(
    cupy: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(bundle)

    def full(*_: object) -> None:
        raise onnxruntime_on_host.state.RuntimeException("BFCArena: Failed to allocate memory")

    monkeypatch.setattr(Session, "run_with_iobinding", full)
    with pytest.raises(BackendMemoryError):
        session.infer(bundle.golden_tiles)
    with pytest.raises(BackendMemoryError):  # not tried again without the graph
        opened(bundle)
    assert Session.asked[0][1]["enable_cuda_graph"] == "1"
    monkeypatch.setattr(cupy, "empty", lambda *_: (_ for _ in ()).throw(host.OutOfMemoryError("full")))
    with pytest.raises(BackendMemoryError):
        opened(bundle)


def test_what_is_missing(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.missing_cuda() is None
    monkeypatch.setattr(cupy.cuda, "is_available", lambda: False)
    assert "nvidia-smi" in str(backend.missing_cuda())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "CuPy is not installed" in str(backend.missing_cuda())


def test_a_device_that_is_lost_is_a_typed_error(
    cupy: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(bundle)

    def lost(_tiles: object) -> None:
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")

    monkeypatch.setattr(session, "_run", lost)
    with pytest.raises(BackendError, match="onnxruntime fails: cudaErrorLaunchFailure") as error:
        session.infer(bundle.golden_tiles)
    assert not isinstance(error.value, BackendMemoryError)
