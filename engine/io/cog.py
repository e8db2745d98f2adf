"""Cloud-Optimised GeoTIFF: written box by box into a plain file, which GDAL then turns into tiles and overviews."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lithostream.engine.io.full_disk import full_disk
from lithostream.engine.io.raster import raster_errors
from lithostream.engine.maps.grid import Grid
from lithostream.engine.maps.windows import Box

TILE_PX = 512


@dataclass(frozen=True, slots=True)
class CogBands:
    """What a file holds.

    Attributes
    ----------
    names : tuple of str
        Descriptions of its bands.
    dtype : {"float32", "uint8"}
    nodata : float, optional
    overviews : {"AVERAGE", "NEAREST"}
        How smaller versions are made: means, or, of codes, one of the pixels.
    tags : mapping of str to str
        Metadata of the file.
    """

    names: tuple[str, ...]
    dtype: Literal["float32", "uint8"]
    nodata: float | None
    overviews: Literal["AVERAGE", "NEAREST"]
    tags: Mapping[str, str]


WriteBox = Callable[[Box, Sequence[npt.NDArray[Any]]], None]
"""Writes a box: an array [h, w] of the file's type for each band."""


@contextmanager
def cog_writer(path: Path, grid: Grid, bands: CogBands, window: tuple[int, int]) -> Iterator[WriteBox]:
    """Yield a function that writes boxes; equal values make equal bytes (per GDAL version).

    Parameters
    ----------
    path : Path
        File to write, once all boxes are there; a plain file of the full size lies beside it until then.
    grid : Grid
    bands : CogBands
    window : (int, int)
        Rows and columns of most boxes.

    Raises
    ------
    DecodeError
        GDAL cannot write it.
    OSError
        The disk is full.
    """
    plain = path.with_name(f".{path.name}.plain.tif")
    profile = {
        "driver": "GTiff",
        "height": grid.shape[0],
        "width": grid.shape[1],
        "count": len(bands.names),
        "dtype": bands.dtype,
        "nodata": bands.nodata,
        "crs": grid.crs,
        "tiled": True,
        "blockysize": min(window[0], TILE_PX),
        "blockxsize": TILE_PX,
        "interleave": "band",
        "bigtiff": "IF_SAFER",
    }
    try:
        with full_disk(path), raster_errors(path) as library:
            transform = library.Affine(*grid.transform)
            with library.open(plain, "w", **profile, transform=transform) as raster:
                raster.descriptions = bands.names
                raster.update_tags(**bands.tags)

                def write(box: Box, arrays: Sequence[npt.NDArray[Any]]) -> None:
                    place = ((box.top, box.bottom), (box.left, box.right))
                    raster.write(np.stack(arrays), window=place)

                yield write
            _translate(plain, path, bands)
    finally:
        plain.unlink(missing_ok=True)


def _translate(plain: Path, path: Path, bands: CogBands) -> None:
    import_module("rasterio.shutil").copy(
        plain,
        path,
        driver="COG",
        COMPRESS="DEFLATE",
        LEVEL=1,  # higher ones take longer and save 0.05 %
        PREDICTOR="FLOATING_POINT" if bands.dtype == "float32" else "STANDARD",
        BLOCKSIZE=TILE_PX,
        OVERVIEW_RESAMPLING=bands.overviews,
        BIGTIFF="IF_SAFER",
    )
