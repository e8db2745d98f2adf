"""TensorRT 10.1 to 11.x: a plan built here, one context and CUDA graph per batch size, memory from CuPy's pool."""

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle, model_file
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.inference.memory import typed_errors
from lithostream.engine.inference.plan_cache import Plan, PlanCache, Progress
from lithostream.engine.inference.signed import signed
from lithostream.engine.inference.tensorrt_bucket import Bucket, fit_to_bind
from lithostream.engine.inference.tensorrt_child import build_apart
from lithostream.engine.inference.tensorrt_plan import (
    activation_bytes,
    batch_buckets,
    failure,
    make_log,
)
from lithostream.engine.manifest import Precision
from lithostream.kernels.arrays import check_array, on_gpu
from lithostream.kernels.loader import failures

OLDEST, NEWEST_MAJOR = (10, 1), 11
DRIVER = Path("/proc/driver/nvidia/version")

Floats = npt.NDArray[np.float32]


def missing() -> str | None:
    """Say what to install, or why TensorRT cannot run here; None where it can."""
    try:
        version = str(import_module("tensorrt").__version__)
    except ImportError:
        return "TensorRT is not installed: pip install tensorrt-cu13 (on a Jetson it comes with JetPack 7)"
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST or found[0] > NEWEST_MAJOR:
        return f"TensorRT {version} is not supported: install 10.1 or newer, or 11"
    try:
        xp = import_module("cupy")
    except ImportError:
        return "CuPy is not installed: pip install 'cupy-cuda13x[ctk]'"
    return None if xp.cuda.is_available() else "no CUDA device answers: check the driver with nvidia-smi"


def this_gpu(xp: ModuleType) -> dict[str, str]:
    """Return all of the current GPU that a plan depends on; the processors tell slices and power modes apart."""
    device = xp.cuda.Device()
    found = xp.cuda.runtime.getDeviceProperties(device.id)
    kernel = DRIVER.read_text(encoding="utf-8").splitlines()[0] if DRIVER.is_file() else ""
    return {
        "gpu": found["name"].decode(),
        "compute_capability": str(device.compute_capability),
        "processors": str(found["multiProcessorCount"]),
        "driver": f"{xp.cuda.runtime.driverGetVersion()} {kernel}".strip(),
    }


def memory_budget(xp: ModuleType) -> int:
    """Bytes a session may take: the limit of CuPy's pool (CUPY_GPU_MEMORY_LIMIT), else half of the device's."""
    limit = int(xp.get_default_memory_pool().get_limit())
    return limit or int(xp.cuda.runtime.memGetInfo()[1]) // 2


class Built(NamedTuple):
    """One plan of `build_plans`; `built` is false where it lay on disk already."""

    precision: Precision
    path: Path
    built: bool
    seconds: float


def build_plans(
    bundle: Bundle, precision: Precision | None, batch: int, threads: int, progress: Progress
) -> Iterator[Built]:
    """Build the plan of one precision, or of all that the bundle has, and hold it to the golden cases.

    Raises as `TensorRtSession` does.
    """
    from lithostream.engine.inference import check_golden  # which imports the sessions

    all_of_it: tuple[Precision, ...] = ("fp32", *(variant.precision for variant in bundle.manifest.variants))
    for each in (precision,) if precision else all_of_it:
        begun = time.monotonic()
        session = TensorRtSession(
            bundle,
            batch=batch,
            threads=threads,
            precision=each,
            progress=lambda phase, done, total, name=each: progress(f"{name}: {phase}", done, total),  # type: ignore[misc]
        )
        check_golden(session, bundle, bundle.tolerance(each))
        yield Built(each, session.plan.path, session.plan.built, time.monotonic() - begun)


