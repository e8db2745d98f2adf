"""How CPU kernels are compiled by Numba: without the interpreter lock, and cached where a cache can be written."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers; its machine code is kept between processes where possible.

    On a read-only installation without a writable home Numba has no place for its cache and refuses to
    decorate at all; the kernel is then compiled anew in each process (about half a second).
    """
    try:
        kernel = njit(nogil=True, cache=True)(function)
    except RuntimeError:
        kernel = njit(nogil=True)(function)
    return cast(Function, kernel)
