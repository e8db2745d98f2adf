"""What every kernel checks before it touches an array.

The array decides the device: NumPy arrays are computed on the host, CuPy arrays on their GPU. CuPy is told by
its module's name, so that a machine without a GPU never imports it.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.kernels.errors import ContractError, DeviceMismatchError

Array = npt.NDArray[Any]


def on_gpu(*, stream: object = None, **arrays: object) -> bool:
    """Whether the arrays of one call are CuPy's; None stands for an argument that was not given.

    Parameters
    ----------
    stream : cupy.cuda.Stream, optional
        Where a GPU is to queue the work; host arrays take none.
    **arrays : object
        Every array argument of the call by its name.

    Raises
    ------
    DeviceMismatchError
        If some are NumPy's and some CuPy's, or they lie on two GPUs.
    ContractError
        If host arrays come with a stream.
    """
    homes = {name: _home(value) for name, value in arrays.items() if _home(value)}
    if len(set(homes.values())) > 1:
        found = ", ".join(f"{name} on {home}" for name, home in homes.items())
        raise DeviceMismatchError(f"expected all arrays on one device, got {found}: copy them to one first")
    gpu = next(iter(homes.values()), "host") != "host"
    if stream is not None and not gpu:
        raise ContractError(f"stream: expected None for NumPy arrays, got {type(stream).__name__}")
    return gpu


def check_array(name: str, value: object, *, dtype: type[np.generic], shape: tuple[int | None, ...]) -> Array:
    """Return `value` as an array once its dtype and shape are proven.

    Parameters
    ----------
    name : str
        Argument name for the error text.
    value : object
        What the caller passed.
    dtype : numpy dtype
        The only dtype accepted: kernels never convert.
    shape : tuple of int or None
        Expected shape; None accepts any size on that axis.

    Raises
    ------
    ContractError
        Naming the argument, what was expected and what came.
    """
    want = f"{np.dtype(dtype).name} [{', '.join('*' if n is None else str(n) for n in shape)}]"
    if not _home(value):
        raise ContractError(f"{name}: expected a NumPy or CuPy array {want}, got {type(value).__name__}")
    array: Array = value  # type: ignore[assignment]  # CuPy's have the same attributes
    fits = array.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise ContractError(f"{name}: expected {want}, got {array.dtype.name} {list(array.shape)}")
    return array


def output(
    name: str,
    out: object | None,
    *,
    dtype: type[np.generic],
    shape: tuple[int, ...],
    empty: Callable[..., Any] = np.empty,
) -> Array:
    """Return the array to fill: `out` once it is proven to fit, or a new one where it is None.

    Parameters
    ----------
    name : str
        Argument name for the error text.
    out : object or None
        What the caller passed.
    dtype, shape
        What the result is.
    empty : callable
        `numpy.empty`, or `cupy.empty` for results on a GPU.

    Raises
    ------
    ContractError
        If `out` has another dtype or shape, is not C-contiguous or cannot be written.
    """
    if out is None:
        array: Array = empty(shape, dtype)
        return array
    array = check_array(name, out, dtype=dtype, shape=shape)
    if not (array.flags.c_contiguous and getattr(array.flags, "writeable", True)):
        raise ContractError(
            f"{name}: expected a writeable C-contiguous array, got strides {list(array.strides)}, "
            f"writeable {getattr(array.flags, 'writeable', True)}"
        )
    return array


def array_module(array: object) -> Any:
    """Return NumPy for an array of the host, CuPy for one of a GPU."""
    return np if isinstance(array, np.ndarray) else import_module("cupy")


def to_host(array: Any) -> Array:
    """Return the array itself if it lies on the host, else a copy of it there, once the current stream has it ready."""
    return array if isinstance(array, np.ndarray) else array.get()


def _home(value: object) -> str:
    """Where an array lies: "host", "cuda:N", or nothing if it is no array."""
    if isinstance(value, np.ndarray):
        return "host"
    if type(value).__module__.partition(".")[0] == "cupy" and type(value).__name__ == "ndarray":
        return f"cuda:{value.device.id}"  # type: ignore[attr-defined]
    return ""
