"""Scattered points to a raster: inverse distance weighting on a regular grid."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array, on_gpu, output
from lithostream.kernels.errors import ContractError

__all__ = ["Grid", "idw"]

Floats = npt.NDArray[np.float64]

# Squares of coordinates below this are finite; a float32 raster holds values below the other.
LARGEST_COORDINATE = 1e150
LARGEST_VALUE = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Grid:
    """Centres of the cells of a raster: column j at x0 + dx * j, row i at y0 + dy * i.

    Attributes
    ----------
    x0, y0 : float
        Centre of the first cell, in the unit of the points.
    dx, dy : float
        Steps, not 0; dy is negative where row 0 is the northernmost.
    width, height : int
        Columns and rows, 1 or more.
    """

    x0: float
    y0: float
    dx: float
    dy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, start, step, count in (
            ("x", self.x0, self.dx, self.width),
            ("y", self.y0, self.dy, self.height),
        ):
            if step == 0 or not math.isfinite(step):
                raise ContractError(f"grid.d{name}: expected a finite step other than 0, got {step}")
            if count < 1:
                size = "width" if name == "x" else "height"
                raise ContractError(f"grid.{size}: expected 1 or more, got {count}")
            if not max(abs(start), abs(start + step * count)) <= LARGEST_COORDINATE:
                raise ContractError(
                    f"grid.{name}0: expected cells within {LARGEST_COORDINATE:g} of 0, got {start}"
                )


def idw(
    points: Floats,
    values: Floats,
    grid: Grid,
    *,
    k: int | None = 12,
    power: float = 2.0,
    radius: float | None = None,
    out: npt.NDArray[np.float32] | None = None,
    stream: object | None = None,
) -> npt.NDArray[np.float32]:
    """Mean of the neighbours of each cell, weighted by distance**-power.

    The neighbours are the `k` nearest points within `radius`; of points as far as the k-th the first count.
    Points without a value in any channel are no neighbours; a neighbour without a value in one channel is
    left out of that channel. A cell on one of its neighbours takes its value, on several their mean.

    Parameters
    ----------
    points : float64 [N, 2]
        (x, y).
    values : float64 [N, E]
        E channels; NaN is no value.
    grid : Grid
        Cells to fill.
    k : int or None
        Most neighbours of a cell, 1 or more; None sets no limit.
    power : float
        Above 0.
    radius : float, optional
        Largest distance of a neighbour, itself included, in the unit of the points; above 0.
    out : float32 [E, H, W], optional
        C-contiguous array to fill and return; it may not overlap an input.
    stream : cupy.cuda.Stream, optional
        CuPy stream to queue the work on; NumPy arrays take none.

    Returns
    -------
    float32 [E, H, W]
        Computed in double, rounded once; NaN where a cell has no neighbour with a value.

    Raises
    ------
    ContractError
        Naming the argument that does not fit: coordinates that are not finite or beyond 1e150, values that
        are infinite or beyond float32.
    DeviceMismatchError, BackendUnavailableError
        If some arrays lie on a GPU, or all do and their GPU cannot be used.

    Notes
    -----
    Writes 4 E bytes per cell; points and values, 16 + 8 E bytes each, stay in the cache. Each halving of the grid hands
    down the points that a part can reach, which for the cells of a fine raster leaves about k, hence per cell some
    12 operations in double for each of about 2 k candidates, and 3 + 2 E for each neighbour; without limits
    O(H * W * N * E). All cores; a cell does not depend on others, so the bytes do not depend on the number of cores.

    Scratch: 16 bytes per point and E bits, then 20 bytes per point that a part of the grid can reach, for each of up
    to 256 parts. Inputs that are not C-contiguous or have points without values are copied. On a GPU the
    bits are the same with power 2, else float32 may differ in the last: see `lithostream.kernels.gridding.cuda`.

    Source: Shepard (1968), A two-dimensional interpolation function for irregularly-spaced data, doi
    10.1145/800186.810616.
    """
    gpu = on_gpu(stream=stream, points=points, values=values, out=out)
    check_array("points", points, dtype=np.float64, shape=(None, 2))
    check_array("values", values, dtype=np.float64, shape=(len(points), None))
    if len(points) > np.iinfo(np.int32).max:
        raise ContractError(f"points: expected fewer than 2**31, got {len(points)}")
    for name, number in (("power", power), ("radius", radius)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise ContractError(f"{name}: expected a finite number above 0, got {number}")
    if k is not None and not (isinstance(k, int | np.integer) and k >= 1):
        raise ContractError(f"k: expected a whole number from 1, or None, got {k}")
    reach = math.inf if radius is None else radius
    start = (grid.x0, grid.y0, grid.dx, grid.dy)
    if gpu:
        from lithostream.kernels.gridding import cuda

        filled: npt.NDArray[np.float32]
        filled = cuda.idw(points, values, start, (grid.height, grid.width), k, power, reach, out, stream)
        return filled
    check_values(points, values)
    out = output("out", out, dtype=np.float32, shape=(values.shape[1], grid.height, grid.width))
    known = ~np.isnan(values).all(axis=1)
    if not known.all():
        points, values = points[known], values[known]
    limit = max(1, len(points) if k is None else min(k, len(points)))
    _native.idw(np.ascontiguousarray(points), np.ascontiguousarray(values), start, limit, reach, power, out)
    return out


def check_values(points: Floats, values: Floats) -> None:
    """Raise `ContractError` naming the first coordinate or value, on the host, that is out of range."""
    for name, array, bad, want in (
        ("points", points, ~(np.abs(points) <= LARGEST_COORDINATE), "finite coordinates within 1e150 of 0"),
        ("values", values, np.abs(values) > LARGEST_VALUE, "NaN or values that float32 holds"),
    ):
        if bad.any():
            place = np.argwhere(bad)[0].tolist()
            raise ContractError(f"{name}: expected {want}, got {array[bad][0]} at {place}")
