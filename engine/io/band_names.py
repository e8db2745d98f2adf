"""Which bands a stack of rasters has: by their descriptions, by the names of files, or by a list."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lithostream.engine.config import StrictModel
from lithostream.engine.errors import ConfigError, SourceError

RASTERS = (".tif", ".tiff", ".vrt", ".img", ".asc", ".grd")
NAME_BANDS = "give the bands names with a TOML file, see docs/maps.md, or with gdal_edit.py -band 1 NAME"


class BandFile(StrictModel):
    """Where a band of a stack is: a file, and which of its bands."""

    file: Path
    band: int = 1


class StackFile(StrictModel):
    """A stack as TOML: `[bands]`, name = "file.tif" or name = { file = "file.tif", band = 2 }."""

    bands: dict[str, BandFile | Path]


def named_bands(path: Path, library: Any) -> dict[str, tuple[Path, int]]:
    """Return file and number of every band of a stack by its name, see `raster.open_stack`.

    Raises
    ------
    SourceError
        There is no such file or folder, or a name stands for several bands.
    ConfigError
        A list cannot be read.
    """
    if path.is_dir():
        return _files_of(path)
    if not path.is_file():
        raise SourceError("no such file or folder", file=path, fix="check the path")
    if path.suffix.lower() == ".toml":
        return _listed_bands(path)
    with library.open(path) as raster:
        names = [name or "" for name in raster.descriptions]
    if len(names) == 1 and not names[0]:
        names = [path.stem]
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise SourceError(f"several bands are called {', '.join(sorted(twice))}", file=path, fix=NAME_BANDS)
    return {name: (path, number) for number, name in enumerate(names, 1) if name}


def _files_of(folder: Path) -> dict[str, tuple[Path, int]]:
    """Files of one band in a folder, by their names without the ending."""
    found: dict[str, tuple[Path, int]] = {}
    for file in sorted(one for one in folder.iterdir() if one.suffix.lower() in RASTERS):
        if file.stem in found:
            raise SourceError(
                f"{found[file.stem][0].name} and {file.name} are both {file.stem}",
                file=folder,
                fix="take one of them out of the folder",
            )
        found[file.stem] = file, 1
    return found


def _listed_bands(path: Path) -> dict[str, tuple[Path, int]]:
    try:
        listed = StackFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            f"no list of bands: {reason}", file=path, fix='write [bands], then NAME = "file.tif" for each'
        ) from error
    named = {
        name: one if isinstance(one, BandFile) else BandFile(file=one) for name, one in listed.bands.items()
    }
    return {name: (path.parent / one.file, one.band) for name, one in named.items()}
