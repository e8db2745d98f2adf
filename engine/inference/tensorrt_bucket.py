"""One batch size of a TensorRT session: its execution context and its CUDA graph."""

from types import ModuleType
from typing import Any, Protocol

from lithostream.engine.inference.tensorrt_plan import failure

ALIGNMENT = 256  # of every address that TensorRT is given


class Context(Protocol):
    """The part of `tensorrt.IExecutionContext` that is used here; False tells that a call failed."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Fix the shape of an input."""
        ...

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where an input or output lies on the device."""
        ...

    def set_device_memory(self, memory: int, size: int) -> None:
        """Lend memory for activations."""
        ...

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue the plan on a stream."""
        ...


class Bucket:
    """One batch size: a context of its own, as TensorRT asks for each captured graph, and that graph."""

    def __init__(self, size: int, context: Context, xp: ModuleType, stream: Any, errors: list[str]) -> None:
        self.size = size
        self._context, self._xp, self._stream, self._errors = context, xp, stream, errors
        self._graph: Any = None
        self._captured = False

    def run(self, address: int) -> None:
        """Queue the plan on tiles that lie at `address`."""
        self._errors.clear()  # of a capture that was given up
        bound = self._context.set_tensor_address("tiles", address)
        if not (bound and self._context.execute_async_v3(self._stream.ptr)):
            raise failure(f"cannot run a batch of {self.size}", self._errors)

    def replay(self, address: int) -> None:
        """Queue the plan on tiles that always lie at `address`: first plainly, then as a CUDA graph if it may."""
        if self._graph is not None:
            self._graph.launch(self._stream)
            return
        self.run(address)
        if not self._captured:
            self._captured = True
            self._graph = self._capture()

    def _capture(self) -> Any:
        """Record what `run` queues; None where the plan does something that cannot be recorded."""
        try:
            self._stream.begin_capture()
            queued = self._context.execute_async_v3(self._stream.ptr)
            graph = self._stream.end_capture()
        except self._xp.cuda.runtime.CUDARuntimeError:
            return None
        return graph if queued else None


def fit_to_bind(array: Any) -> bool:
    """Whether TensorRT may read a CuPy array where it lies."""
    return bool(array.flags.c_contiguous) and array.data.ptr % ALIGNMENT == 0
