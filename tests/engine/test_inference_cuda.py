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


class Session:
    """A CPU session that says it is on the GPU."""

    providers: tuple[str, ...] = (CUDA, "CPUExecutionProvider")
    asked: list[Any]
    read: list[int]
    synchronized = 0

    def __init__(self, graph: bytes, options: Any, providers: list[Any]) -> None:
        Session.asked, Session.read, Session.synchronized = providers, [], 0
        self._real = real.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs
        self.io_binding = Binding

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def run_with_iobinding(self, binding: Binding) -> None:
        kind, shape, address = binding.places.pop("tiles")
        Session.read.append(address)
        raw = ctypes.string_at(address, int(np.prod(shape)))
        tiles = np.frombuffer(raw, kind).reshape(shape)
        found = self._real.run(list(binding.places), {"tiles": tiles})
        for (kind, shape, address), value in zip(binding.places.values(), found, strict=True):
            assert value.shape == shape and value.dtype == kind
            ctypes.memmove(address, np.ascontiguousarray(value).ctypes.data, value.nbytes)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = SimpleNamespace(
        **{name: getattr(real, name) for name in ("SessionOptions", "capi", "__version__")},
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
    assert Session.synchronized == 2 * batches and len(set(Session.read)) == 1  # the session's own buffer
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
    for got, wanted in zip(found, want, strict=True):
        assert type(got).__module__.startswith("cupy")
        np.testing.assert_array_equal(got.get(), wanted)


def test_settings_that_keep_the_digits(cupy: Any, bundle: Bundle) -> None:
    opened(bundle)
    ((name, options),) = Session.asked
    assert name == CUDA
    assert options == {"device_id": 0, "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


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
    monkeypatch.setattr(cupy, "empty", lambda *_: (_ for _ in ()).throw(host.OutOfMemoryError("full")))
    with pytest.raises(BackendMemoryError):
        opened(bundle)


def test_what_is_missing(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.missing_cuda() is None
    monkeypatch.setattr(cupy.cuda, "is_available", lambda: False)
    assert "nvidia-smi" in str(backend.missing_cuda())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "CuPy is not installed" in str(backend.missing_cuda())
