"""The segmenter's two graphs on ONNX Runtime's CUDA provider: from view to masks nothing leaves the device."""

from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import SegmenterGraphs
from lithostream.engine.errors import BackendError
from lithostream.engine.inference.onnxruntime import (
    missing_cuda,
    open_graph,
    refuse_fallback,
    runtime_errors,
    session_name,
    start_on_cuda,
)
from lithostream.engine.inference.segmenter import Floats, SegmenterSession
from lithostream.kernels.arrays import on_gpu
from lithostream.kernels.loader import failures

CUDA_PROMPTS = 64
"""Prompts a call: on a GPU the launches of a call take longer than the work for one prompt."""

KINDS: dict[str, type[np.generic]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class SegmenterCudaSession(SegmenterSession):
    """The segmenter on the current GPU; nothing of a view's size is allocated after it is open.

    The decoder reads the encoder's outputs where the encoder writes them. Both replay a CUDA graph where ONNX Runtime
    allows it.

    A view is CuPy's, or NumPy's and uploaded; prompts are NumPy's; masks are CuPy's, in memory that the next `decode`
    writes over.

    Parameters
    ----------
    bundle, threads
        As in `SegmenterSession`.

    Raises
    ------
    BundleError
        As in `SegmenterSession`.
    BackendError
        ONNX Runtime cannot use a GPU here, or fell back to the CPU, which it does without a word.
    """

    prompts = CUDA_PROMPTS
    on_gpu = True

    def encode(self, view: npt.NDArray[np.uint8], valid: tuple[int, int]) -> None:
        """See `SegmenterSession.encode`."""
        shown = view if on_gpu(view=view) else np.ascontiguousarray(view)
        shown_px = np.array(valid, np.int64)
        with _errors():  # both outlive the copies that read them, for which `run` waits
            _put(shown, self._view[0])
            _put(shown_px, self._valid)
            self._encoding.run()

    def _missing(self) -> str | None:
        return missing_cuda()

    def _open(self, graphs: SegmenterGraphs, view_px: int, threads: int) -> None:
        xp = import_module("cupy")
        with _errors():
            self._view = xp.zeros((1, view_px, view_px, 3), np.uint8)
            self._valid = xp.full(2, view_px, np.int64)
            self._asked = {"points": xp.asarray(self._points), "boxes": xp.asarray(self._boxes)}
        seen = {"view": self._view, "valid": self._valid}
        self._encoding = _BoundGraph(graphs.encoder, threads, seen, self.prompts)
        shared = {**self._encoding.found, **self._asked}
        self._decoding = _BoundGraph(graphs.decoder, threads, shared, self.prompts)
        self.backend = self._encoding.backend

    def _decoded(self) -> tuple[Floats, Floats]:
        with _errors():
            _put(self._points, self._asked["points"])
            _put(self._boxes, self._asked["boxes"])
            self._decoding.run()
        return self._decoding.found["logits"], self._decoding.found["quality"]


class _BoundGraph:
    """A graph on the current GPU that reads and writes the same arrays each time.

    Parameters
    ----------
    graph : bytes
    threads : int
    given : dict of str to CuPy array
        What it reads, by name.
    free : int
        Length of what the graph leaves free.

    Attributes
    ----------
    found : dict of str to CuPy array
        What it writes.
    backend : str
    """

    def __init__(self, graph: bytes, threads: int, given: dict[str, Any], free: int) -> None:
        self._xp = import_module("cupy")
        self._given, self._free = given, free
        self._device = int(self._xp.cuda.Device().id)
        start_on_cuda(partial(self._start, graph, threads), self._device)

    def run(self) -> None:
        self._xp.cuda.get_current_stream().synchronize()  # ONNX Runtime works on a stream of its own
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def _start(self, graph: bytes, threads: int, providers: list[Any]) -> None:
        """Open the session and run it once, which with a CUDA graph is when that is captured."""
        self._session = open_graph(graph, threads, providers)
        refuse_fallback(self._session)
        self.backend = session_name(self._session)
        with _errors():
            self.found = {one.name: self._empty(one) for one in self._session.get_outputs()}
            self._binding = self._session.io_binding()
            for bind, arrays in (
                (self._binding.bind_input, self._given),
                (self._binding.bind_output, self.found),
            ):
                for name, array in arrays.items():
                    bind(name, "cuda", self._device, array.dtype.type, array.shape, array.data.ptr)
            self.run()

    def _empty(self, output: Any) -> Any:
        if output.type not in KINDS:
            raise BackendError(
                f"the segmenter gives {output.name} as {output.type}, on a GPU it can be one of {list(KINDS)}",
                fix="export the bundle again",
            )
        shape = tuple(size if isinstance(size, int) else self._free for size in output.shape)
        return self._xp.empty(shape, KINDS[output.type])


def _errors() -> AbstractContextManager[None]:
    """Turn what ONNX Runtime and CuPy raise into typed errors."""
    return runtime_errors(*failures())


def _put(value: npt.NDArray[Any], target: Any) -> None:
    """Fill an array of the device, on the current stream."""
    if isinstance(value, np.ndarray):
        target.set(value, stream=import_module("cupy").cuda.get_current_stream())
    else:
        target[...] = value
