"""Stacks of rasters: one file of several bands, or a file for each band, read window by window."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lithostream.engine.errors import BackendError, ConfigError, DecodeError, SourceError
from lithostream.engine.io.band_names import NAME_BANDS, named_bands
from lithostream.engine.io.units import same_unit
from lithostream.engine.maps.grid import Grid
from lithostream.engine.maps.manifest import Predictor
from lithostream.engine.maps.predict import CELL

WINDOW_PX = 512
SAME_PX = 0.01  # by which corners of one grid may differ
CACHE_MIB = 64  # of decoded blocks, which GDAL keeps beside the windows


class Band(NamedTuple):
    """A band of a stack: its file, its number there, from 1, and the predictor that it holds."""

    file: Path
    number: int
    predictor: Predictor


@dataclass(frozen=True, slots=True)
class RasterStack:
    """Bands in the order of the predictors, on one grid.

    Attributes
    ----------
    path : Path
        What was given.
    grid : Grid
    bands : tuple of Band
    files : tuple of Path
        All that is read: the bands' files and those beside them.
    window : (int, int)
        Rows and columns of a window that suits the files' blocks.
    notes : tuple of str
    """

    path: Path
    grid: Grid
    bands: tuple[Band, ...]
    files: tuple[Path, ...]
    window: tuple[int, int]
    notes: tuple[str, ...]


def rasterio() -> Any:
    """Return the library.

    Raises
    ------
    BackendError
        It is not installed.
    """
    try:
        return import_module("rasterio")
    except ImportError as error:
        reason = f"rasters need rasterio, which cannot be imported ({error})"
        raise BackendError(reason, fix="pip install 'lithostream[geo]'") from error


@contextmanager
def raster_errors(path: Path) -> Iterator[Any]:
    """Give the library, with a small cache of blocks, and turn what it raises into typed errors."""
    library = rasterio()
    errors, gdal = import_module("rasterio.errors"), import_module("rasterio._err").CPLE_BaseError
    try:
        with library.Env(GDAL_CACHEMAX=CACHE_MIB):
            yield library
    except (errors.RasterioError, errors.CRSError, gdal) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DecodeError(
            f"raster cannot be read or written: {reason}", file=path, fix="check the file with gdalinfo"
        ) from error


def open_stack(path: Path, predictors: Sequence[Predictor], crs: str | None = None) -> RasterStack:
    """Find the band of each predictor by its name, and hold all bands to one grid and to the predictors' units.

    Parameters
    ----------
    path : Path
        A file whose bands have names, a folder of files of one band with the predictors' names, or a `band_names.StackFile`.
    predictors : sequence of Predictor
    crs : str, optional
        Coordinate reference system of files that state none, as "EPSG:3578".

    Raises
    ------
    SourceError
        A predictor has no band; bands differ in size, position, coordinate reference system or unit; or no system
        is known.
    DecodeError
        A file cannot be read.
    """
    with raster_errors(path) as library:
        found = named_bands(path, library)
        missing = [one.name for one in predictors if one.name not in found]
        if missing:
            raise SourceError(
                f"no band for {', '.join(missing)}; there are {', '.join(found) or 'none'}",
                file=path,
                fix=NAME_BANDS,
            )
        bands = tuple(Band(*found[one.name], one) for one in predictors)
        notes = [
            f"band {name} is no predictor and is not read"
            for name in found
            if name not in {p.name for p in predictors}
        ]
        files: dict[Path, None] = {}
        with ExitStack() as opened:
            sets = {band.file: opened.enter_context(library.open(band.file)) for band in bands}
            for band in bands:
                _check_band(band, sets[band.file], alone=path.is_dir())
                files |= dict.fromkeys([band.file, *map(Path, sets[band.file].files)])
            first = sets[bands[0].file]
            grid = _grid(path, first, crs)
            for file, one in sets.items():
                _check_grid(file, one, bands[0].file, first)
            blocks = [sets[band.file].block_shapes[band.number - 1] for band in bands]
    return RasterStack(path, grid, bands, tuple(files), window_size(grid.shape, blocks), tuple(notes))


def window_size(shape: tuple[int, int], blocks: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Rows and columns of windows that decode each block once: squares of tiles, or whole strips.

    Parameters
    ----------
    shape : (int, int)
    blocks : sequence of (int, int)
        Of each band.
    """
    columns = shape[1]
    if columns <= WINDOW_PX or all(width < columns for _, width in blocks):
        return WINDOW_PX, WINDOW_PX
    return max(WINDOW_PX * WINDOW_PX // columns // CELL, 1) * CELL, -(-columns // CELL) * CELL


def _check_band(band: Band, raster: Any, *, alone: bool) -> None:
    def refuse(reason: str, fix: str) -> SourceError:
        return SourceError(reason, file=band.file, place=f"band {band.number}", fix=fix)

    if alone and len([one for one in raster.colorinterp if one.name != "alpha"]) > 1:
        raise refuse(f"the file has {raster.count} bands, in a folder it stands for one", NAME_BANDS)
    if not 1 <= band.number <= raster.count:
        raise refuse(f"the file has {raster.count} bands", "correct the list of bands")
    if np.dtype(raster.dtypes[band.number - 1]).kind not in "uif":
        raise refuse(
            f"values of type {raster.dtypes[band.number - 1]}", "convert it with gdal_translate -ot Float32"
        )
    unit = raster.units[band.number - 1] or ""
    if unit and not same_unit(unit, band.predictor.unit):
        raise refuse(
            f"{band.predictor.name} is in {unit!r}, the model takes {band.predictor.unit or 'a number without unit'!r}",
            "convert the values with gdal_calc.py, or correct the band's unit",
        )


def _grid(path: Path, raster: Any, crs: str | None) -> Grid:
    stated = raster.crs
    if stated is None and crs is None:
        raise SourceError(
            "states no coordinate reference system", file=path, fix="name it with --crs, as --crs EPSG:3578"
        )
    given = stated if stated is not None else parse_crs(str(crs))
    a, b, c, d, e, f = tuple(raster.transform)[:6]
    if raster.transform.is_identity or not raster.transform.determinant:
        raise SourceError("has no position on the ground", file=path, fix="set it with gdal_edit.py -a_ullr")
    metres = 0.0 if given.is_geographic else float(given.linear_units_factor[1])
    return Grid((raster.height, raster.width), (a, b, c, d, e, f), given.to_wkt(), metres)


def parse_crs(text: str) -> Any:
    """Return rasterio's CRS of a code or WKT.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    rasterio()
    try:
        return import_module("rasterio.crs").CRS.from_user_input(text)
    except (import_module("rasterio.errors").CRSError, ValueError) as error:  # ValueError: EPSG:WORD
        raise ConfigError(
            f"no coordinate reference system: {error}", place="--crs", fix="name it as EPSG:3578"
        ) from error


def _check_grid(file: Path, raster: Any, first_file: Path, first: Any) -> None:
    """Hold a raster to the first one; corners may differ by what decimals round."""
    differs = []
    if raster.shape != first.shape:
        differs.append(f"size {raster.shape[1]} x {raster.shape[0]}, not {first.shape[1]} x {first.shape[0]}")
    if raster.crs != first.crs:
        names = [one.crs.to_string() if one.crs else "none" for one in (raster, first)]
        differs.append(f"coordinate reference system {names[0][:60]}, not {names[1][:60]}")
    corners = [one.transform * corner for one in (raster, first) for corner in ((0, 0), one.shape[::-1])]
    apart = np.abs(np.subtract(corners[:2], corners[2:])).max() / abs(first.transform.determinant) ** 0.5
    if raster.shape == first.shape and apart > SAME_PX:
        differs.append(f"position: corners are up to {apart:.3g} pixels apart")
    if differs:
        box, (height, width) = first.bounds, first.shape
        raise SourceError(
            f"lies on another grid than {first_file.name}: {'; '.join(differs)}",
            file=file,
            fix=f"gdalwarp -t_srs {first.crs.to_string() if first.crs else 'CRS'!r} -te {box.left} {box.bottom}"
            f" {box.right} {box.top} -ts {width} {height} -r bilinear {file.name} warped_{file.name}",
        )
