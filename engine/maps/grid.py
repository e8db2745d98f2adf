"""Where the pixels of a map are, and how much ground each covers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# World Geodetic System 1984 (NGA.STND.0036, table 3.1): half axis in metres and squared eccentricity.
_HALF_AXIS_M, _ECCENTRICITY_2 = 6_378_137.0, 6.694379990141e-3

Floats = npt.NDArray[np.float64]
Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster's pixels on the ground.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    transform : (a, b, c, d, e, f)
        x = a column + b row + c, y = d column + e row + f, of a pixel's upper left corner.
    crs : str
        Coordinate reference system, WKT.
    metres : float
        Metres in a unit of x and y; 0 where they are degrees.
    """

    shape: tuple[int, int]
    transform: Transform
    crs: str
    metres: float

    def centre(self, row: float, column: float) -> tuple[float, float]:
        """X and y of the centre of a pixel."""
        a, b, c, d, e, f = self.transform
        return a * (column + 0.5) + b * (row + 0.5) + c, d * (column + 0.5) + e * (row + 0.5) + f

    def pixel(self, x: Floats, y: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row and column of the pixels that hold points; outside the grid too, and -1 where a point is unknown."""
        a, b, c, d, e, f = self.transform
        east, north, whole = x - c, y - f, a * e - b * d
        column, row = np.floor((e * east - b * north) / whole), np.floor((a * north - d * east) / whole)
        known = np.isfinite(row) & np.isfinite(column)
        return np.where(known, row, -1).astype(np.int64), np.where(known, column, -1).astype(np.int64)

    def pixel_area(self, row: Floats, column: Floats) -> Floats:
        """Area in m2 of pixels, on the ellipsoid where the grid is of degrees.

        There a degree of latitude is as long as the meridian's radius of curvature says, and one of longitude as that
        of the prime vertical times the cosine (Snyder 1987, USGS Professional Paper 1395, p. 24-25).
        """
        a, b, _, d, e, f = self.transform
        units = abs(a * e - b * d)
        if self.metres:
            return np.full(np.shape(row), units * self.metres**2)
        latitude = np.radians(d * (np.asarray(column) + 0.5) + e * (np.asarray(row) + 0.5) + f)
        bulge = 1 - _ECCENTRICITY_2 * np.sin(latitude) ** 2
        per_radian = _HALF_AXIS_M**2 * (1 - _ECCENTRICITY_2) * np.cos(latitude) / bulge**2
        area: Floats = units * np.radians(1.0) ** 2 * per_radian
        return area
