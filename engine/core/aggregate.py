"""From tiles and segments to depth intervals, in a fixed order of summation."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.grid import Edges, Grid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Pieces(NamedTuple):
    """The parts into which tile rows and intervals cut each other.

    Attributes
    ----------
    tile_row, interval : int64 [Q]
        Which row and which interval a part belongs to.
    share : float64 [Q]
        Part of the tile row's height.
    """

    tile_row: Ints
    interval: Ints
    share: Floats


def overlap(grid: Grid) -> Pieces:
    """Cut the tile rows at the interval edges."""
    tile_edges, interval_edges = grid.tile_rows, grid.interval_rows
    cuts = np.unique(np.concatenate([tile_edges, interval_edges]))
    cuts = cuts[cuts <= tile_edges[-1]]
    tile_row = _cell(tile_edges, cuts[:-1])
    share = np.diff(cuts) / np.diff(tile_edges)[tile_row]
    return Pieces(tile_row, _cell(interval_edges, cuts[:-1]), share)


def _cell(edges: Edges, position: Ints) -> Ints:
    """Index of the cell that each position lies in."""
    return np.searchsorted(edges, position, side="right").astype(np.int64) - 1


class IntervalMeans(NamedTuple):
    """Weighted means of tile values per interval, NaN where no tile has core.

    Attributes
    ----------
    mean, std : float64 [I, C]
        Mean, and spread between tiles.
    tiles : int32 [I]
        Tiles that touch the interval.
    """

    mean: Floats
    std: Floats
    tiles: npt.NDArray[np.int32]


def tiles_to_intervals(
    pieces: Pieces, grid: Grid, tile_row: Ints, core_fraction: Floats, values: Floats
) -> IntervalMeans:
    """Average tiles [N, C] over the intervals they overlap, weighted by core area.

    Parameters
    ----------
    pieces : Pieces
        From `overlap`.
    grid : Grid
    tile_row : int64 [N]
    core_fraction : float64 [N]
    values : float64 [N, C]
    """
    rows, intervals = len(grid.tile_rows) - 1, len(grid.interval_rows) - 1

    def total(per_tile: Floats) -> Floats:
        per_row = np.bincount(tile_row, per_tile, minlength=rows)
        per_piece = pieces.share * per_row[pieces.tile_row]
        return np.bincount(pieces.interval, per_piece, minlength=intervals).astype(np.float64)

    weight = total(core_fraction)
    known = np.where(weight > 0, weight, np.nan)
    middle = np.nan_to_num(values.mean(axis=0)) if len(values) else np.zeros(values.shape[1])
    mean, std = np.empty((2, intervals, values.shape[1]))
    for column, value in enumerate(values.T):
        mean[:, column] = total(core_fraction * value) / known
        centred = value - middle[column]
        shift = total(core_fraction * centred) / known
        square = total(core_fraction * centred * centred) / known
        std[:, column] = np.sqrt(np.maximum(square - shift * shift, 0.0))
    per_row = np.bincount(tile_row, minlength=rows)
    count = np.bincount(pieces.interval, per_row[pieces.tile_row], minlength=intervals)
    return IntervalMeans(mean, std, count.astype(np.int32))


def segments_to_intervals(pixels: npt.NDArray[np.int64], values: Floats, intervals: int) -> Floats:
    """Average segment values [S, C] per interval, weighted by shared pixels.

    Parameters
    ----------
    pixels : int64 [Q, 3]
        Rows of (segment index, interval, pixels shared).
    values : float64 [S, C]
        NaN where a segment has no value; it then does not count.
    intervals : int
        I, the number of intervals.

    Returns
    -------
    float64 [I, C]
        NaN where no segment has a value.
    """
    segment, interval, count = pixels.T
    means = np.full((intervals, values.shape[1]), np.nan)
    for column, value in enumerate(values.T):
        known = np.isfinite(value[segment])
        weight = np.bincount(interval[known], count[known], minlength=intervals)
        total = np.bincount(interval[known], count[known] * value[segment[known]], minlength=intervals)
        np.divide(total, weight, out=means[:, column], where=weight > 0)
    return means


class IntervalSums:
    """`segments_to_intervals` of segments that come piece by piece: the same bits, since sums go on in the same order.

    Parameters
    ----------
    intervals, columns : int
        I and C.
    """

    def __init__(self, intervals: int, columns: int) -> None:
        self._weight, self._total = np.zeros((2, columns, intervals))

    def add(self, interval: Ints, pixels: Ints, values: Floats) -> None:
        """Add pieces: the interval each lies in [Q], its pixels [Q], and the values of its segment [Q, C]."""
        for column, value in enumerate(values.T):
            known = np.isfinite(value)
            np.add.at(self._weight[column], interval[known], pixels[known])
            np.add.at(self._total[column], interval[known], pixels[known] * value[known])

    def means(self) -> Floats:
        """Means so far, float64 [I, C]; NaN where no segment has a value."""
        found = np.full(self._total.shape, np.nan)
        np.divide(self._total, self._weight, out=found, where=self._weight > 0)
        return found.T
