"""Labelled tiles: the same tiles a run would cut, with the readings of the sensor log beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import TileInput
from lithostream.engine.config import RunSettings
from lithostream.engine.core.join import join
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import open_section, section_grid, window_tiles, windows
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.mscl import SensorLog, read_log
from lithostream.training.config import Range

MIN_OVERLAP = 0.5  # a row is labelled when readings cover at least half of its height

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TileSet:
    """N tiles in R rows of depth; a row has one label for all of its tiles.

    Attributes
    ----------
    targets : tuple of str [T]
    sections : tuple of Section
    pixels : uint8 [N, S, S, 3]
    row : int64 [N]
        Row of each tile, ascending.
    core_fraction : float64 [N]
        Weight of a tile in the mean of its row.
    labels : float64 [R, T]
        In the units of `TARGETS`; NaN where not measured. Every row has at least one label.
    section : int64 [R]
        Index into `sections`.
    top_cm, base_cm : float64 [R]
        Section offsets.
    """

    targets: tuple[str, ...]
    sections: tuple[Section, ...]
    pixels: npt.NDArray[np.uint8]
    row: Ints
    core_fraction: Floats
    labels: Floats
    section: Ints
    top_cm: Floats
    base_cm: Floats

    def row_mean(self, values: npt.NDArray[np.floating]) -> Floats:
        """Mean of tile values [N, C] over each row, weighted by core area as in a run: float64 [R, C]."""
        weight = np.bincount(self.row, self.core_fraction, minlength=len(self.labels))
        sums = [np.bincount(self.row, self.core_fraction * v, minlength=len(weight)) for v in values.T]
        return np.stack(sums, axis=1) / weight[:, None]

    def mean_colour(self) -> Floats:
        """Mean sRGB of each row's core tiles, float64 [R, 3]: what the baselines see."""
        return self.row_mean(self.pixels.mean(axis=(1, 2)))

    def of_rows(self, keep: Bools) -> "TileSet":
        """Return the rows where `keep` [R] is true, renumbered."""
        tiles = keep[self.row]
        number = np.cumsum(keep) - 1
        return TileSet(
            self.targets,
            self.sections,
            self.pixels[tiles],
            number[self.row[tiles]],
            self.core_fraction[tiles],
            self.labels[keep],
            self.section[keep],
            self.top_cm[keep],
            self.base_cm[keep],
        )


def build_tiles(
    sections: Sequence[Section],
    targets: tuple[str, ...],
    tile: TileInput,
    settings: RunSettings,
    credible: Mapping[str, Range],
) -> TileSet:
    """Cut and label the tiles of every section that has a log.

    Rows that no reading covers, that lie at a section end or that hold no core tile are left out; a reading
    outside its `credible` range is no label.

    Raises
    ------
    ConfigError
        A target is measured nowhere.
    LithostreamError
        An image or a log cannot be read.
    """
    parts = [
        _labelled(s, i, sections, targets, tile, settings, credible) for i, s in enumerate(sections) if s.log
    ]
    measured = np.any([np.isfinite(part.labels).any(axis=0) for part in parts], axis=0) if parts else [False]
    if not np.all(measured):
        missing = [
            name
            for name, known in zip(targets, np.broadcast_to(measured, len(targets)), strict=True)
            if not known
        ]
        raise ConfigError(
            f"no core row has a reading of {', '.join(missing)}",
            place="targets",
            fix="give each section its `log`, check the columns and units of the logs, or leave the target out",
        )
    firsts = np.cumsum([0] + [len(part.labels) for part in parts[:-1]])
    return TileSet(
        targets,
        tuple(sections),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.row + first for part, first in zip(parts, firsts, strict=True)]),
        np.concatenate([part.core_fraction for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.section for part in parts]),
        np.concatenate([part.top_cm for part in parts]),
        np.concatenate([part.base_cm for part in parts]),
    )


def _labelled(
    section: Section,
    index: int,
    sections: Sequence[Section],
    targets: tuple[str, ...],
    tile: TileInput,
    settings: RunSettings,
    credible: Mapping[str, Range],
) -> TileSet:
    assert section.log is not None
    source = open_section(section)
    grid = section_grid(section, source, tile, settings)
    found = [
        window_tiles(window, grid, tile, settings)
        for window in windows(source, grid, settings, section.core_cm)
    ]
    pixels = np.concatenate([part.pixels for part in found])
    row = np.concatenate([part.row for part in found])
    fraction = np.concatenate([part.core_fraction for part in found])
    edges = grid.depth_cm(grid.tile_rows)
    labels = row_labels(read_log(section.log, section.section), targets, edges[:-1], edges[1:], credible)
    everything = TileSet(
        targets,
        tuple(sections),
        pixels,
        row,
        fraction,
        labels,
        np.full(len(labels), index, np.int64),
        edges[:-1],
        edges[1:],
    )
    has_core = np.bincount(row, minlength=len(labels)) > 0
    return everything.of_rows(has_core & np.isfinite(labels).any(axis=1))


def row_labels(
    log: SensorLog,
    targets: tuple[str, ...],
    top_cm: Floats,
    base_cm: Floats,
    credible: Mapping[str, Range],
) -> Floats:
    """Join the readings of a log to rows of depth: float64 [R, T]; NaN where there is no credible one."""
    labels = np.full((len(top_cm), len(targets)), np.nan)
    for column, target in enumerate(targets):
        if target not in log.values:
            continue
        joined = join(log, target, top_cm, base_cm)
        good = (joined.weight >= MIN_OVERLAP) & ~joined.section_end
        if target in credible:
            good &= (joined.value >= credible[target].low) & (joined.value <= credible[target].high)
        labels[good, column] = joined.value[good]
    return labels
