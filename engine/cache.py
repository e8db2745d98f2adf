"""Where things that can be made again are kept between runs."""

import os
import stat
from pathlib import Path

from lithostream.engine.errors import BackendError

FOLDER_VARIABLE = "LITHOSTREAM_CACHE"


def cache_folder() -> Path:
    """$LITHOSTREAM_CACHE, else `lithostream` below $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lithostream"


def private_folder(name: str) -> Path:
    """Make, or prove, a folder of the cache that only this user can enter.

    Raises
    ------
    BackendError
        It cannot be made, is a link, belongs to somebody else, or lets others in.
    """
    folder = cache_folder() / name
    fix = f"remove it, or set {FOLDER_VARIABLE} to a folder of your own"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise BackendError(f"no private folder: {error.strerror}", file=folder, fix=fix) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BackendError("not a folder of this user alone", file=folder, fix=fix)
    return folder
