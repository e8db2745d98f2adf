"""ONNX Runtime: on the CPU, the default and the oracle of every other session, and on CUDA devices."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle, model_file
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.inference import require_one_runtime
from lithostream.engine.inference.memory import typed_errors
from lithostream.engine.machine import versions
from lithostream.engine.manifest import Precision
from lithostream.kernels.arrays import check_array, on_gpu
from lithostream.kernels.loader import failures

OUTPUTS = ("properties", "distance")
BUILDS = ("onnxruntime", "onnxruntime-gpu")
CUDA = "CUDAExecutionProvider"
CUDA_EXTRA = "pip install 'lithostream[cuda13]'"
ALIGNMENT = 256  # of tiles that are read where they lie, as CuPy's own allocations have it

Floats = npt.NDArray[np.float32]


def missing() -> str | None:
    """Say what to install, or why ONNX Runtime cannot run here; None where it can."""
    try:
        require_one_runtime(set(versions(BUILDS)))
        runtime = import_module("onnxruntime")
    except BackendError as error:
        return f"{error.reason}: {error.fix}"
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error}): install it again"
    # One build uninstalled from under the other leaves a module without content.
    return (
        None if hasattr(runtime, "InferenceSession") else "onnxruntime is an empty module: install it again"
    )


def missing_cuda() -> str | None:
    """Say what to install, or why ONNX Runtime cannot use a GPU here; None where it can."""
    reason = missing()
    if reason is not None:
        return reason
    if CUDA not in import_module("onnxruntime").get_available_providers():
        return f"this onnxruntime is built without CUDA: pip uninstall -y onnxruntime, then {CUDA_EXTRA}"
    try:
        xp = import_module("cupy")
    except ImportError:
        return f"CuPy is not installed: {CUDA_EXTRA}"
    return None if xp.cuda.is_available() else "no CUDA device answers: check the driver with nvidia-smi"


class OnnxRuntimeSession:
    """One ONNX Runtime CPU session; a tile's result does not depend on those it is asked with (tested).

    Parameters
    ----------
    bundle : Bundle
        Verified bundle; its bytes are loaded, never its path.
    batch : int
        Tiles per call, at most.
    threads : int
        Intra-op threads.
    precision : {"fp32", "fp16", "int8"}
        Which of the bundle's graphs.
    """

    on_gpu: Final = False

    def __init__(self, bundle: Bundle, *, batch: int, threads: int, precision: Precision = "fp32") -> None:
        self.precision: Precision = precision
        self._session, self.backend = _open(bundle, threads, precision, ["CPUExecutionProvider"])
        self._targets = len(bundle.manifest.outputs)
        self._batch = batch

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """See `Session.infer`."""
        properties = np.empty((len(tiles), self._targets), np.float32)
        distance = np.empty(len(tiles), np.float32)
        for start in range(0, len(tiles), self._batch):
            part = slice(start, start + self._batch)
            with runtime_errors():
                found = self._session.run(OUTPUTS, {"tiles": np.ascontiguousarray(tiles[part])})
            properties[part], distance[part] = found
        return properties, distance


class OnnxRuntimeCudaSession:
    """One ONNX Runtime session on the current GPU, bound to device memory, of one padded batch size.

    Full batches of CuPy tiles are read where they lie; all others are copied once, to where a CUDA graph reads them,
    captured when the session opens (ONNX Runtime's documentation of the CUDA provider, "Using CUDA Graphs"; where
    the network does not allow it, the session runs without). Results follow the tiles: CuPy for CuPy, NumPy for
    NumPy. Serves one thread.

    Parameters
    ----------
    bundle, batch, threads, precision
        As in `OnnxRuntimeSession`.

    Raises
    ------
    BackendError
        ONNX Runtime fell back to the CPU, which it does without a word.
    """

    on_gpu: Final = True

    def __init__(self, bundle: Bundle, *, batch: int, threads: int, precision: Precision = "fp32") -> None:
        self._xp = import_module("cupy")
        self.precision: Precision = precision
        self._device = int(self._xp.cuda.Device().id)
        self._plain = import_module("onnxruntime").RunOptions()
        self._plain.add_run_config_entry("gpu_graph_id", "-1")  # neither capture nor replay
        size, channels = bundle.manifest.input.size_px, bundle.manifest.input.channels
        self._tile = (size, size, channels)
        with self._errors():
            self._tiles = self._xp.zeros((batch, *self._tile), np.uint8)
            self._found = (
                self._xp.empty((batch, len(bundle.manifest.outputs)), np.float32),
                self._xp.empty(batch, np.float32),
            )
        start_on_cuda(partial(self._start, bundle, threads), self._device)

    def _start(self, bundle: Bundle, threads: int, providers: list[Any]) -> None:
        """Open the session and run it once, which with a CUDA graph is when that is captured."""
        self._session, self.backend = _open(bundle, threads, self.precision, providers)
        refuse_fallback(self._session)
        self._fixed = self._bound(self._tiles)
        with self._errors():
            self._run(self._tiles)

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """See `Session.infer`."""
        given, step = on_gpu(tiles=tiles), len(self._tiles)
        check_array("tiles", tiles, dtype=np.uint8, shape=(None, *self._tile))
        tiles = tiles if given else np.ascontiguousarray(tiles)  # which outlives the copies that read it
        with self._errors():
            results = [self._xp.empty((len(tiles), *one.shape[1:]), np.float32) for one in self._found]
            for start in range(0, len(tiles), step):
                part = tiles[start : start + step]
                self._run(part if given and self._fits(part) else self._padded(part, given))
                for result, found in zip(results, self._found, strict=True):
                    result[start : start + step] = found[: len(part)]
            properties, distance = results if given else [one.get() for one in results]
        return properties, distance

    def _errors(self) -> AbstractContextManager[None]:
        """Turn what ONNX Runtime and CuPy raise into typed errors; a lost device shows itself to either first."""
        return runtime_errors(*failures())

    def _fits(self, part: Any) -> bool:
        whole = len(part) == len(self._tiles) and part.flags.c_contiguous
        return bool(whole and part.data.ptr % ALIGNMENT == 0)

    def _padded(self, part: Any, given: bool) -> Any:
        if given:
            self._tiles[: len(part)] = part
        else:
            stream = self._xp.cuda.get_current_stream()
            self._tiles[: len(part)].set(part, stream=stream)
        return self._tiles

    def _run(self, tiles: Any) -> None:
        self._xp.cuda.get_current_stream().synchronize()  # ONNX Runtime works on a stream of its own
        if tiles is self._tiles:
            binding = self._fixed
            self._session.run_with_iobinding(binding)
        else:  # a captured graph reads from one address alone
            binding = self._bound(tiles)
            self._session.run_with_iobinding(binding, self._plain)
        binding.synchronize_outputs()

    def _bound(self, tiles: Any) -> Any:
        binding = self._session.io_binding()
        where = ("cuda", self._device)
        binding.bind_input("tiles", *where, np.uint8, tiles.shape, tiles.data.ptr)
        for name, found in zip(OUTPUTS, self._found, strict=True):
            binding.bind_output(name, *where, np.float32, found.shape, found.data.ptr)
        return binding


def start_on_cuda(start: Callable[[list[Any]], None], device: int) -> None:
    """Start a session on a GPU: with a CUDA graph, or without where that is refused.

    Parameters
    ----------
    start : callable
        Takes the providers, opens a session with them and runs it once.
    device : int

    Raises
    ------
    BackendError
        What `start` raises without a CUDA graph; with one only `BackendMemoryError`.
    """
    runtime = import_module("onnxruntime")
    runtime.preload_dlls()  # CUDA and cuDNN as pip installs them, outside the linker's path
    # TF32 has ten bits, not fp32; a search by time would choose other kernels, so other digits, in each process.
    options = {"device_id": device, "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    try:
        start([(CUDA, {**options, "enable_cuda_graph": "1"})])
    except BackendMemoryError:
        raise
    except BackendError:  # a node on the CPU, control flow, or a kernel that cannot be recorded
        start([(CUDA, options)])


def refuse_fallback(session: Any) -> None:
    """Raise BackendError for a session that ONNX Runtime moved from the GPU to the CPU, which it does without a word."""
    used = session.get_providers()[0]
    if used != CUDA:
        raise BackendError(f"ONNX Runtime uses {used} in place of the GPU", fix=CUDA_EXTRA)


def _open(bundle: Bundle, threads: int, precision: Precision, providers: list[Any]) -> tuple[Any, str]:
    """Open a session whose graph fits the manifest, and name it."""
    session = open_graph(bundle.graph(precision), threads, providers)
    _check_signature(session, bundle, precision)
    suffix = "" if precision == "fp32" else f" {precision}"
    return session, f"{session_name(session)}{suffix}"


def open_graph(graph: bytes, threads: int, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> Any:
    """Open ONNX Runtime's own session on a graph, with `threads` that wait without spinning.

    Raises
    ------
    BackendError
        The runtime refuses the graph.
    """
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with runtime_errors():
        return ort.InferenceSession(graph, options, providers=list(providers))


def session_name(session: Any) -> str:
    """Name ONNX Runtime, its version and the provider that serves."""
    return f"onnxruntime {import_module('onnxruntime').__version__} {session.get_providers()[0]}"


def _check_signature(session: Any, bundle: Bundle, precision: Precision) -> None:
    size, channels = bundle.manifest.input.size_px, bundle.manifest.input.channels
    targets = len(bundle.manifest.outputs)
    inputs = [(i.name, i.type, list(i.shape[1:])) for i in session.get_inputs()]
    outputs = {o.name: (o.type, list(o.shape[1:])) for o in session.get_outputs()}
    wanted = {"properties": ("tensor(float)", [targets]), "distance": ("tensor(float)", [])}
    if "rows" in outputs:  # within a tile: may be given too, any number of them, and is not asked for
        wanted["rows"] = ("tensor(float)", [*outputs["rows"][1][:1], targets])
    if inputs != [("tiles", "tensor(uint8)", [size, size, channels])] or outputs != wanted:
        raise BundleError(
            f"graph takes {inputs} and gives {outputs}, the manifest needs"
            f" uint8 tiles [N, {size}, {size}, {channels}] and {wanted}",
            file=bundle.path / model_file(precision),
            fix="export the bundle again",
        )


@contextmanager
def runtime_errors(*others: type[Exception]) -> Iterator[None]:
    """Turn what ONNX Runtime raises, and `others`, into typed errors, see `typed_errors`."""
    state = import_module("onnxruntime").capi.onnxruntime_pybind11_state
    kinds = [one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)]
    with typed_errors("onnxruntime", *kinds, *others):
        yield
