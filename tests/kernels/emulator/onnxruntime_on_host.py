"""As much of ONNX Runtime's CUDA provider as the engine uses, on the host: sessions of the CPU provider that read and
write the very addresses they are bound to. Their CUDA graph is the addresses and shapes of the first run.
"""

import ctypes
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lithostream.engine.inference.onnxruntime import CUDA

real: Any = import_module("onnxruntime")
state: Any = real.capi.onnxruntime_pybind11_state


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
    """A CPU session that says it is on the GPU; all of them report to the class."""

    providers: tuple[str, ...] = (CUDA, "CPUExecutionProvider")
    refused = ""  # what stands against CUDA graphs: "open" or "run"
    asked: list[Any]  # for the last session
    runs: list[dict[str, int]]  # addresses by name
    synchronized = replayed = 0

    def __init__(self, graph: bytes, options: Any, providers: list[Any]) -> None:
        Session.asked = providers
        self._captures = providers[0][1].get("enable_cuda_graph") == "1"
        self._captured: dict[str, Any] = {}
        if self._captures and self.refused == "open":
            raise state.Fail("This session cannot use the graph capture feature as requested by the user")
        self._real = real.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs
        self.io_binding = Binding

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def run_with_iobinding(self, binding: Binding, run_options: Any = None) -> None:
        if self._captures and run_options is None:
            if self.refused == "run":
                raise state.Fail("operation not permitted when stream is capturing")
            Session.replayed += bool(self._captured)
            self._captured = self._captured or dict(binding.places)
            assert binding.places == self._captured, "a graph reads and writes where it was captured"
        elif run_options is not None:
            assert run_options.get_run_config_entry("gpu_graph_id") == "-1"
        Session.runs.append({name: address for name, (_, _, address) in binding.places.items()})
        given = {one.name: _read(*binding.places[one.name]) for one in self.get_inputs()}
        names = [name for name in binding.places if name not in given]
        for name, value in zip(names, self._real.run(names, given), strict=True):
            kind, shape, address = binding.places[name]
            assert value.shape == shape and value.dtype == kind
            ctypes.memmove(address, np.ascontiguousarray(value).ctypes.data, value.nbytes)


def _read(kind: Any, shape: tuple[int, ...], address: int) -> Any:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    return np.frombuffer(ctypes.string_at(address, size), kind).reshape(shape)


def _opened(graph: bytes, options: Any, providers: list[Any]) -> Any:
    on_host = providers == ["CPUExecutionProvider"]
    return (real.InferenceSession if on_host else Session)(graph, options, providers=providers)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime be found with its CUDA provider."""
    fake = SimpleNamespace(
        **{name: getattr(real, name) for name in ("SessionOptions", "RunOptions", "capi", "__version__")},
        InferenceSession=_opened,
        preload_dlls=lambda: None,
        get_available_providers=lambda: [CUDA, "CPUExecutionProvider"],
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    for name, value in {"asked": [], "runs": [], "synchronized": 0, "replayed": 0}.items():
        monkeypatch.setattr(Session, name, value, raising=False)
