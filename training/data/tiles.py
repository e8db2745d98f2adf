"""Labelled tiles: the same tiles a run would cut, with the readings of the sensor log beside them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.cache import cache_folder
from lithostream.engine.config import RunSettings
from lithostream.engine.core.planes import open_planes
from lithostream.engine.core.rows import row_means, tile_colour
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import open_section, section_grid, window_tiles, windows
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.mscl import read_log
from lithostream.engine.manifest import TileInput
from lithostream.training.config import Range
from lithostream.training.data.cache import Append, Arrays, cache_key, release, stored_tiles
from lithostream.training.data.labels import Labels, row_labels
from lithostream.training.data.profile import Profile

# Never change a result, so tiles cut under other values are as good.
SPEED_ONLY = {"slab_rows", "batch", "threads", "backend", "precision"}

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TileSet:
    """N tiles in R rows of depth; a row has one label for all of its tiles.

    Pixels and moments are of all M tiles that were cut; a part of the rows shares them and holds their
    places.

    Attributes
    ----------
    targets : tuple of str [T]
    sections : tuple of Section
    pixels : uint8 [M, S, S, C]
        Red, green, blue, then the planes of the tile input. Read-only, and on disk where it comes from
        `build_tiles`: read through `gather` or `batches`.
    moments : float64 [M, 2, C]
        Mean over a tile of each channel, and of its square.
    tile : int64 [N]
        Place of each tile in `pixels` and `moments`.
    row : int64 [N]
        Row of each tile, ascending.
    core_fraction : float64 [N]
        Weight of a tile in the mean of its row.
    labels : float64 [R, T]
        In the units of `TARGETS`; NaN where not known. Every row has at least one label.
    interpolated : bool [R, T]
        Labels that no reading covers; they are learned from, never scored.
    section : int64 [R]
        Index into `sections`.
    top_cm, base_cm : float64 [R]
        Section offsets.
    place : int64 [R]
        Number of the row in its section, from 0.
    profile : Profile
        Colour of all rows with core of these sections, whether labelled or not; shared by parts of the set.
    """

    targets: tuple[str, ...]
    sections: tuple[Section, ...]
    pixels: Pixels
    moments: Floats
    tile: Ints
    row: Ints
    core_fraction: Floats
    labels: Floats
    interpolated: Bools
    section: Ints
    top_cm: Floats
    base_cm: Floats
    place: Ints
    profile: Profile

    @property
    def measured(self) -> Floats:
        """Labels that a reading covers, float64 [R, T]: what predictions are compared with."""
        return np.where(self.interpolated, np.nan, self.labels)

    def gather(self, which: Ints, out: Pixels | None = None) -> Pixels:
        """Copy the tiles `which` [B] of this set, into `out` uint8 [B, S, S, C] where it is given."""
        # Places are valid by construction; to clip spares NumPy a second copy of the output.
        found = np.take(np.asarray(self.pixels), self.tile[which], axis=0, out=out, mode="clip")
        release(self.pixels)
        return found

    def batches(self, size: int) -> Iterator[Pixels]:
        """Copy all tiles in their order, `size` at a time: uint8 [size, S, S, C]."""
        for start in range(0, len(self.tile), size):
            yield self.gather(np.arange(start, min(start + size, len(self.tile))))

    def row_mean(self, values: npt.NDArray[np.floating]) -> Floats:
        """Mean of tile values [N, C] over each row, weighted by core area as in a run: float64 [R, C]."""
        return row_means(values, self.row, self.core_fraction, len(self.labels))

    def mean_colour(self) -> Floats:
        """Mean of each channel over each row's core tiles, float64 [R, C]: what the baselines see."""
        return self.row_mean(self.moments[self.tile, 0])

    def colour_scale(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each channel over all pixels, float64 [C] each."""
        mean, square = self.moments[self.tile].mean(axis=0)
        return mean, np.sqrt(np.maximum(square - mean**2, 0.0))

    def every(self, step: int) -> "TileSet":
        """Return every `step`-th tile, of the same rows; rows may be left without a tile."""
        return replace(
            self, tile=self.tile[::step], row=self.row[::step], core_fraction=self.core_fraction[::step]
        )

    def of_rows(self, keep: Bools) -> "TileSet":
        """Return the rows where `keep` [R] is true, renumbered; no pixel is copied."""
        tiles = keep[self.row]
        number = np.cumsum(keep) - 1
        return replace(
            self,
            tile=self.tile[tiles],
            row=number[self.row[tiles]],
            core_fraction=self.core_fraction[tiles],
            labels=self.labels[keep],
            interpolated=self.interpolated[keep],
            section=self.section[keep],
            top_cm=self.top_cm[keep],
            base_cm=self.base_cm[keep],
            place=self.place[keep],
        )


class _Rows(NamedTuple):
    """The kept rows of one section, what goes with their tiles, the colour of all rows; as in `TileSet`."""

    moments: Floats
    row: Ints
    core_fraction: Floats
    labels: Floats
    interpolated: Bools
    section: Ints
    top_cm: Floats
    base_cm: Floats
    place: Ints
    profile_section: Ints
    profile_place: Ints
    profile_colour: Floats


def moments(pixels: Pixels) -> Floats:
    """Mean over each tile [n, S, S, C] of each channel and of its square, float64 [n, 2, C]; exact sums."""
    flat = pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2], pixels.shape[3])
    sums = flat.sum(axis=1, dtype=np.int64)
    squares = np.einsum("npc,npc->nc", flat, flat, dtype=np.int64)
    return np.stack([sums, squares], axis=1) / flat.shape[1]


def build_tiles(
    sections: Sequence[Section],
    targets: tuple[str, ...],
    tile: TileInput,
    settings: RunSettings,
    credible: Mapping[str, Range],
    *,
    interpolate_cm: float | None = None,
    cache: Path | None = None,
) -> TileSet:
    """Cut and label the tiles of every section that has a log, or map those that were cut before.

    Rows without a label, or that hold no core tile that every plane covers, are left out. Pixels go to disk
    window by window, so memory holds one window, the planes of one section and about 100 bytes per tile
    however large the images are.

    Parameters
    ----------
    sections : sequence of Section
    targets : tuple of str
    tile : TileInput
    settings : RunSettings
        Under which a run would cut the same tiles.
    credible : dict of target to Range
        A reading outside is no label.
    interpolate_cm : float, optional
        See `row_labels`.
    cache : Path, optional
        Folder to keep cut tiles in; `cache_folder()` by default.

    Raises
    ------
    ConfigError
        A target is measured nowhere, or the cache cannot be written.
    StoppedError
        The disk is full.
    LithostreamError
        An image, a plane or a log cannot be read, or a section lacks a plane.
    """
    key = cache_key(
        sections,
        targets=targets,
        tile=tile.model_dump(),
        run=settings.model_dump(exclude=SPEED_ONLY),
        credible={name: bounds.model_dump() for name, bounds in credible.items()},
        interpolate_cm=interpolate_cm,
    )

    label = partial(row_labels, targets=targets, credible=credible, interpolate_cm=interpolate_cm)

    def fill(append: Append) -> Arrays:
        logged = [(index, section) for index, section in enumerate(sections) if section.log is not None]
        parts = [_cut(section, index, tile, settings, label, append) for index, section in logged]
        return _joined(parts, targets)

    shape = (tile.size_px, tile.size_px, tile.channels)
    stored = stored_tiles((cache or cache_folder()) / "tiles" / key, shape, fill)
    arrays = dict(stored.arrays)
    profile = Profile(*(arrays.pop(f"profile_{name}") for name in Profile._fields))
    return TileSet(
        targets=targets,
        sections=tuple(sections),
        pixels=stored.pixels,
        tile=np.arange(len(stored.pixels)),
        profile=profile,
        **arrays,
    )


def _cut(
    section: Section,
    index: int,
    tile: TileInput,
    settings: RunSettings,
    label: Callable[..., Labels],
    append: Append,
) -> _Rows:
    """Append the tiles of the labelled rows of one section, window by window."""
    assert section.log is not None
    source = open_section(section)
    grid = section_grid(section, source, tile, settings)
    edges = grid.depth_cm(grid.tile_rows)
    labels = label(read_log(section.log, section.section), top_cm=edges[:-1], base_cm=edges[1:])
    wanted: Bools = np.any(np.isfinite(labels.value), axis=1)
    planes = open_planes(section, tile)
    found = [(np.zeros((0, 2, tile.channels)), np.zeros(0, np.int64), np.zeros(0))]
    seen = [(np.zeros((0, tile.channels)), np.zeros(0, np.int64), np.zeros(0))]
    for window in windows(source, grid, settings, section.core_cm):
        part = window_tiles(window, grid, tile, settings, planes)
        keep = wanted[part.row]
        pixels = part.pixels[keep]
        append(pixels)
        found.append((moments(pixels), part.row[keep], part.core_fraction[keep]))
        seen.append((tile_colour(part.pixels), part.row, part.core_fraction))
    mean, row, fraction = (np.concatenate(parts) for parts in zip(*found, strict=True))
    channels, of_row, share = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    colour = row_means(channels, of_row, share, len(edges) - 1)
    core = np.flatnonzero(np.isfinite(colour[:, 0]))
    kept, number = np.unique(row, return_inverse=True)
    return _Rows(
        mean,
        number.astype(np.int64),
        fraction,
        labels.value[kept],
        labels.interpolated[kept],
        np.full(len(kept), index, np.int64),
        edges[:-1][kept],
        edges[1:][kept],
        kept,
        np.full(len(core), index, np.int64),
        core,
        colour[core],
    )


def _joined(parts: Sequence[_Rows], targets: tuple[str, ...]) -> Arrays:
    """Put sections one after another, their rows renumbered.

    Raises
    ------
    ConfigError
        No row has a reading of a target.
    """
    known = [np.isfinite(part.labels) & ~part.interpolated for part in parts]
    measured: Bools = np.any(np.concatenate([np.zeros((1, len(targets)), np.bool_), *known]), axis=0)
    missing = [name for name, has in zip(targets, measured, strict=True) if not has]
    if missing:
        raise ConfigError(
            f"no core row has a reading of {', '.join(missing)}",
            place="targets",
            fix="give each section its `log`, check the columns and units of the logs, or leave the target out",
        )
    firsts = np.cumsum([0] + [len(part.labels) for part in parts[:-1]])
    moved = [part._replace(row=part.row + first) for part, first in zip(parts, firsts, strict=True)]
    return {name: np.concatenate([getattr(part, name) for part in moved]) for name in _Rows._fields}
