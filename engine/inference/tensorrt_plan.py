"""Build a TensorRT plan from an ONNX graph: strongly typed, one profile, sizes from a memory budget.

Written against the documented Python API of TensorRT 10.1 to 11.x. Types come from the graph alone: version 11
has no precision flags any more, and in version 10 they are not used.
"""

from types import ModuleType
from typing import Any, Protocol

import onnx
from onnx import shape_inference

from lithostream.engine.errors import BackendError, BackendMemoryError, StoppedError
from lithostream.engine.inference.plan_cache import Progress

OUTPUTS = ("properties", "distance")
_LIVE_AT_ONCE = 2  # a residual block keeps its input while it computes: a rule of thumb, not a bound


class Log(Protocol):
    """A `tensorrt.ILogger` that remembers errors."""

    @property
    def errors(self) -> list[str]:
        """Messages of severity error and above, oldest first."""
        ...


def make_log(trt: ModuleType) -> Log:
    """Return a logger for every TensorRT object: it keeps errors, which the API gives nowhere else."""

    class Remembering(trt.ILogger):  # type: ignore[misc, name-defined]  # known only at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    made: Log = Remembering()
    return made


def failure(what: str, errors: list[str]) -> BackendError:
    """Return the typed error for a TensorRT call that gave nothing: out of memory, or anything else."""
    told = "; ".join(errors[-3:]) or "no message"
    if "outofmemory" in "".join(errors).lower().replace(" ", "").replace("_", ""):
        return BackendMemoryError(f"TensorRT {what}, out of memory: {told}", fix="use a smaller --batch")
    return BackendError(f"TensorRT {what}: {told}", fix="choose another --backend or --precision")


def batch_buckets(batch: int, *, tile_bytes: int, budget_bytes: int) -> tuple[int, ...]:
    """Batch sizes to run: powers of two, then the largest that memory and `batch` allow.

    Parameters
    ----------
    batch : int
        Tiles per call that were asked for.
    tile_bytes : int
        Device memory of one tile, see `activation_bytes`.
    budget_bytes : int
        Device memory that a session may take.

    Raises
    ------
    BackendMemoryError
        Not even one tile fits.
    """
    largest = min(batch, budget_bytes // tile_bytes)
    if largest < 1:
        raise BackendMemoryError(
            f"one tile takes about {tile_bytes >> 20} MiB of device memory, {budget_bytes >> 20} MiB are allowed",
            fix="raise CUPY_GPU_MEMORY_LIMIT, or choose another --backend",
        )
    return (*(1 << power for power in range(largest.bit_length()) if 1 << power < largest), largest)


def activation_bytes(model: bytes) -> int:
    """Estimate the device memory that one tile needs: twice what the largest node reads and writes."""
    graph = onnx.load_model_from_string(model)
    weights = {tensor.name for tensor in graph.graph.initializer}
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(graph).graph
    sizes = {value.name: _bytes(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    nodes = [
        sum(sizes.get(name, 0) for name in (*node.input, *node.output) if name not in weights)
        for node in inferred.node
    ]
    return _LIVE_AT_ONCE * max(nodes, default=1)


def build_plan(
    trt: ModuleType,
    model: bytes,
    *,
    tile: tuple[int, int, int],
    batch: int,
    workspace: int,
    threads: int,
    timing: bytes,
    progress: Progress,
) -> tuple[bytes, bytes]:
    """Compile a graph for the current GPU.

    Parameters
    ----------
    trt : module
        `tensorrt`.
    model : bytes
        ONNX, checked before.
    tile : (int, int, int)
        Height, width and channels.
    batch : int
        Largest batch, which is also the one to be fastest at; 1 is the smallest.
    workspace : int
        Bytes of device memory that a layer may use as scratch.
    threads : int
        Host threads.
    timing : bytes
        Timing cache of earlier builds, or nothing.
    progress : callable

    Returns
    -------
    plan, timing : bytes

    Raises
    ------
    BackendError, BackendMemoryError
        With what TensorRT said.
    """
    log = make_log(trt)
    builder = trt.Builder(log)
    builder.max_threads = threads
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        told = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise failure("cannot read the graph", told)
    for output in [network.get_output(index) for index in range(network.num_outputs)]:
        if output.name not in OUTPUTS:
            network.unmark_output(output)  # `rows` is not asked for, so its layers need not run
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and float32 then keeps ten bits
    cache = config.create_timing_cache(timing)
    config.set_timing_cache(cache, False)
    profile = builder.create_optimization_profile()
    profile.set_shape("tiles", (1, *tile), (batch, *tile), (batch, *tile))
    config.add_optimization_profile(profile)
    monitor = _make_monitor(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.stopped is not None:
        raise monitor.stopped
    if plan is None:
        raise failure("cannot build the plan", log.errors)
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _make_monitor(trt: ModuleType, progress: Progress) -> Any:
    """Return a progress monitor that also stops the build: no exception may pass through TensorRT."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:  # the phases within are many, and come and go
                self._steps[phase_name] = num_steps
                self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                self._tell(phase_name, step + 1)
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._steps:
                self._tell(phase_name, self._steps[phase_name])

        def _tell(self, phase: str, done: int) -> None:
            try:
                progress(phase, done, self._steps[phase])
            except (StoppedError, KeyboardInterrupt) as stop:
                self.stopped = stop

    return Monitor()


def _bytes(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return 0  # not a tensor
    count = 1
    for dim in tensor.shape.dim:
        count *= max(dim.dim_value, 1)
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
