"""As much of TensorRT's documented Python API as the engine uses, on the host: a "plan" holds the ONNX graph, and
a context runs it with ONNX Runtime on the raw addresses it was given. What the documentation forbids fails here too:
an address that is not aligned, a shape outside the profile, no device memory. Removed names of version 11 do not exist.
"""

import ctypes
import json
from collections.abc import Callable
from enum import Enum, IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import cupy_on_host
import cupy_streams
import numpy as np
import onnx
import onnxruntime as ort

MAGIC = b"plan on host\n"
DEVICE_MEMORY = 4096
streams: dict[int, "Stream"] = {}


class OutOfMemoryError(MemoryError):
    """Stands for `cupy.cuda.memory.OutOfMemoryError`."""


class Device(cupy_streams.Device):
    def use(self) -> None:
        assert self.id == 0, "this machine has one device"


class Graph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work, self.launched = work, 0

    def launch(self, _stream: object) -> None:
        self.launched += 1
        for step in self.work:
            step()


class Stream(cupy_streams.Stream):
    """Work is done at once, unless it is captured: then it is kept with the addresses of that moment."""

    capturable = True

    def __init__(self, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.ptr = len(streams) + 1
        self.captured: list[Callable[[], None]] | None = None
        self.graphs: list[Graph] = []
        streams[self.ptr] = self

    def record(self) -> Self:
        return self

    def wait_event(self, event: object) -> None:
        assert isinstance(event, Stream)

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Graph:
        work, self.captured = self.captured, None
        if not self.capturable or work is None:
            raise cupy_streams.CUDARuntimeError("operation not permitted when stream is capturing")
        self.graphs.append(Graph(work))
        return self.graphs[-1]


def cupy() -> ModuleType:
    """Return CuPy on the host with streams that capture, a pool with a limit, and a device's properties."""
    made: Any = cupy_on_host.module()
    made.cuda = cupy_streams.cuda_on_host(Stream)
    pool = made.get_default_memory_pool()

    def alloc(size: int) -> SimpleNamespace:
        if pool.limit and size > pool.limit:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        room = cupy_on_host.empty(size, np.uint8)
        return SimpleNamespace(ptr=room.data.ptr, room=room)

    properties = {"name": b"Host Emulator", "multiProcessorCount": 4}
    made.cuda.Device = Device
    made.cuda.alloc = alloc
    made.cuda.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    made.cuda.runtime = SimpleNamespace(
        CUDARuntimeError=cupy_streams.CUDARuntimeError,
        getDeviceProperties=lambda _device: properties,
        driverGetVersion=lambda: 13020,
        memGetInfo=lambda: (1 << 30, 4 << 30),
    )
    module: ModuleType = made
    return module


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


class DataType(Enum):
    FLOAT, UINT8, HALF = range(3)


class CreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class Network:
    """A graph and the names of its outputs."""

    def __init__(self) -> None:
        self.model = b""
        self.outputs: list[SimpleNamespace] = []

    num_outputs = property(lambda self: len(self.outputs))

    def get_output(self, index: int) -> SimpleNamespace:
        return self.outputs[index]

    def unmark_output(self, output: SimpleNamespace) -> None:
        self.outputs.remove(output)


class Config:
    def __init__(self) -> None:
        self.cleared: list[object] = []
        self.limits: dict[object, int] = {}
        self.profiles: list[Profile] = []
        self.progress_monitor: Any = None
        self.clear_flag = self.cleared.append
        self.add_optimization_profile = self.profiles.append
        self.set_memory_pool_limit = self.limits.__setitem__

    def create_timing_cache(self, content: bytes) -> bytearray:
        return bytearray(content)

    def set_timing_cache(self, cache: bytearray, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.cache)


class Profile:
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert len(shapes) == 3
        self.name, self.shapes = name, shapes


class Context:
    def __init__(self, engine: "Engine") -> None:
        self._engine, self._memory = engine, 0
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.profile
        self._shape = shape
        inside = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        return name == "tiles" and inside

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._engine.names and memory % 256 == 0

    def set_device_memory(self, memory: int, size: int) -> None:
        self._memory = size

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._memory < DEVICE_MEMORY or set(self._addresses) != set(self._engine.names):
            return False
        stream, shape, addresses = streams[stream_handle], self._shape, dict(self._addresses)

        def work() -> None:
            self._engine.run(shape, addresses)

        if stream.captured is None:
            work()
        else:
            stream.captured.append(work)
        return True


class Engine:
    device_memory_size_v2 = DEVICE_MEMORY

    def __init__(self, content: bytes) -> None:
        stated, _, model = content.removeprefix(MAGIC).partition(b"\n")
        self.profile: list[list[int]] = json.loads(stated)["profile"]
        self._outputs: list[str] = json.loads(stated)["outputs"]
        self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.names: list[str] = ["tiles", *self._outputs]
        self.num_io_tensors = len(self.names)
        places = (*self._session.get_inputs(), *self._session.get_outputs())
        self._shapes = {
            place.name: [d if isinstance(d, int) else -1 for d in place.shape] for place in places
        }

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.UINT8 if name == "tiles" else DataType.FLOAT

    def get_tensor_shape(self, name: str) -> list[int]:
        return self._shapes[name]

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "user managed"
        return Context(self)

    def run(self, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        tiles = np.frombuffer(ctypes.string_at(addresses["tiles"], int(np.prod(shape))), np.uint8)
        for name, value in zip(
            self._outputs, self._session.run(self._outputs, {"tiles": tiles.reshape(shape)}), strict=True
        ):
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)


def tensorrt(version: str) -> Any:
    """Return the stand-in as a module named tensorrt; `says` makes the next call of that name fail so."""
    made: Any = ModuleType("tensorrt")
    made.__version__ = version
    made.says = {}  # "build", "load" or "parse" -> what is logged while it fails
    made.loaded, made.configs = [], []
    made.ILogger, made.IProgressMonitor, made.DataType = ILogger, IProgressMonitor, DataType
    made.NetworkDefinitionCreationFlag = CreationFlag
    made.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    made.BuilderFlag = SimpleNamespace(TF32="tf32")
    made.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")

    class Builder:
        def __init__(self, log: ILogger) -> None:
            self._log, self.max_threads = log, 0

        def create_network(self, flags: int) -> Network:
            assert flags == 1 << 1, "version 10 must be told to be strongly typed"
            return Network()

        def create_builder_config(self) -> Config:
            made.configs.append(Config())
            found: Config = made.configs[-1]
            return found

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            monitor, (profile,) = config.progress_monitor, config.profiles
            monitor.phase_start("Building", None, 2)
            monitor.phase_start("Tactics", "Building", 1)
            going = monitor.step_complete("Tactics", 0) and monitor.step_complete("Building", 0)
            monitor.phase_finish("Tactics")
            monitor.phase_finish("Building")
            config.cache += b"timed;"
            if not going:
                return None
            if "build" in made.says:
                self._log.log(ILogger.Severity.WARNING, "not this")
                self._log.log(ILogger.Severity.ERROR, made.says["build"])
                return None
            names = [output.name for output in network.outputs]
            stated = json.dumps({"profile": profile.shapes, "outputs": names}).encode()
            return MAGIC + stated + b"\n" + network.model

    class OnnxParser:
        def __init__(self, network: Network, _log: ILogger) -> None:
            self._network, self.num_errors = network, int("parse" in made.says)

        def parse(self, model: bytes) -> bool:
            self._network.model = model
            graph = onnx.load_model_from_string(model).graph
            self._network.outputs = [SimpleNamespace(name=output.name) for output in graph.output]
            return not self.num_errors

        def get_error(self, _index: int) -> SimpleNamespace:
            return SimpleNamespace(desc=lambda: made.says["parse"])

    class Runtime:
        def __init__(self, log: ILogger) -> None:
            self._log = log

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            made.loaded.append(content)
            if "load" in made.says:
                self._log.log(ILogger.Severity.INTERNAL_ERROR, made.says["load"])
                return None
            return Engine(content)

    made.Builder, made.OnnxParser, made.Runtime = Builder, OnnxParser, Runtime
    return made
