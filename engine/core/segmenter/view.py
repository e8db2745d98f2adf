"""What the segmenter sees of a window: its rows and a halo, at one scale for the whole section."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.windows import Block
from lithostream.kernels import tiles
from lithostream.kernels.arrays import array_module

CELL = 4  # px of the view that one value of a mask stands for
HALO = 4  # the halo is this part of a window, on both sides


class View(NamedTuple):
    """A square view of a section.

    Attributes
    ----------
    rgb : uint8 [S, S, 3]
        Image at the top left, black beyond; where the section's rows lay.
    row_px : int
        The section's row at its top.
    step_px : float
        Pixels of the section along one px of the view.
    valid : (int, int)
        Rows and columns of the view that show something of the image.
    """

    rgb: npt.NDArray[np.uint8]
    row_px: int
    step_px: float
    valid: tuple[int, int]

    @property
    def cell_px(self) -> float:
        """Pixels of the section along one value of a mask."""
        return self.step_px * CELL


def halo_rows(window_px: int) -> int:
    """Rows of the halo on each side of a window of `window_px` rows."""
    return -(-window_px // HALO)


def make_view(rgb: npt.NDArray[np.uint8], row_px: int, window_px: int, side: int) -> View:
    """Resample a window and its halo by the mean over areas.

    Parameters
    ----------
    rgb : uint8 [h, W, 3]
        At most `window_px` + two halos of rows.
    row_px : int
        The section's row at their top.
    window_px : int
        Rows of the section's largest window; with the width it decides the scale.
    side : int
        S, px.
    """
    height, width, _ = rgb.shape
    square = max(width, window_px + 2 * halo_rows(window_px))
    if height > square:
        raise ValueError(f"expected at most {square} rows, got {height}")
    padded = array_module(rgb).zeros((square, square, 3), np.uint8)
    padded[:height, :width] = rgb
    edges = np.array([0, square], np.int64)
    shown = tiles(padded, edges, edges, side)[0, 0]
    step = square / side
    return View(shown, row_px, step, (_rows(height, step, side), _rows(width, step, side)))


def view_of(block: Block, window_px: int, side: int) -> View:
    """View a window with as much of its halo as the section has; the block must hold it."""
    halo = halo_rows(window_px)
    first = max(0, block.halo_px - halo)
    rows = block.slab.rgb[first : block.halo_px + block.height_px + halo]
    return make_view(rows, block.row_px - block.halo_px + first, window_px, side)


def _rows(pixels: int, step: float, side: int) -> int:
    return min(side, int(np.ceil(pixels / step - 1e-9)))
