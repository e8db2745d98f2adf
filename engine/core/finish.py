"""From what the windows left behind to tables: segments part by part, so that memory does not grow with the core.

Every sum goes on in the order of windows, so how the segments are parted changes no bit of a result.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.abundances import has_colour, segment_minerals
from lithostream.engine.core.aggregate import IntervalMeans, IntervalSums, overlap, tiles_to_intervals
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.minerals import Endmembers
from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.results import CollectedSection, IntervalResult
from lithostream.engine.core.rows import Corrected, correct_rows, move_segments
from lithostream.engine.core.stacking import SUPERPIXELS, Numbered, joined, read_segments, stack_segments
from lithostream.engine.core.tile_store import read_tiles
from lithostream.engine.core.unmix import PROPERTIES, MineralFlag, MineralResult, Source

PART = 2048  # segments at least that are solved at a time, of whole windows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class SegmentPart(NamedTuple):
    """The segments that begin in some windows, each as a whole.

    Attributes
    ----------
    first : int
        Number of the first.
    segments : WindowSegments
        In the order of numbers, S of them.
    out_of_domain : bool [S]
    shared : int64 [Q, 3]
        Rows of (segment number, interval, pixels) of all that these windows hold, in their order: of segments that
        began before as well.
    unfinished : int64 [U]
        Numbers, so far, of segments that go on below these windows.
    """

    first: int
    segments: WindowSegments
    out_of_domain: Bools
    shared: Ints
    unfinished: Ints


def correct_tiles(collected: CollectedSection, bundle: Bundle) -> Corrected:
    """Tiles of a section and their 90 % intervals, by the bundle's depth model where it has one."""
    tiles = read_tiles(collected.windows, collected.tile_count)
    if bundle.depth_model is not None:
        return correct_rows(bundle.depth_model, collected.grid, tiles)
    half_widths = np.array([output.half_width_90 for output in bundle.manifest.outputs])
    below, above = (np.broadcast_to(ends, tiles.properties.shape) for ends in (-half_widths, half_widths))
    return Corrected(tiles, below, above, None)


def solved_segments(
    collected: CollectedSection,
    shift: Floats | None,
    bundle: Bundle,
    endmembers: Endmembers,
    of: str = "",
) -> Iterator[tuple[SegmentPart, MineralResult]]:
    """Yield all segments of a section in the order of their numbers, with their minerals; at least one part.

    Parameters
    ----------
    collected : CollectedSection
    shift : float64 [I, T + 1], optional
        Of `correct_tiles`.
    bundle : Bundle
    endmembers : Endmembers
        The bundle's table.
    of : str
        `SUPERPIXELS` for those that were refined into the segments.
    """
    coloured = collected.calibrated and any(
        has_colour(part.segments, part.out_of_domain) for part in segment_parts(collected, shift, of)
    )
    for part in segment_parts(collected, shift, of):
        yield (
            part,
            segment_minerals(
                part.segments,
                part.out_of_domain,
                bundle.manifest,
                collected.measured,
                endmembers,
                coloured=coloured,
            ),
        )


def segment_parts(collected: CollectedSection, shift: Floats | None, of: str = "") -> Iterator[SegmentPart]:
    """Put the segments of windows together, those of several windows where they began; superpixels all end at windows."""
    later, last = collected.continued, len(collected.windows) - 1
    if of == SUPERPIXELS:
        later = later.between(0, 0)
    begun: list[Numbered] = []
    shared: list[Ints] = []
    first = count = 0
    for index in range(last + 1):
        window = read_segments(collected.windows.read(index), of)
        shared.append(window.segments.interval_pixels)
        begun.append(window.between(count, count + len(window.number)))
        count += len(begun[-1].number)
        if count - first < PART and index < last:
            continue
        segments = stack_segments(joined([*begun, later.between(first, count)]), first)
        if shift is not None:
            segments = move_segments(segments, shift)
        outside = (segments.values[:, -1] > 0.5) | (not collected.known_instrument)
        unfinished = later.number[(later.segments.window > index) & (later.number < count)]
        yield SegmentPart(first, segments, outside, np.concatenate(shared), unfinished)
        begun, shared, first = [], [], count


