"""Everything about a SLIC run that is decided once: the seed grid and the integer weights."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIXED = 16
"""Centres are kept in 1/16 of a pixel and 1/16 of a colour step."""

WEIGHT_SHIFT = 20
"""`SeedGrid.weight` counts in 2**-20."""

MAX_DISTANCE = 2**15 - 2
"""Of a pixel to a candidate centre; two less than 16 bits hold, for the rounding of y and x."""

MAX_STRIDE = 6
"""A round looks at every sixth row, or at more."""

SAMPLED_ROWS = 4
"""Rows of a cell that a round looks at before it leaves any out."""

ITERATIONS = 10
"""Rounds of assignment; Achanta et al. (2012) find 10 enough for most images."""


@dataclass(frozen=True, slots=True)
class SeedGrid:
    """Regular grid of initial superpixels over the box of the mask.

    Attributes
    ----------
    box : tuple of int
        (y0, x0, y1, x1) of the mask, half-open px.
    cells : tuple of int
        Rows and columns of the grid; pixel y lies in row `(y - y0) * rows // (y1 - y0)`, x alike.
    stride : int
        Round i looks at the rows y with `y % stride == i % stride`, counted from y0.
    unit : int
        Distance of two sample values that differ by 1.
    weight : int
        Distance of two places 1/16 px apart, in 2**-20.
    min_size : int
        A smaller connected piece is merged into a neighbour, px.
    """

    box: tuple[int, int, int, int]
    cells: tuple[int, int]
    stride: int
    unit: int
    weight: int
    min_size: int


def plan_grid(
    shape: tuple[int, ...], mask: npt.NDArray[np.bool_] | None, n_segments: int, compactness: float
) -> SeedGrid | None:
    """Lay about `n_segments` cells of equal area over the mask; None where there is nothing to label.

    The shorter side of the box is divided first, so a strip one pixel wide still gets `n_segments`
    cells. `unit` is the largest for which no distance overflows 15 bits: a centre is the mean of pixels of
    3 x 3 cells, so a pixel and its candidate lie in 3 x 3 cells too. The step is the longer side of a cell.
    """
    channels = shape[2]
    y0, x0, y1, x1 = _box((shape[0], shape[1]), mask)
    height, width = y1 - y0, x1 - x0
    area = height * width if mask is None else int(np.count_nonzero(mask))
    if area == 0:
        return None
    count = min(n_segments, area)
    cells = count * height * width / area  # those outside the mask stay empty
    short, long = sorted((height, width))
    n_short = min(max(round(short / math.sqrt(area / count)), 1), short)
    n_long = min(max(round(cells / n_short), 1), long)
    rows, cols = (n_short, n_long) if height <= width else (n_long, n_short)
    step = max(height / rows, width / cols)
    reach = 3 * (-(-height // rows) - (-width // cols)) / step  # of a candidate, in steps
    unit = math.floor(MAX_DISTANCE / (255 * channels + compactness * reach))
    weight = math.floor(unit * compactness / step * 2**WEIGHT_SHIFT / FIXED)
    stride = min(max(height // rows // SAMPLED_ROWS, 1), MAX_STRIDE)
    min_size = max(1, area // (4 * count))
    return SeedGrid((y0, x0, y1, x1), (rows, cols), stride, unit, weight, min_size)


def _box(shape: tuple[int, int], mask: npt.NDArray[np.bool_] | None) -> tuple[int, int, int, int]:
    if mask is None:
        return 0, 0, *shape
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1
