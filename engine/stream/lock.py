"""One runner for each output folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lithostream.engine.errors import ConfigError

LOCK = ".lock"


@contextmanager
def only_runner(out: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Raises
    ------
    ConfigError
        Another process holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"another runner writes here, process {holder}",
                file=out,
                fix="wait until it has ended, or choose another --out",
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)
