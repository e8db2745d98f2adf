"""Where the arrays of a lane lie: on the host, or on the current GPU, by a stream and pinned memory of the lane's own.

Stages are written once for NumPy and CuPy. A lane uploads the bytes of its window once; what comes back is tables, a
preview and the labels of the segments, which are a product. While one lane copies, another computes: each has a
stream of its own, and copies run from and to pinned memory, where a GPU does them beside its kernels.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import BackendError
from lithostream.engine.inference.memory import typed_errors
from lithostream.engine.io.images import Slab
from lithostream.kernels.errors import BackendUnavailableError
from lithostream.kernels.loader import failures

Array = npt.NDArray[Any]


class Device(Protocol):
    """Where the arrays of one lane lie."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """Queue what is done inside here; what fails here is a typed error.

        Raises
        ------
        BackendMemoryError, BackendError
            The device is full, or lost.
        """
        ...

    def upload(self, array: Array) -> Array:
        """Return the array of the host on this device."""
        ...

    def download(self, array: Array) -> Array:
        """Return the array of this device on the host, once it is whole."""
        ...

    def release(self) -> None:
        """Give back memory that is kept for later; no lane works on the device any more."""
        ...


class Host:
    """The host itself: nothing is copied."""

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `Device.current`."""
        yield

    def upload(self, array: Array) -> Array:
        """See `Device.upload`."""
        return array

    def download(self, array: Array) -> Array:
        """See `Device.download`."""
        return array

    def release(self) -> None:
        """See `Device.release`."""


HOST: Final = Host()


class Gpu:
    """The current GPU. Serves one thread.

    Device memory is of CuPy's pool and pinned memory grows to the largest array, so nothing is allocated once a
    lane has seen windows of every size.

    Raises
    ------
    BackendError
        Numba CUDA, whose kernels find core and cut tiles, is not installed, or the device is lost.
    """

    def __init__(self) -> None:
        self._xp = import_module("cupy")
        try:
            launch = import_module("lithostream.kernels.launch")
        except BackendUnavailableError as error:
            raise BackendError(
                f"lanes on a GPU cannot run: {error}", fix="pip install 'lithostream[cuda13]'"
            ) from error
        self._failures = (*failures(), *launch.failures())
        with self._typed_errors():
            self._stream = self._xp.cuda.Stream(non_blocking=True)
        self._pinned: Array = np.empty(0, np.uint8)

    @contextmanager
    def current(self) -> Iterator[None]:
        """See `Device.current`."""
        with self._typed_errors(), self._stream:
            yield

    def upload(self, array: Array) -> Array:
        """See `Device.upload`; whoever calls waits for the copy before it, never for this one."""
        self._stream.synchronize()  # so that the pinned memory is free: a lane uploads when its last window is done
        staged = self._staged(array.shape, array.dtype)
        np.copyto(staged, array)
        made: Array = self._xp.empty(array.shape, array.dtype)
        made.set(staged, stream=self._stream)  # type: ignore[attr-defined]  # CuPy's
        return made

    def download(self, array: Array) -> Array:
        """See `Device.download`."""
        self._stream.synchronize()
        staged = self._staged(array.shape, array.dtype)
        array.get(stream=self._stream, out=staged)  # type: ignore[attr-defined]
        self._stream.synchronize()
        return staged.copy()

    def release(self) -> None:
        """See `Device.release`: what CuPy keeps is out of reach for other runtimes. A lost device has nothing to give."""
        with suppress(*self._failures):
            self._xp.get_default_memory_pool().free_all_blocks()

    def _typed_errors(self) -> AbstractContextManager[None]:
        return typed_errors("the GPU", *self._failures)

    def _staged(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Pinned memory in the form of an array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size > len(self._pinned):
            self._pinned = np.frombuffer(self._xp.cuda.alloc_pinned_memory(size), np.uint8)
        return self._pinned[:size].view(dtype).reshape(shape)


def open_device(on_gpu: bool) -> Device:
    """Return where a lane works whose session is on a GPU or not.

    Raises
    ------
    BackendError
        See `Gpu`.
    """
    return Gpu() if on_gpu else HOST


def uploaded(slab: Slab, device: Device) -> Slab:
    """Return a slab whose pixels lie on the device; which rows were lost is for the host."""
    alpha = None if slab.alpha is None else device.upload(slab.alpha)
    return replace(slab, rgb=device.upload(slab.rgb), alpha=alpha)