class IntervalMinerals:
    """Means of the minerals of segments, or superpixels, over intervals, as their parts come.

    Parameters
    ----------
    intervals, minerals : int
        I and E.
    """

    def __init__(self, intervals: int, minerals: int) -> None:
        columns = 5 * minerals + 2 * len(PROPERTIES) + 2
        self._sums = IntervalSums(intervals, columns)
        self._number = np.zeros(0, np.int64)  # of segments that are not finished, rising
        self._values = np.zeros((0, columns))

    def add(self, part: SegmentPart, minerals: MineralResult) -> None:
        """Add the next part."""
        values = np.concatenate([self._values, _mineral_values(minerals)])
        number = np.concatenate([self._number, part.first + np.arange(len(minerals.flags))])
        owner, interval, pixels = part.shared.T
        self._sums.add(interval, pixels, values[np.searchsorted(number, owner)])
        open_still = np.isin(number, part.unfinished)
        self._number, self._values = number[open_still], values[open_still]

    def means(self) -> Floats:
        """Means of all parts, float64 [I, C]."""
        return self._sums.means()


def _mineral_values(minerals: MineralResult) -> Floats:
    """Gather what is averaged over intervals, one row per segment."""
    return np.concatenate(
        [
            minerals.volume_pct,
            minerals.dry_weight_pct,
            minerals.width_pct,
            minerals.low_pct,
            minerals.high_pct,
            minerals.source == Source.PREDICTED,
            minerals.source == Source.MEASURED,
            minerals.residual[:, None],
            ((minerals.flags & MineralFlag.UNDERDETERMINED) > 0)[:, None],
        ],
        axis=1,
    )


class TileMeans(NamedTuple):
    """What tiles say of the intervals.

    Attributes
    ----------
    tiles : int32 [I]
        How many.
    mean, low, high, std : float64 [I, T]
    outside : float64 [I]
        Share of what is out of domain; NaN where no tile is.
    """

    tiles: npt.NDArray[np.int32]
    mean: Floats
    low: Floats
    high: Floats
    std: Floats
    outside: Floats


def tile_means(grid: Grid, corrected: Corrected) -> TileMeans:
    """Average tiles over the intervals."""
    tiles, pieces = corrected.tiles, overlap(grid)

    def averaged(values: Floats) -> IntervalMeans:
        return tiles_to_intervals(pieces, grid, tiles.row, tiles.core_fraction, values)

    found = averaged(tiles.properties)
    low, high = (found.mean + averaged(end).mean for end in (corrected.below, corrected.above))
    outside = averaged(tiles.out_of_domain[:, None].astype(np.float64)).mean[:, 0]
    return TileMeans(found.tiles, found.mean, low, high, found.std, outside)


def interval_result(
    collected: CollectedSection, means: TileMeans, minerals: IntervalMinerals
) -> IntervalResult:
    """Put together what tiles and segments say of the intervals."""
    outside = (np.nan_to_num(means.outside) > 0.5) | (not collected.known_instrument)
    pooled = minerals.means()
    pooled[outside | (means.tiles == 0)] = np.nan
    volume, dry_weight, width, low, high, predicted, measured, rest = _split(pooled)
    return IntervalResult(
        collected.core_px / (np.diff(collected.grid.interval_rows) * collected.grid.width_px),
        means.tiles,
        means.mean,
        means.low,
        means.high,
        means.std,
        volume,
        dry_weight,
        width,
        low,
        high,
        _sources(predicted, measured),
        rest[:, 0],
        outside,
        means.tiles == 0,
        collected.lost_lines > 0,
        np.nan_to_num(rest[:, 1]) > 0,
        collected.measured,
    )


def _split(pooled: Floats) -> list[Floats]:
    """Columns of `_mineral_values`: five blocks of minerals, two of sources, and the last two."""
    known = len(PROPERTIES)
    minerals = (pooled.shape[1] - 2 * known - 2) // 5
    ends = np.cumsum([minerals] * 5 + [known] * 2)
    return np.split(pooled, ends, axis=1)


def _sources(predicted: Floats, measured: Floats) -> npt.NDArray[np.uint8]:
    """Where the values behind the abundances of an interval come from, by the shares [I, 3] of its segments."""
    both = (np.nan_to_num(predicted) > 0).astype(np.uint8) * Source.PREDICTED
    return np.asarray(both | (np.nan_to_num(measured) > 0).astype(np.uint8) * Source.MEASURED, np.uint8)
