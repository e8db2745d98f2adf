"""Runtimes report that memory ran out each in its own way; sessions report it in one."""

from collections.abc import Iterator
from contextlib import contextmanager

from lithostream.engine.errors import BackendError, BackendMemoryError

SIGNS = (
    *("bad_alloc", "failed to allocate", "out of memory", "cannot allocate"),
    *("cudaerrormemoryallocation", "cuda_error_out_of_memory"),
)


@contextmanager
def typed_errors(runtime: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn the errors of a runtime into typed ones.

    Parameters
    ----------
    runtime : str
        Its name, for the message.
    *kinds : exception types
        What the runtime raises; a MemoryError is one anywhere, CuPy's too.

    Raises
    ------
    BackendMemoryError
        Memory ran out.
    BackendError
        Anything else.
    """
    caught: tuple[type[Exception], ...] = (MemoryError, *kinds)
    try:
        yield
    except caught as error:
        lines = str(error).splitlines() or [type(error).__name__]
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS):
            raise BackendMemoryError(
                f"{runtime} is out of memory: {lines[0]}", fix="use a smaller --batch"
            ) from error
        raise BackendError(
            f"{runtime} fails: {lines[0]}", fix="choose another --backend, or another version of this one"
        ) from error
