"""What every kernel checks before it touches an array."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.kernels.errors import ContractError

Array = npt.NDArray[Any]


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
    if not isinstance(value, np.ndarray):
        raise ContractError(f"{name}: expected a NumPy array {want}, got {type(value).__name__}")
    fits = value.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, value.shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        raise ContractError(f"{name}: expected {want}, got {value.dtype.name} {list(value.shape)}")
    return value