class TensorRtSession:
    """One plan and its contexts; serves one thread.

    The weights are TensorRT's own memory, everything else (activations, input, outputs) is of CuPy's pool.

    Parameters
    ----------
    bundle : Bundle
        Verified bundle.
    batch : int
        Most tiles per call; fewer where the memory budget asks for it.
    threads : int
        Host threads of a build.
    precision : {"fp32", "fp16", "int8"}
        Which of the bundle's graphs.
    progress : callable, optional
        Told how a build goes, which takes from seconds to minutes.

    Raises
    ------
    BackendError
        TensorRT cannot run here, refuses the graph, or crashed while it built the plan.
    BackendMemoryError
        The device has too little memory for this batch.
    BundleError
        The bundle has no such graph, or the graph does not fit its manifest.
    """

    on_gpu: Final = True

    def __init__(
        self,
        bundle: Bundle,
        *,
        batch: int,
        threads: int,
        precision: Precision = "fp32",
        progress: Progress = lambda _phase, _done, _total: None,
    ) -> None:
        reason = missing()
        if reason is not None:
            raise BackendError(
                f"TensorRT cannot run here: {reason}", fix="do so, or choose another --backend"
            )
        self._trt, self._xp = import_module("tensorrt"), import_module("cupy")
        self.precision: Precision = precision
        self._tile = (bundle.manifest.input.size_px,) * 2 + (bundle.manifest.input.channels,)
        self._targets = len(bundle.manifest.outputs)
        model, budget = bundle.graph(precision), memory_budget(self._xp)
        if precision == "int8":
            model = signed(model)
        buckets = batch_buckets(batch, tile_bytes=activation_bytes(model), budget_bytes=budget)
        self._gpu = this_gpu(self._xp)
        self.plan = self._built(model, buckets, budget, threads, progress)
        self._log = make_log(self._trt)
        with self._typed_errors():
            self._open(buckets, bundle.path / model_file(precision))

    @property
    def backend(self) -> str:
        """Runtime, version and device."""
        return f"tensorrt {self._trt.__version__} {self._gpu['gpu']} {self.precision}"

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """See `Session.infer`; CuPy tiles are read where they lie, and give CuPy results.

        The results are ready for work that is queued on the caller's current stream.
        """
        given, xp = on_gpu(tiles=tiles), self._xp
        check_array("tiles", tiles, dtype=np.uint8, shape=(None, *self._tile))
        tiles = tiles if given else np.ascontiguousarray(tiles)  # which outlives the copies that read it
        step = self._buckets[-1].size
        with self._typed_errors():
            properties = xp.empty((len(tiles), self._targets), np.float32)
            distance = xp.empty(len(tiles), np.float32)
            caller = xp.cuda.get_current_stream()
            self._stream.wait_event(caller.record())
            with self._stream:
                for start in range(0, len(tiles), step):
                    part = tiles[start : start + step]
                    self._run(part, given)
                    properties[start : start + step] = self._outputs["properties"][: len(part)]
                    distance[start : start + step] = self._outputs["distance"][: len(part)]
            caller.wait_event(self._stream.record())
            return (properties, distance) if given else (properties.get(), distance.get())

    def _run(self, part: Any, given: bool) -> None:
        if given and len(part) == self._in_place.size and fit_to_bind(part):
            self._in_place.run(part.data.ptr)
            return
        if given:
            self._input[: len(part)] = part
        else:
            self._input[: len(part)].set(part, stream=self._stream)
        bucket = next(one for one in self._buckets if one.size >= len(part))
        bucket.replay(self._input.data.ptr)

    def _built(
        self, model: bytes, buckets: tuple[int, ...], budget: int, threads: int, progress: Progress
    ) -> Plan:
        cache = PlanCache()
        machine = {"runtime": f"tensorrt {self._trt.__version__}", **self._gpu}
        tactics = {"kind": "timing cache", **machine}
        key = {
            "kind": "plan",
            **machine,
            "onnx_sha256": hashlib.sha256(model).hexdigest(),
            "precision": self.precision,
            "profile": f"{self._tile} 1 to {buckets[-1]}",
            "workspace": str(budget),
        }

        def build(report: Progress) -> bytes:
            plan, timing = build_apart(
                model,
                device=int(self._xp.cuda.Device().id),
                tile=self._tile,
                batch=buckets[-1],
                workspace=budget,
                threads=threads,
                timing=cache.load(tactics) or b"",
                progress=report,
            )
            cache.store(tactics, timing)
            return plan

        return cache.get_or_build(key, build, progress)

    def _open(self, buckets: tuple[int, ...], file: Path) -> None:
        """Load the plan and allocate everything that `infer` needs but its results."""
        self._runtime = self._trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(self.plan.content)
        if self._engine is None:
            raise failure("cannot load the plan", self._log.errors)
        self._check_signature(file)
        xp, batch = self._xp, buckets[-1]
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._input = xp.zeros((batch, *self._tile), np.uint8)
        self._outputs = {
            "properties": xp.empty((batch, self._targets), np.float32),
            "distance": xp.empty(batch, np.float32),
        }
        size = max(int(self._engine.device_memory_size_v2), 1)
        self._memory = xp.cuda.alloc(size)  # shared: the contexts run one after the other, on one stream
        xp.cuda.get_current_stream().synchronize()  # the zeros above
        made = [self._bucket(count, size) for count in (*buckets, batch)]
        self._buckets, self._in_place = made[:-1], made[-1]

    def _bucket(self, count: int, size: int) -> Bucket:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise failure("cannot make an execution context", self._log.errors)
        context.set_device_memory(self._memory.ptr, size)
        bound = context.set_input_shape("tiles", (count, *self._tile))
        for name, array in self._outputs.items():
            bound = bound and context.set_tensor_address(name, array.data.ptr)
        if not bound:
            raise failure(f"refuses a batch of {count}", self._log.errors)
        return Bucket(count, context, self._xp, self._stream, self._log.errors)

    def _typed_errors(self) -> AbstractContextManager[None]:
        return typed_errors("TensorRT", *failures())

    def _check_signature(self, file: Path) -> None:
        engine, kinds = self._engine, self._trt.DataType
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        found = {
            name: (engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))) for name in names
        }
        wanted = {
            "tiles": (kinds.UINT8, (-1, *self._tile)),
            "properties": (kinds.FLOAT, (-1, self._targets)),
            "distance": (kinds.FLOAT, (-1,)),
        }
        if found != wanted:
            raise BundleError(
                f"graph has {found}, the manifest needs {wanted}", file=file, fix="export the bundle again"
            )
