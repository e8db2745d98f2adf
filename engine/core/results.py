"""What a section becomes: tiles, segments and intervals, as arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.grid import Grid
from lithostream.engine.core.join import Joined
from lithostream.engine.core.label_map import NumberedMap
from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.section import Section
from lithostream.engine.core.unmix import MineralResult

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileResult:
    """All predicted tiles of a section, in grid order.

    Attributes
    ----------
    row, col : int64 [N]
    core_fraction : float64 [N]
    properties : float64 [N, T]
    distance : float64 [N]
        Embedding distance from the training data.
    out_of_domain : bool [N]
    """

    row: npt.NDArray[np.int64]
    col: npt.NDArray[np.int64]
    core_fraction: Floats
    properties: Floats
    distance: Floats
    out_of_domain: Bools


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
    out_of_domain, no_core, underdetermined : bool [I]
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
    underdetermined: Bools
    measured: dict[str, Joined]


@dataclass(frozen=True, slots=True)
class SectionResult:
    """Everything computed from one section.

    Attributes
    ----------
    section : Section
    grid : Grid
    tiles : TileResult
    segments : WindowSegments
        Those of all windows, stacked.
    segment_out_of_domain : bool [S]
    minerals : MineralResult
        Per segment.
    intervals : IntervalResult
    preview : uint8 [h, w, 3]
    preview_mask : bool [h, w]
    preview_step : int
        Pixels of the image between those of the preview.
    segment_map : NumberedMap
        Which segment each pixel belongs to.
    notes : tuple of str
        Conversions, doubts and what the log reader masked.
    """

    section: Section
    grid: Grid
    tiles: TileResult
    segments: WindowSegments
    segment_out_of_domain: Bools
    minerals: MineralResult
    intervals: IntervalResult
    preview: npt.NDArray[np.uint8]
    preview_mask: Bools
    preview_step: int
    segment_map: NumberedMap
    notes: tuple[str, ...]
