"""Segments of one window, and what lies in each of them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.config import RunSettings
from lithostream.engine.core.calibration import Calibration
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.windows import Window, WindowTiles
from lithostream.kernels import segment_stats, slic
from lithostream.kernels.arrays import Array, array_module, to_host
from lithostream.kernels.segments import SegmentStats

MOST_CLIPPED = 0.01  # of a segment's pixels: the mean of the others is still its reflectance


class WindowSegments(NamedTuple):
    """The segments of one window.

    Attributes
    ----------
    window : int64 [S]
        Number of the window.
    parent : int64 [S]
        Segment that each is a part of, from 0; -1 for none.
    area_px : int64 [S]
    box : int64 [S, 4]
        (y0, x0, y1, x1) in section pixels, half-open.
    centroid : float64 [S, 2]
        (y, x) in section pixels.
    colour, colour_std : float64 [S, 3]
        sRGB 0..255.
    reflectance : float64 [S, 3]
        Mean in linear light; NaN where colours are not calibrated or too many of the pixels are clipped.
    values : float64 [S, C]
        Means of the tile values, NaN where no tile was predicted.
    interval_pixels : int64 [Q, 3]
        Rows of (segment index, interval, pixels shared).
    """

    window: npt.NDArray[np.int64]
    parent: npt.NDArray[np.int64]
    area_px: npt.NDArray[np.int64]
    box: npt.NDArray[np.int64]
    centroid: npt.NDArray[np.float64]
    colour: npt.NDArray[np.float64]
    colour_std: npt.NDArray[np.float64]
    reflectance: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    interval_pixels: npt.NDArray[np.int64]


def superpixels(window: Window, grid: Grid, settings: RunSettings) -> npt.NDArray[np.int32]:
    """Cut a window's core into superpixels: int32 [H, W], 0 where there is no core."""
    area_cm2 = int(array_module(window.mask).count_nonzero(window.mask)) / grid.px_per_cm**2
    return slic(
        window.rgb,
        n_segments=max(1, round(area_cm2 * settings.superpixels_per_cm2)),
        compactness=settings.compactness,
        mask=window.mask,
    )


def pool(
    window: Window,
    grid: Grid,
    labels: npt.NDArray[np.int32],
    parent: npt.NDArray[np.int64] | None,
    found: WindowTiles,
    values: npt.NDArray[np.float32],
    calibration: Calibration | None,
) -> WindowSegments:
    """Pool colour and tile values over the segments of a window.

    Parameters
    ----------
    window : Window
    grid : Grid
    labels : int32 [H, W]
        Segments 1, 2, ...; 0 where there is no core; where the window lies.
    parent : int64 [S], optional
        Label of the segment that each is a part of, 0 for none.
    found : WindowTiles
    values : float32 [N, C]
        One row per tile of `found`.
    calibration : Calibration, optional
        Of the section's colours.
    """
    stats = _stats(labels, window.rgb)
    pooled = _stats(labels, _spread(window, grid, found, values))
    corner = np.array([window.row_px, 0])
    return WindowSegments(
        np.full(len(stats.count), window.index),
        np.full(len(stats.count), -1) if parent is None else parent - 1,
        stats.count,
        stats.box + np.tile(corner, 2),
        stats.centroid + corner,
        stats.mean,
        np.sqrt(stats.variance),
        mean_reflectance(window, labels, calibration),
        pooled.mean,
        _interval_pixels(labels, window.row_px, grid.interval_rows),
    )


def no_segments(columns: int) -> WindowSegments:
    """Segments of a window that has none, of as many tile values."""
    whole, real = np.zeros(0, np.int64), np.zeros((0, 3))
    shape = whole.reshape(0, 4), real[:, :2], real, real, real, np.zeros((0, columns))
    return WindowSegments(whole, whole, whole, *shape, whole.reshape(0, 3))


def _stats(labels: npt.NDArray[np.int32], channels: Array) -> SegmentStats:
    return SegmentStats(*(to_host(part) for part in segment_stats(labels, channels)))


def mean_reflectance(
    window: Window, labels: npt.NDArray[np.int32], calibration: Calibration | None
) -> npt.NDArray[np.float64]:
    """Mean reflectance of each segment, float64 [S, 3]; NaN without calibration, or where it is clipped."""
    if calibration is None:
        return np.full((_count(labels), 3), np.nan)
    value = calibration.reflectance(window.rgb)
    xp = array_module(value)
    clipped = xp.isnan(value).any(axis=2, keepdims=True).astype(np.float32)
    mean = _stats(labels, xp.concatenate([value, clipped], axis=2)).mean
    return np.where(mean[:, 3:] <= MOST_CLIPPED, mean[:, :3], np.nan)


def _spread(
    window: Window, grid: Grid, found: WindowTiles, values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Give every pixel the values of its tile, float32 [H, W, C]; NaN outside valid tiles."""
    rows, cols = grid.tile_rows, grid.tile_cols
    first, count = window.index * grid.tiles_per_window, grid.tiles_per_window
    cells = np.full((count + 1, len(cols), values.shape[1]), np.nan, np.float32)
    cells[found.row - first, found.col] = values
    height, width = window.mask.shape
    row = np.searchsorted(rows, np.arange(height) + window.row_px, side="right") - 1 - first
    col = np.searchsorted(cols, np.arange(width), side="right") - 1
    xp = array_module(window.mask)
    along = xp.asarray(cells)[:, xp.asarray(col)]  # the last row and column of cells stay NaN
    plane: npt.NDArray[np.float32] = along[xp.asarray(row)]  # then whole rows, which are copied as they lie
    return plane


def _count(labels: npt.NDArray[np.int32]) -> int:
    """Highest label."""
    return int(labels.max()) if labels.size else 0


def _interval_pixels(
    labels: npt.NDArray[np.int32], row_px: int, interval_rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    height, _width = labels.shape
    interval = np.searchsorted(interval_rows, np.arange(height) + row_px, side="right") - 1
    first, last = int(interval[0]), int(interval[-1])
    xp = array_module(labels)
    keys = labels.astype(np.int64) * (last - first + 1) + xp.asarray(interval - first)[:, None]
    counts = to_host(xp.bincount(keys.ravel(), minlength=(_count(labels) + 1) * (last - first + 1)))
    label, place = np.divmod(np.flatnonzero(counts), last - first + 1)
    inside = label > 0
    pairs = np.stack([label - 1, place + first, counts[np.flatnonzero(counts)]], axis=1)
    return pairs[inside].astype(np.int64)
