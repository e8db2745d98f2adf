"""The fixed physical grid that tiles, windows and intervals lie on."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Edges = npt.NDArray[np.int64]

_ROUNDING = 1e-6  # px: a window that is a whole number of pixels, but for the last bits


@lru_cache(maxsize=32)
def edges_px(length_px: int, step_cm: float, px_per_cm: float) -> Edges:
    """Edges of the cells of `step_cm` that fit into `length_px` pixels.

    Edge k lies at round(k * step_cm * px_per_cm), half away from zero, so cells stay aligned with
    physical distance at any scale instead of drifting with a rounded cell size.

    Returns
    -------
    int64 [cells + 1]
        Strictly increasing, first 0; the last is at most `length_px`. Every window asks for them: kept, not to be
        written to.
    """
    step_px = step_cm * px_per_cm
    if step_px < 1:
        raise ValueError(f"a step of {step_cm} cm is under one pixel at {px_per_cm} px/cm")
    count = int(length_px / step_px) + 2
    edges: Edges = np.floor(np.arange(count) * step_px + 0.5).astype(np.int64)
    inside: Edges = edges[edges <= length_px]
    inside.flags.writeable = False
    return inside


@dataclass(frozen=True, slots=True)
class Grid:
    """Geometry of one section image whose rows run down-core.

    Attributes
    ----------
    height_px, width_px : int
        Size of the oriented image.
    px_per_cm : float
        Scale along both axes.
    top_cm : float
        Section offset of row 0.
    tile_cm, interval_cm : float
        Edge of a tile; depth step of the interval table.
    tiles_per_window : int
        Tile rows of one window.
    """

    height_px: int
    width_px: int
    px_per_cm: float
    top_cm: float
    tile_cm: float
    interval_cm: float
    tiles_per_window: int

    @property
    def tile_rows(self) -> Edges:
        """Row edges of the whole tiles, int64 [R + 1]."""
        return edges_px(self.height_px, self.tile_cm, self.px_per_cm)

    @property
    def tile_cols(self) -> Edges:
        """Column edges of the whole tiles, int64 [C + 1]."""
        return edges_px(self.width_px, self.tile_cm, self.px_per_cm)

    @property
    def interval_rows(self) -> Edges:
        """Row edges of the intervals, a short last one included, int64 [I + 1]."""
        return self._covering(edges_px(self.height_px, self.interval_cm, self.px_per_cm))

    @property
    def window_rows(self) -> Edges:
        """Row edges of the windows, a short last one included, int64 [W + 1]."""
        return self._covering(self.tile_rows[:: self.tiles_per_window])

    @property
    def window_px(self) -> int:
        """Rows of the largest window; where one is whole, the same for every height of the image."""
        whole = self.tiles_per_window * self.tile_cm * self.px_per_cm
        return min(self.height_px, math.ceil(whole - _ROUNDING))

    def cut(self, height_px: int) -> "Grid":
        """Return the same grid on an image of another height; edges that both have are the same."""
        return replace(self, height_px=height_px)

    def depth_cm(self, row_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Section offset of row edges, cm."""
        return self.top_cm + np.asarray(row_px, np.float64) / self.px_per_cm

    def _covering(self, edges: Edges) -> Edges:
        return edges if edges[-1] == self.height_px else np.append(edges, self.height_px)
