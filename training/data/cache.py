"""Cut tiles on disk: written once, proved whole at each start, read as a memory map."""

import errno
import hashlib
import json
import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lithostream import engine, kernels, training
from lithostream.engine.bundle import sha256_file
from lithostream.engine.cache import FOLDER_VARIABLE
from lithostream.engine.core.section import Plane, Section
from lithostream.engine.errors import ConfigError, LithostreamError, StoppedError
from lithostream.training.data.sources import section_hashes

PIXELS, ARRAYS, INDEX = "pixels.npy", "arrays.safetensors", "index.json"
DECODERS = ("lithostream", "numpy", "imagecodecs", "tifffile", "simplejpeg", "Pillow")
# Of a section and its planes: paths, whose contents count instead, and remarks.
HERE = {"image", "log", "sidecars", "notes", "calibration"}

Pixels = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]
Append = Callable[[Pixels], None]
Fill = Callable[[Append], Arrays]


class Stored(NamedTuple):
    """Tiles as they lie on disk: pixels uint8 [M, S, S, C], a read-only map, and arrays by name."""

    pixels: Pixels
    arrays: Arrays


def cache_key(sections: Sequence[Section], **settings: object) -> str:
    """SHA-256 of all that decides the tiles and labels: files, what is known of them, settings and code.

    Raises
    ------
    TypeError
        A setting that is not plain JSON.
    """
    known = [
        _elsewhere(section)
        | {"planes": [_elsewhere(plane) for plane in section.planes], "files": section_hashes(section)}
        for section in sections
    ]
    versions = {name: version(name) for name in DECODERS}
    content = {"sections": known, "settings": settings, "versions": versions, "code": _code()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _elsewhere(one: Section | Plane) -> dict[str, object]:
    """Return what is known of it wherever its files lie."""
    return {name: value for name, value in asdict(one).items() if name not in HERE}


def stored_tiles(folder: Path, shape: tuple[int, int, int], fill: Fill) -> Stored:
    """Map the tiles in `folder`, which are made first where they are missing or damaged.

    Several processes may call this at once: each writes a folder of its own, and the first to be done gives it
    its name. One that is killed leaves its folder, named `.KEY.*`, behind. A map stays readable after its file
    is removed.

    Parameters
    ----------
    folder : Path
        Named by `cache_key`.
    shape : (S, S, C)
        Of a tile.
    fill : callable
        Gets a function that appends tiles uint8 [n, S, S, C], and returns the arrays that go with them.

    Raises
    ------
    StoppedError
        The disk is full.
    ConfigError
        The folder cannot be written.
    """
    found = _load(folder)
    if found is not None:
        return found
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}.", dir=folder.parent))
    try:
        arrays = _write_pixels(made / PIXELS, shape, fill)
        with _writing(folder):
            save_file(arrays, made / ARRAYS)
            hashes = {name: sha256_file(made / name) for name in (PIXELS, ARRAYS)}
            (made / INDEX).write_text(json.dumps(hashes), encoding="utf-8")
            stored = Stored(np.load(made / PIXELS, mmap_mode="r"), arrays)
            _publish(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return stored


def release(pixels: Pixels) -> None:
    """Give back the memory of a map's pages that were read; the system keeps them cached while it has room."""
    if isinstance(pixels.base, mmap.mmap):
        pixels.base.madvise(mmap.MADV_DONTNEED)


@cache
def _code() -> str:
    """SHA-256 of the code on the way from a file to a tile: the version alone stands still in development."""
    roots = [Path(root) for root in (*engine.__path__, *kernels.__path__)]
    roots += [Path(root) / "data" for root in training.__path__]
    found = (path for root in roots for path in root.rglob("*") if path.suffix in (".py", ".so"))
    return hashlib.sha256("".join(sorted(sha256_file(path) for path in found)).encode()).hexdigest()


def _load(folder: Path) -> Stored | None:
    """Map what is there, or nothing where any byte of it is not as it was written."""
    try:
        hashes = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if any(sha256_file(folder / name) != hashes[name] for name in (PIXELS, ARRAYS)):
            return None
        return Stored(np.load(folder / PIXELS, mmap_mode="r"), load_file(folder / ARRAYS))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def _write_pixels(path: Path, shape: tuple[int, int, int], fill: Fill) -> Arrays:
    """Write tiles one after another under a header that is completed last."""
    count = 0
    with path.open("wb", buffering=0) as file:

        def append(pixels: Pixels) -> None:
            nonlocal count
            with _writing(path):
                _write_all(file, np.ascontiguousarray(pixels).reshape(-1).data)
            count += len(pixels)

        with _writing(path):
            _write_header(file, 0, shape)
        arrays = fill(append)
        with _writing(path):
            file.seek(0)
            _write_header(file, count, shape)
    return arrays


def _write_header(file: BinaryIO, count: int, shape: tuple[int, int, int]) -> None:
    # NumPy pads the header so that the first axis can grow without moving the data.
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _write_all(file: BinaryIO, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]


def _publish(made: Path, folder: Path) -> None:
    """Give a folder its name, unless another process was first with the same content."""
    if folder.exists() and _load(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        made.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = f"make room, or set {FOLDER_VARIABLE} to a folder on a disk with room"
        raise _unwritable(error)(f"tiles cannot be kept: {error.strerror}", file=path, fix=fix) from error
    except SafetensorError as error:
        raise ConfigError(
            f"tiles cannot be kept: {error}", file=path, fix="make room on this disk"
        ) from error


def _unwritable(error: OSError) -> type[LithostreamError]:
    """Class of the error: a full disk can be continued from, as in a run."""
    return StoppedError if error.errno in (errno.ENOSPC, errno.EDQUOT) else ConfigError
