"""Everything about a SLIC run that is decided once: the seed grid and the integer weights."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIXED = 16
"""Centres are kept in 1/16 of a pixel and 1/16 of a colour step."""

COLOUR_SHIFT = 24
"""The squared colour distance counts 2**24 times; a squared pixel distance counts `SeedGrid.weight` times."""

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
    weight : int
        Weight of a squared distance in 1/256 px2, against 2**24 for a squared colour difference.
    min_size : int
        A smaller connected piece is merged into a neighbour, px.
    """

    box: tuple[int, int, int, int]
    cells: tuple[int, int]
    weight: int
    min_size: int


def plan_grid(
    shape: tuple[int, int], mask: npt.NDArray[np.bool_] | None, n_segments: int, compactness: float
) -> SeedGrid | None:
    """Lay about `n_segments` cells of equal area over the mask; None where there is nothing to label.

    The shorter side of the box is divided first, so a strip one pixel wide still gets `n_segments`
    cells. The weight is compactness**2 / step**2 of the source's equation for D, in fixed point; the
    step is the longer side of a cell. No 64-bit overflow: |dy|, |dx| stay below 4 steps, hence
    weight * distance < 2**58 for a compactness up to 1000.
    """
    y0, x0, y1, x1 = _box(shape, mask)
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
    weight = max(1, round(compactness**2 * 2**COLOUR_SHIFT / step**2))
    return SeedGrid((y0, x0, y1, x1), (rows, cols), weight, max(1, area // (4 * count)))


def _box(shape: tuple[int, int], mask: npt.NDArray[np.bool_] | None) -> tuple[int, int, int, int]:
    if mask is None:
        return 0, 0, *shape
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0, 0, 0, 0
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1
