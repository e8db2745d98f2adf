"""How kernels in Numba CUDA reach the GPU: which arrays they see, and on which stream they run."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from lithostream.kernels.errors import BackendUnavailableError
from lithostream.kernels.loader import cupy

try:
    import_module("numba_cuda")  # Numba alone has an old target of that name, which does not know CUDA 13
    cuda: Any = import_module("numba.cuda")
except ImportError as error:
    raise BackendUnavailableError(
        f"Numba CUDA cannot be imported ({error}): install lithostream with the extra [cuda13]"
    ) from error

# Numba warns of grids that fill no GPU; where a thread does a row of an image there are as many as there are rows.
warnings.filterwarnings("ignore", "Grid size .* will likely result in GPU under-utilization")

THREADS: Final = 128
"""Threads of a block, fewer where there is less to do."""

Launch = Callable[..., None]
"""Takes a kernel, its blocks and threads, and its arguments."""


def failures() -> tuple[type[Exception], ...]:
    """Return what Numba raises where a GPU fails; its launches are those of cuda.core, whose error is not Numba's."""
    own = vars(import_module("numba.cuda.cudadrv.error")).values()
    kinds = [kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception)]
    return *kinds, import_module("cuda.core._utils.cuda_utils").CUDAError


def kernel(function: Callable[..., None]) -> Any:
    """Compile a kernel for the GPU at its first launch: once per process, GPU and types of the arguments."""
    return cuda.jit(function)


@contextmanager
def queue(stream: object | None) -> Iterator[Launch]:
    """Yield what launches kernels on a CuPy stream, the current one where none is given.

    Meanwhile CuPy allocates and copies on that stream too, so that all work is in order and nobody has to wait.
    """
    xp = cupy()
    chosen: Any = xp.cuda.get_current_stream() if stream is None else stream
    with chosen:
        on = cuda.external_stream(chosen.ptr)

        def launch(function: Any, grid: tuple[int, int], *arguments: Any) -> None:
            shown = (cuda.as_cuda_array(a, sync=False) if isinstance(a, xp.ndarray) else a for a in arguments)
            function[(*grid, on)](*shown)

        yield launch


def each(count: int) -> tuple[int, int]:
    """Blocks and threads for one thread per item; `cuda.grid(1)` may run past the last."""
    threads = min(THREADS, count)
    return -(-count // threads), threads


def each_row(count: int, width: int) -> tuple[int, int]:
    """Blocks and threads for one block per row, whose threads share `width` items."""
    return count, min(THREADS, width)
