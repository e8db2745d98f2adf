"""Inverse distance weighting in plain NumPy: every point sorted by distance, one cell after the other."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.gridding import Grid

Floats = npt.NDArray[np.float64]


def idw(
    points: Floats,
    values: Floats,
    grid: Grid,
    *,
    k: int | None = 12,
    power: float = 2.0,
    radius: float | None = None,
) -> npt.NDArray[np.float32]:
    """See `lithostream.kernels.gridding.idw`."""
    known = np.isfinite(values).any(axis=1)
    points, values = points[known], values[known]
    out = np.full((values.shape[1], grid.height, grid.width), np.nan, np.float32)
    for i in range(grid.height):
        for j in range(grid.width):
            dx = points[:, 0] - (grid.x0 + grid.dx * j)
            dy = points[:, 1] - (grid.y0 + grid.dy * i)
            squared = dx * dx + dy * dy
            neighbours = np.argsort(squared, kind="stable")[:k]
            if radius is not None:
                neighbours = neighbours[squared[neighbours] <= radius * radius]
            for c in range(values.shape[1]):
                chosen = neighbours[np.isfinite(values[neighbours, c])]
                if chosen.size:
                    out[c, i, j] = _mean(np.sqrt(squared[chosen]), values[chosen, c], power)
    return out


def _mean(distance: Floats, values: Floats, power: float) -> float:
    if distance[0] == 0:
        return float(values[distance == 0].mean())
    weight = (distance[0] / distance) ** power
    return float((weight * values).sum() / weight.sum())
