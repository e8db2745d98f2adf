"""From decoded slabs to windows and tiles: the part of the way that training and runs share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.config import RunSettings
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.planes import plane_tiles
from lithostream.engine.core.row_source import RowBuffer, RowSource
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError, ScaleError, SourceError
from lithostream.engine.io.images import Slab, open_image
from lithostream.engine.io.line_file import SUFFIX as LINES
from lithostream.engine.io.line_file import open_lines
from lithostream.engine.io.planes import PlaneImage
from lithostream.engine.manifest import TileInput
from lithostream.kernels import core_roi, tiles
from lithostream.kernels.arrays import array_module, to_host

MIN_PIECE_CM = 1.0  # shorter pieces between rows without core are debris, or a row of a colour card
CRACK_CM = 0.3  # a dark line thinner than this inside the core is a crack, so core


@dataclass(frozen=True, slots=True)
class Window:
    """A fixed span of rows, with its core mask, on the host or on a GPU.

    Attributes
    ----------
    index : int
        Number from the top.
    row_px : int
        First row in the section image.
    rgb : uint8 [H, W, 3]
    mask : bool [H, W]
        Pixels that are core.
    """

    index: int
    row_px: int
    rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Block:
    """A window as it is decoded: its rows, and those around them.

    Attributes
    ----------
    index : int
        Number of the window from the top.
    row_px, height_px : int
        The window's first row in the section image, and its rows.
    slab : Slab
        Pixels of the window and of the rows around it.
    halo_px : int
        Rows of the slab above the window.
    grid : Grid
        Of the section, as high as it may become: where the window or its halo meets the end, as high as it is.
    """

    index: int
    row_px: int
    height_px: int
    slab: Slab
    halo_px: int
    grid: Grid


class WindowTiles(NamedTuple):
    """The tiles of one window that hold enough core, and that every plane covers.

    Attributes
    ----------
    pixels : uint8 [N, S, S, C]
        Resampled to the model's input size: red, green, blue, then the planes.
    row, col : int64 [N]
        Place on the section's tile grid.
    core_fraction : float64 [N]
        Share of core pixels.
    uncovered : int
        Tiles with enough core that are left out because a plane does not cover them.
    """

    pixels: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int64]
    col: npt.NDArray[np.int64]
    core_fraction: npt.NDArray[np.float64]
    uncovered: int


def open_section(section: Section) -> RowSource:
    """Open a section's image with its rows running down-core."""
    if section.image.suffix.casefold() == LINES:
        return open_lines(section.image)
    return open_image(
        section.image,
        depth_axis=section.depth_axis,
        depth_reversed=section.depth_reversed,
        white_level=section.white_level,
    )


def section_grid(section: Section, source: RowSource, tile: TileInput, settings: RunSettings) -> Grid:
    """Lay the grid over a section.

    Raises
    ------
    ConfigError
        When a window is not a whole number of tiles.
    ScaleError, SourceError
        When a tile is smaller than a pixel, or the image smaller than a tile.
    """
    tiles_per_window = round(settings.window_cm / tile.tile_cm)
    if tiles_per_window < 1 or abs(tiles_per_window * tile.tile_cm - settings.window_cm) > 1e-9:
        raise ConfigError(
            f"window_cm {settings.window_cm} is not a whole number of the model's tiles of {tile.tile_cm} cm",
            place="window_cm",
            fix=f"use a multiple of {tile.tile_cm}",
        )
    step_px = min(tile.tile_cm, settings.interval_cm) * section.px_per_cm
    if step_px < 1:
        raise ScaleError(
            f"a tile or interval is {step_px:.2f} px at {section.px_per_cm:g} px/cm",
            file=section.image,
            fix="check the scale; such an image is too coarse for this model",
        )
    grid = Grid(
        source.height_px,
        source.width_px,
        section.px_per_cm,
        section.top_cm,
        tile.tile_cm,
        settings.interval_cm,
        tiles_per_window,
    )
    return _holding_a_tile(grid, section.image)


def _holding_a_tile(grid: Grid, image: Path) -> Grid:
    if len(grid.tile_rows) < 2 or len(grid.tile_cols) < 2:
        raise SourceError(
            f"{grid.height_px} x {grid.width_px} px (depth x width) is smaller than one tile of"
            f" {grid.tile_cm:g} cm at {grid.px_per_cm:g} px/cm",
            file=image,
            fix="check the scale and the depth axis, or leave this image out",
        )
    return grid


def windows(
    source: RowSource, grid: Grid, settings: RunSettings, core_cm: tuple[float, float] | None
) -> Iterator[Window]:
    """Cut a section into its fixed windows and find the core in each, see `find_core`."""
    for block in blocks(source, grid, settings):
        yield find_core(block, grid, settings, core_cm)


