"""A full disk is told alike by every writer, GDAL's included."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lithostream.engine.errors import SourceError

SPARE_BYTES = 16 << 20  # with less left, what GDAL could not write did not fit; it says so on stderr alone


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn what GDAL could not write to `path` into OSError, where no space is left beside it.

    Raises
    ------
    OSError
        The disk is full.
    """
    try:
        yield
    except SourceError as error:
        if shutil.disk_usage(path.parent).free >= SPARE_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
