"""What of `cupy.cuda` has no arrays: streams, the one device, pinned memory and errors, with the manners of CuPy 14."""

import ctypes
import threading
import weakref
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

PINNED_UNIT = 512
_own = threading.local()


class CUDARuntimeError(RuntimeError):
    """Stands for `cupy.cuda.runtime.CUDARuntimeError`."""


class CUDADriverError(RuntimeError):
    """Stands for `cupy.cuda.driver.CUDADriverError`, which launches raise; it is no CUDARuntimeError."""


class CompileException(Exception):
    """Stands for `cupy.cuda.compiler.CompileException`."""


class NVRTCError(RuntimeError):
    """Stands for `cupy.cuda.nvrtc.NVRTCError`."""


def _entered() -> list["Stream"]:
    """Streams this thread is inside of, the current one last."""
    streams: list[Stream] = _own.__dict__.setdefault("streams", [])
    return streams


class Stream:
    """Work is done at once; a stream only records that it was entered. Which is current, each thread knows for itself.

    A copy from the host may read until the stream is waited for: what it reads must neither change before nor go.
    """

    def __init__(self, non_blocking: bool = False) -> None:
        self.entered = 0
        self.ptr = 0
        self._reads: list[tuple[weakref.ref[npt.NDArray[Any]], int, bytes]] = []

    def __enter__(self) -> Self:
        self.entered += 1
        _entered().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _entered().pop()

    def synchronize(self) -> None:
        reads, self._reads = self._reads, []
        for owner, address, was in reads:
            if owner() is None:
                raise RuntimeError("the host gave up what a copy to the device was still reading")
            if ctypes.string_at(address, len(was)) != was:
                raise RuntimeError("the host changed what a copy to the device was still reading")

    def will_read(self, source: npt.NDArray[Any]) -> None:
        """Note what a copy reads, C-contiguous; to keep it is its owner's part."""
        owner = source
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._reads.append((weakref.ref(owner), source.ctypes.data, source.tobytes()))


class Device:
    """The one emulated device; no fatbin holds code for it."""

    compute_capability = "host"
    attributes = {"MultiProcessorCount": 4, "MaxSharedMemoryPerBlock": 48 << 10}  # noqa: RUF012

    def __init__(self, index: int = 0) -> None:
        self.id = index

    def synchronize(self) -> None:
        pass


def alloc_pinned_memory(size: int) -> bytearray:
    """Return a buffer that is longer than was asked for, as those of CuPy's pool are."""
    return bytearray(1 << max(size - 1, PINNED_UNIT - 1).bit_length())


def cuda_on_host(stream: type[Stream] = Stream) -> SimpleNamespace:
    """Return what stands in for `cupy.cuda`, its streams of the given kind."""
    default = stream()
    return SimpleNamespace(
        Device=Device,
        Stream=stream,
        get_current_stream=lambda: (_entered() or [default])[-1],
        is_available=lambda: True,
        alloc_pinned_memory=alloc_pinned_memory,
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        compiler=SimpleNamespace(CompileException=CompileException),
        nvrtc=SimpleNamespace(NVRTCError=NVRTCError),
    )
