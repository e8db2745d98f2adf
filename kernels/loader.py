"""Device code of a room, loaded when the first CuPy array asks for it.

The build leaves `cuda.fatbin` beside a room's `cuda.cu` where it found nvcc. It holds machine code for `BUILT_FOR`;
any other GPU, and any build without nvcc, compiles the same source by NVRTC at first use (CuPy keeps the result).
"""

import hashlib
from functools import cache
from importlib import import_module
from importlib.resources import as_file, files
from typing import Any, Final

from lithostream.kernels.errors import BackendUnavailableError

BUILT_FOR: Final = ("87", "90", "110")
"""Compute capabilities in the fatbins: Orin, Hopper, Thor. CMakeLists.txt names the same."""

OPTIONS: Final = ("-std=c++17", "-fmad=false")
"""No contraction: a kernel rounds as its CPU twin does, from the same scalar headers."""


def cupy() -> Any:
    """Return the module CuPy; `BackendUnavailableError` says what to install where it is missing."""
    try:
        return import_module("cupy")
    except ImportError as error:
        raise BackendUnavailableError(
            f"CuPy cannot be imported ({error}): install lithostream with the extra [cuda13]"
        ) from error


def failures() -> tuple[type[Exception], ...]:
    """Return what CuPy raises where a GPU fails: its launches raise errors of the driver, not of the runtime."""
    cuda = cupy().cuda
    return (
        cuda.runtime.CUDARuntimeError,
        cuda.driver.CUDADriverError,
        cuda.nvrtc.NVRTCError,
        cuda.compiler.CompileException,
    )


def gpu_module(room: str) -> Any:
    """Return the kernels of a room on the current GPU, a `cupy.RawModule`.

    Parameters
    ----------
    room : str
        Folder of the operation, such as "unmixing".

    Raises
    ------
    BackendUnavailableError
        Where CuPy is missing.
    """
    return _load(room, cupy().cuda.Device().id)


@cache
def _load(room: str, device: int) -> Any:
    """Load a room's kernels once per GPU; a module belongs to the context it was loaded in."""
    xp = cupy()
    folder = files("lithostream.kernels") / room
    binary = folder / "cuda.fatbin"
    if binary.is_file() and xp.cuda.Device(device).compute_capability in BUILT_FOR:
        with as_file(binary) as path:
            return xp.RawModule(path=str(path))
    with as_file(folder / "cuda.cu") as path:
        folders = path.parent, path.parent.parent
        headers = [header.read_bytes() for one in folders for header in sorted(one.glob("*.h"))]
        # CuPy keeps what it compiled by source and options alone: another header must not find the old code.
        code = f"{path.read_text(encoding='utf-8')}\n// {hashlib.sha256(b''.join(headers)).hexdigest()}\n"
        return xp.RawModule(code=code, options=(*OPTIONS, *(f"-I{one}" for one in folders)))
