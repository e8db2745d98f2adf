"""What a section becomes: tiles, segments and intervals, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.grid import Grid
from lithostream.engine.core.join import Joined
from lithostream.engine.core.label_map import NumberedMap
from lithostream.engine.core.preview import Preview
from lithostream.engine.core.section import Section
from lithostream.engine.core.spill import Spill
from lithostream.engine.core.stacking import Numbered

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileResult:
    """Predicted tiles of a section, or of a window of it, in grid order.

    Attributes
    ----------
    row, col : int64 [N]
    core_fraction : float64 [N]
    properties : float64 [N, T]
    distance : float64 [N]
        Embedding distance from the training data.
    out_of_domain : bool [N]
    colour : float64 [N, C]
        Means of the channels.
    """

    row: npt.NDArray[np.int64]
    col: npt.NDArray[np.int64]
    core_fraction: Floats
    properties: Floats
    distance: Floats
    out_of_domain: Bools
    colour: Floats

    def parts(self, tiles: int) -> Iterator["TileResult"]:
        """Cut them into parts of so many tiles; the last, which may be the first and empty, is shorter."""
        for first in range(0, max(len(self.row), 1), tiles):
            rows = slice(first, first + tiles)
            yield TileResult(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class IntervalResult:
    """The rows a geologist reads.

    Attributes
    ----------
    core_fraction : float64 [I]
    tile_count : int32 [I]
    mean, low, high, std : float64 [I, T]
        Value, its 90 % interval, and spread between tiles.
    volume_pct, dry_weight_pct, width_pct : float64 [I, E]
        Abundances, and the range of the volume share over all answers that fit equally well.
    volume_low_pct, volume_high_pct : float64 [I, E]
        90 % interval of the volume share, mean over the segments.
    source : uint8 [I, 3]
        `Source` of density, velocity and susceptibility behind the abundances; both bits where segments differ.
    residual : float64 [I]
    out_of_domain, no_core, lines_lost, underdetermined : bool [I]
    measured : dict of target name to Joined
    """

    core_fraction: Floats
    tile_count: npt.NDArray[np.int32]
    mean: Floats
    low: Floats
    high: Floats
    std: Floats
    volume_pct: Floats
    dry_weight_pct: Floats
    width_pct: Floats
    volume_low_pct: Floats
    volume_high_pct: Floats
    source: npt.NDArray[np.uint8]
    residual: Floats
    out_of_domain: Bools
    no_core: Bools
    lines_lost: Bools
    underdetermined: Bools
    measured: dict[str, Joined]


@dataclass(frozen=True, slots=True)
class CollectedSection:
    """What the windows of a section left behind; what grows with its length lies on disk until it is closed.

    Attributes
    ----------
    section : Section
    grid : Grid
        As high as the section is.
    known_instrument : bool
        The model was trained on such images.
    calibrated : bool
        Its colours are, so that segments may have a reflectance.
    tile_count : int
    core_px, lost_lines : int64 [I]
        Core pixels of each interval, and rows of it that never arrived.
    preview : Preview
    windows : Spill
        A record for each window: its label image, numbers, segments, superpixels and tiles (`NumberedMap`,
        `read_segments`, `read_tiles`).
    continued : Numbered
        The pieces of segments that began in an earlier window, in the order of windows.
    refined : bool
        Masks refined superpixels into the segments, and the windows hold both.
    measured : dict of target name to Joined
        The sensor log on the intervals.
    notes : tuple of str
        Conversions, doubts and what the log reader masked.
    """

    section: Section
    grid: Grid
    known_instrument: bool
    calibrated: bool
    tile_count: int
    core_px: npt.NDArray[np.int64]
    lost_lines: npt.NDArray[np.int64]
    preview: Preview
    windows: Spill
    continued: Numbered
    refined: bool
    measured: dict[str, Joined]
    notes: tuple[str, ...]

    @property
    def segment_map(self) -> NumberedMap:
        """Which segment each pixel belongs to."""
        return NumberedMap(self.grid.height_px, self.grid.width_px, self.windows)

    def close(self) -> None:
        """Give the disk space back."""
        self.windows.close()