def blocks(source: RowSource, grid: Grid, settings: RunSettings, halo_px: int = 0) -> Iterator[Block]:
    """Cut a section into its fixed windows, each with at least `halo_px` rows around it, and those that decide what is core.

    The rows are blocked anew, so the result does not depend on the height of the slabs. A window is served as soon as
    it and the rows below it are there.

    Raises
    ------
    SourceError
        The rows stop before the end of a closed source, or before one tile is whole.
    """
    halo_px = max(halo_px, _core_halo_px(grid))
    rows, edges, index = RowBuffer(source.slabs(settings.slab_rows)), grid.window_rows, 0
    while index < len(edges) - 1:
        top, base = int(edges[index]), int(edges[index + 1])
        first, last = max(0, top - halo_px), min(grid.height_px, base + halo_px)
        if rows.reach(last):
            yield Block(index, top, base - top, rows.between(first, last), top - first, grid)
            index += 1
        else:
            grid = _ended(source, grid, rows.height_px)
            edges = grid.window_rows


def _ended(source: RowSource, grid: Grid, height_px: int) -> Grid:
    """Grid of a source whose rows have stopped; windows that were served whole stay as they are."""
    if not source.open_ended:
        raise SourceError(
            f"ends after {height_px} of {grid.height_px} rows", file=source.path, fix="copy the file again"
        )
    return _holding_a_tile(grid.cut(height_px), source.path)


def find_core(block: Block, grid: Grid, settings: RunSettings, core_cm: tuple[float, float] | None) -> Window:
    """Find the core in a window.

    Rows outside `core_cm`, where the instrument knows that no core lies, are never core.
    """
    halo_px = min(block.halo_px, _core_halo_px(grid))
    looked_at = slice(block.halo_px - halo_px, block.halo_px + block.height_px + _core_halo_px(grid))
    alpha = block.slab.alpha
    roi = core_roi(
        block.slab.rgb[looked_at],
        rule=settings.roi,
        crack_px=_crack_px(grid),
        min_piece_px=_piece_px(grid),
        alpha=None if alpha is None else alpha[looked_at],
    )
    inside = slice(block.halo_px, block.halo_px + block.height_px)
    mask = roi.mask[halo_px : halo_px + block.height_px]
    window = Window(block.index, block.row_px, block.slab.rgb[inside], mask)
    if core_cm:
        middle = grid.depth_cm(np.arange(block.height_px) + block.row_px + 0.5)
        window.mask[: np.searchsorted(middle, core_cm[0], side="left")] = False
        window.mask[np.searchsorted(middle, core_cm[1], side="right") :] = False
    return window


def _core_halo_px(grid: Grid) -> int:
    """Rows around a window with which a gap at its edge looks the same from both sides."""
    return 2 * _crack_px(grid) + 1 + _piece_px(grid)


def _crack_px(grid: Grid) -> int:
    return max(1, round(CRACK_CM * grid.px_per_cm))


def _piece_px(grid: Grid) -> int:
    return max(1, round(MIN_PIECE_CM * grid.px_per_cm))


def window_tiles(
    window: Window, grid: Grid, tile: TileInput, settings: RunSettings, planes: Sequence[PlaneImage] = ()
) -> WindowTiles:
    """Gather a window's tiles and keep those with enough core.

    Parameters
    ----------
    window : Window
    grid : Grid
    tile : TileInput
    settings : RunSettings
    planes : sequence of PlaneImage
        Those of `open_planes`. Their middle lies on the middle of the colour image; tiles that one of them does not
        cover whole are left out.
    """
    if [image.plane.name for image in planes] != [plane.name for plane in tile.planes]:
        raise ValueError(f"the model takes planes {tile.planes}, not those given")
    first = window.index * grid.tiles_per_window
    rows = grid.tile_rows[first : first + grid.tiles_per_window + 1] - window.row_px  # of whole tiles
    cols = grid.tile_cols
    pixels = tiles(window.rgb, rows, cols, tile.size_px)
    fraction = _cell_means(window.mask, rows, cols)
    enough = fraction >= settings.min_core_fraction
    keep = enough.copy()
    row_cm = grid.depth_cm(rows + window.row_px)
    col_cm = (cols.astype(np.float64) - grid.width_px / 2) / grid.px_per_cm
    cut = [
        plane_tiles(image, wanted, row_cm, col_cm, tile.size_px)
        for image, wanted in zip(planes, tile.planes, strict=True)
    ]
    for part in cut:
        keep &= part.covered
    row, col = np.nonzero(keep)
    xp = array_module(pixels)
    channels = [pixels[xp.asarray(row), xp.asarray(col)]]
    channels += [xp.asarray(part.pixels[keep][..., None]) for part in cut]
    return WindowTiles(
        xp.concatenate(channels, axis=-1) if cut else channels[0],
        row + first,
        col,
        fraction[keep],
        int(np.count_nonzero(enough & ~keep)),
    )


def _cell_means(
    mask: npt.NDArray[np.bool_], rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Share of True in each grid cell, float64 [R, C] on the host."""
    if len(rows) < 2:
        return np.zeros((0, len(cols) - 1))
    xp = array_module(mask)
    # Along rows by counting: CuPy's `reduceat` scans all that it is given, in copies of 64 bits a value.
    across = [xp.count_nonzero(mask[: rows[-1], left:right], axis=1) for left, right in pairwise(cols)]
    sums = xp.add.reduceat(xp.stack(across, axis=1), xp.asarray(rows[:-1]))
    means: npt.NDArray[np.float64] = to_host(sums) / np.outer(np.diff(rows), np.diff(cols))
    return means
