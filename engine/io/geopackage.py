"""Points in GeoPackage files."""

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import BackendError, SourceError
from lithostream.engine.io.full_disk import full_disk

_POINT, _HAS_Z, _HAS_M = 1, (1001, 3001, 0x80000001), (2001, 3001)
_EPOCH = (
    "2000-01-01T00:00:00.000Z"  # the format wants the time of the last change; equal points make equal bytes
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Layer:
    """Points of a file.

    Attributes
    ----------
    x, y : float64 [N]
        NaN where a row has no point.
    crs : str, optional
        WKT or a code.
    columns : mapping of str to array [N]
    """

    x: Floats
    y: Floats
    crs: str | None
    columns: Mapping[str, npt.NDArray[Any]]


def read_points(path: Path) -> Layer:
    """Read the only layer of a file, of points.

    Raises
    ------
    SourceError
        There are several layers, or other geometries.
    BackendError
        pyogrio is not installed.
    """
    with _library(path) as library:
        layers = [str(name) for name, _ in library.list_layers(path)]
        if len(layers) != 1:
            raise SourceError(
                f"holds {len(layers)} layers: {', '.join(layers)}",
                file=path,
                fix="write the one to map into a file of its own, with ogr2ogr",
            )
        meta, _, geometry, values = import_module("pyogrio.raw").read(path)
    if geometry is None:
        geometry = [None] * (len(values[0]) if len(values) else 0)
    x, y = np.array([_place(one, path) for one in geometry], np.float64).reshape(-1, 2).T
    names = [str(name) for name in meta["fields"]]
    return Layer(x, y, meta["crs"], dict(zip(names, values, strict=True)))


def write_points(path: Path, name: str, layer: Layer) -> None:
    """Write points as the only layer of a new file; equal points make equal bytes (per GDAL version).

    Raises
    ------
    BackendError
        pyogrio is not installed.
    OSError
        The disk is full.
    """
    place = np.isfinite(layer.x) & np.isfinite(layer.y)
    points = [
        struct.pack("<BIdd", 1, _POINT, x, y) if known else None
        for x, y, known in zip(layer.x, layer.y, place, strict=True)
    ]
    geometry = np.empty(len(points), object)
    geometry[:] = points
    path.unlink(missing_ok=True)  # what a killed run left would be changed, not replaced
    with full_disk(path), _library(path) as library:
        library.set_gdal_config_options({"OGR_CURRENT_DATE": _EPOCH})
        try:
            import_module("pyogrio.raw").write(
                path,
                geometry,
                list(layer.columns.values()),
                list(layer.columns),
                layer=name,
                driver="GPKG",
                geometry_type="Point",
                crs=layer.crs,
            )
        finally:
            library.set_gdal_config_options({"OGR_CURRENT_DATE": None})


@contextmanager
def _library(path: Path) -> Iterator[Any]:
    try:
        library = import_module("pyogrio")
    except ImportError as error:
        reason = f"GeoPackages need pyogrio, which cannot be imported ({error})"
        raise BackendError(reason, fix="pip install 'lithostream[geo]'") from error
    errors = import_module("pyogrio.errors")
    try:
        yield library
    except (errors.DataSourceError, errors.DataLayerError) as error:
        raise SourceError(
            f"cannot be read or written: {error}", file=path, fix="check it with ogrinfo"
        ) from error


def _place(geometry: bytes | None, path: Path) -> tuple[float, float]:
    """X and y of a point as well-known binary (OGC 06-103r4, section 8.2); NaN where there is none."""
    if geometry is None:
        return np.nan, np.nan
    order = "<" if geometry[0] == 1 else ">"
    (kind,) = struct.unpack_from(f"{order}I", geometry, 1)
    if kind != _POINT and kind not in (*_HAS_Z, *_HAS_M):
        raise SourceError(
            f"holds a geometry of kind {kind}, expected points",
            file=path,
            fix="convert it with ogr2ogr -nlt POINT",
        )
    x, y = struct.unpack_from(f"{order}dd", geometry, 5)
    return x, y
