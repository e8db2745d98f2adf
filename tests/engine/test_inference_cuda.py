"""ONNX Runtime on a GPU, against a stand-in that reads and writes the very addresses it is bound to."""

import ctypes
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorrt_on_host as host

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.errors import BackendError, BackendMemoryError
from lithostream.engine.inference import check_golden
from lithostream.engine.inference import onnxruntime as backend
from lithostream.engine.inference.onnxruntime import CUDA, OnnxRuntimeCudaSession

real: Any = import_module("onnxruntime")


class Binding:
    """Addresses by name, as `IOBinding` takes them."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[Any, tuple[int, ...], int]] = {}

    def bind_input(self, name: str, device: str, number: int, kind: Any, shape: Any, address: int) -> None:
        assert (device, number) == ("cuda", 0) and address
        self.places[name] = kind, tuple(shape), address

    bind_output = bind_input

    def synchronize_outputs(self) -> None:
        Session.synchronized += 1


Fail: Any = real.capi.onnxruntime_pybind11_state.Fail


class Session:
    """A CPU session that says it is on the GPU. Its CUDA graph is the addresses and shapes of the first run."""

    providers: tuple[str, ...] = (CUDA, "CPUExecutionProvider")
    refused = ""  # what stands against CUDA graphs: "open" or "run"
    asked: list[Any]
    read: list[int]
    synchronized = replayed = 0

    def __init__(self, graph: bytes, options: Any, providers: list[Any]) -> None:
        Session.asked, Session.read, Session.synchronized, Session.replayed = providers, [], 0, 0
        self._captures = providers[0][1].get("enable_cuda_graph") == "1"
        self._captured: dict[str, Any] = {}
        if self._captures and self.refused == "open":
            raise Fail("This session cannot use the graph capture feature as requested by the user")
        self._real = real.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs
        self.io_binding = Binding

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def run_with_iobinding(self, binding: Binding, run_options: Any = None) -> None:
        if self._captures and run_options is None:
            if self.refused == "run":
                raise Fail("operation not permitted when stream is capturing")
            Session.replayed += bool(self._captured)
            self._captured = self._captured or dict(binding.places)
            assert binding.places == self._captured, "a graph reads and writes where it was captured"
        elif run_options is not None:
            assert run_options.get_run_config_entry("gpu_graph_id") == "-1"
        places = dict(binding.places)
        kind, shape, address = places.pop("tiles")
        Session.read.append(address)
        raw = ctypes.string_at(address, int(np.prod(shape)))
        tiles = np.frombuffer(raw, kind).reshape(shape)
        found = self._real.run(list(places), {"tiles": tiles})
        for (kind, shape, address), value in zip(places.values(), found, strict=True):
            assert value.shape == shape and value.dtype == kind
            ctypes.memmove(address, np.ascontiguousarray(value).ctypes.data, value.nbytes)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = SimpleNamespace(
        **{name: getattr(real, name) for name in ("SessionOptions", "RunOptions", "capi", "__version__")},
        InferenceSession=Session,
        preload_dlls=lambda: None,
        get_available_providers=lambda: [CUDA, "CPUExecutionProvider"],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    module: ModuleType = host.cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(Session, "providers", Session.providers)
    return module


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def opened(bundle: Bundle, batch: int = 8) -> OnnxRuntimeCudaSession:
    return OnnxRuntimeCudaSession(bundle, batch=batch, threads=1)


def test_numpy_tiles_give_numpy_results(cupy: Any, bundle: Bundle) -> None:
    session = opened(bundle)
    assert session.backend.endswith(f" {CUDA}") and session.precision == "fp32"
    assert check_golden(session, bundle) < 1e-3
    assert all(type(one) is np.ndarray for one in session.infer(bundle.golden_tiles))
    batches = -(-len(bundle.golden_tiles) // 8)
    assert Session.synchronized == 1 + 2 * batches and len(set(Session.read)) == 1  # the session's own buffer
    assert Session.replayed == 2 * batches  # all but the first, which opening the session makes
    assert [one.shape for one in session.infer(bundle.golden_tiles[:0])] == [(0, 3), (0,)]


def test_full_batches_of_gpu_tiles_are_read_where_they_lie(cupy: Any, bundle: Bundle) -> None:
    session, tiles = opened(bundle), bundle.golden_tiles[:19]
    want = session.infer(tiles)
    Session.read.clear()
    given = cupy.asarray(tiles)
    found: Any = session.infer(given)
    at = [given.data.ptr + k * 8 * tiles[0].nbytes for k in range(2)]
    aligned = given.data.ptr % 256 == 0
    assert (Session.read[:2] == at) == aligned and Session.read[2] not in at
    assert Session.replayed == (4 if aligned else 6)
    for got, wanted in zip(found, want, strict=True):
        assert type(got).__module__.startswith("cupy")
        np.testing.assert_array_equal(got.get(), wanted)


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
        raise real.capi.onnxruntime_pybind11_state.RuntimeException("BFCArena: Failed to allocate memory")

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
