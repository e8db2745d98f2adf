"""Known sites: brought to the map's coordinate reference system, and what the map says of them."""

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import SourceError
from lithostream.engine.io.points import PointTable, read_table
from lithostream.engine.io.raster import parse_crs, raster_errors
from lithostream.engine.maps.grid import Grid
from lithostream.engine.maps.predict import Answer
from lithostream.engine.maps.windows import Box

LATITUDES = (" lat", " latitude")  # how `PointTable.place_from` ends
DEGREES = "EPSG:4326"

Floats = npt.NDArray[np.float64]


class Sites(NamedTuple):
    """Places of known deposits or occurrences.

    Attributes
    ----------
    x, y : float64 [N]
        In the map's coordinate reference system.
    notes : tuple of str
    """

    x: Floats
    y: Floats
    notes: tuple[str, ...]


def stated_crs(table: PointTable, crs: str | None) -> Any:
    """Return the coordinate reference system of a table: its own, or `crs` where it states none.

    Columns called longitude and latitude are in no projected system: where `crs` is one, theirs is WGS 84.

    Raises
    ------
    SourceError
        Neither is there, or it is in degrees and a place is none on the globe.
    """
    if table.crs is None and crs is None:
        raise SourceError(
            f"its coordinates, {table.place_from}, state no coordinate reference system",
            file=table.path,
            fix="name it with --crs, as --crs EPSG:3578",
        )
    found = parse_crs(table.crs or str(crs))
    if table.crs is None and not found.is_geographic and table.place_from.casefold().endswith(LATITUDES):
        found = parse_crs(DEGREES)
    if found.is_geographic and table.place is not None:
        x, y = table.place
        off = np.flatnonzero((np.abs(x) > 360) | (np.abs(y) > 90))
        if len(off):
            raise SourceError(
                f"longitude {x[off[0]]:.10g}, latitude {y[off[0]]:.10g} is no place in {found.to_string()[:60]}",
                file=table.path,
                place=f"row {off[0] + table.first_line}",
                fix="name the system that the coordinates are in, or exchange their columns",
            )
    return found


def read_sites(path: Path, map_crs: str, crs: str | None = None) -> Sites:
    """Read sites from CSV or GeoPackage.

    Parameters
    ----------
    path : Path
    map_crs : str
        Which they are brought to.
    crs : str, optional
        Of a table that states none.

    Raises
    ------
    SourceError
        There are no coordinates, or it is not known in which system.
    """
    table = read_table(path)
    if table.place is None:
        raise SourceError(
            "has no coordinates", file=path, fix="call the columns x and y, or use a GeoPackage"
        )
    own, wanted = stated_crs(table, crs), parse_crs(map_crs)
    x, y = table.place
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    notes = [] if known.all() else [f"{path.name}: {int((~known).sum())} rows have no place"]
    if own != wanted:
        with raster_errors(path):
            x, y = map(np.array, import_module("rasterio.warp").transform(own, wanted, x, y))
        lost = int((~(np.isfinite(x) & np.isfinite(y))).sum())
        if lost:
            notes.append(f"{path.name}: {lost} places do not exist in the map's system")
        notes.append(f"{path.name}: places were brought from {own.to_string()[:60]} to the map's system")
    return Sites(x, y, tuple(notes))


class SiteProbability:
    """Collects a map's probability at the sites.

    Parameters
    ----------
    sites : Sites
    grid : Grid

    Attributes
    ----------
    values : float64 [N]
        NaN outside the grid, and where there is no answer.
    """

    def __init__(self, sites: Sites, grid: Grid) -> None:
        self._row, self._column = grid.pixel(sites.x, sites.y)
        self.values = np.full(len(self._row), np.nan)

    def add(self, box: Box, answer: Answer) -> None:
        """Take the answer of a box of the grid."""
        inside = (self._row >= box.top) & (self._row < box.bottom)
        inside &= (self._column >= box.left) & (self._column < box.right)
        place = self._row[inside] - box.top, self._column[inside] - box.left
        self.values[inside] = answer.probability[place]
