"""One section from image to tables: the stages in the order the data flows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.abundances import segment_minerals
from lithostream.engine.core.aggregate import overlap, segments_to_intervals, tiles_to_intervals
from lithostream.engine.core.calibration import calibrate
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.join import Joined, join
from lithostream.engine.core.label_map import LabelMap
from lithostream.engine.core.lane import Lanes, SectionPlan, Tools, WindowResult, process_window
from lithostream.engine.core.minerals import Endmembers
from lithostream.engine.core.planes import open_planes
from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.results import IntervalResult, SectionResult, TileResult
from lithostream.engine.core.rows import correct_rows
from lithostream.engine.core.section import Section
from lithostream.engine.core.segmenter.view import halo_rows
from lithostream.engine.core.stacking import section_numbers, stack_segments
from lithostream.engine.core.unmix import MineralFlag, MineralResult, Source
from lithostream.engine.core.windows import Block, blocks, open_section, section_grid
from lithostream.engine.inference import Predictor
from lithostream.engine.io.mscl import SensorLog, read_log
from lithostream.engine.io.planes import PlaneImage

_NO_LABELS = np.zeros((0, 0), np.int32)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class _Collector:
    """Windows in order, and the map they make; a label image is kept compressed."""

    def __init__(self, plan: SectionPlan) -> None:
        self.plan = plan
        self.windows: list[WindowResult] = []
        self.labels = LabelMap(plan.grid.width_px)

    def add(self, result: WindowResult) -> None:
        self.labels.append(result.labels)
        self.windows.append(replace(result, labels=_NO_LABELS))

    def all(self, name: str) -> npt.NDArray[Any]:
        """One field of every window, stacked."""
        return np.concatenate([getattr(window, name) for window in self.windows])


def process_section(
    section: Section,
    bundle: Bundle,
    endmembers: Endmembers,
    lanes: Lanes,
    settings: RunSettings,
    on_rows: Callable[[int, int], None],
) -> SectionResult:
    """Run every stage over one section.

    Parameters
    ----------
    section : Section
    bundle : Bundle
    endmembers : Endmembers
        The bundle's table.
    lanes : Lanes
        They change no result.
    settings : RunSettings
    on_rows : callable
        Told (rows done, rows in all) after each window.

    Raises
    ------
    LithostreamError
        Naming the file, the place, the reason and the fix.
    """
    log = read_log(section.log, section.section) if section.log else None
    source = open_section(section)
    grid = section_grid(section, source, bundle.manifest.input, settings)
    planes = open_planes(section, bundle.manifest.input)
    known_instrument = bundle.manifest.domain.admits(section.scanner, section.px_per_cm)
    colours = calibrate(section, source.width_px)
    kept = _Collector(
        SectionPlan(
            grid,
            bundle.manifest,
            settings,
            planes,
            section.core_cm,
            known_instrument,
            colours.calibration,
        )
    )

    def work(block: Block, tools: Tools[Predictor]) -> WindowResult:
        return process_window(block, kept.plan, tools)

    refines = bundle.segmenter is not None and settings.refine
    halo_px = halo_rows(kept.plan.window_px) if refines else 0
    for result in lanes.map(work, blocks(source, grid, settings, halo_px)):
        kept.add(result)
        on_rows(kept.labels.height_px, grid.height_px)
    notes = section.notes + tuple(source.conversions) + (_log_notes(log) if log else ())
    notes += () if refines else (_superpixel_note(settings),)
    notes += colours.notes + _plane_notes(planes, sum(window.uncovered for window in kept.windows))
    return _finish(section, bundle, endmembers, kept, log, notes)


def _finish(
    section: Section,
    bundle: Bundle,
    endmembers: Endmembers,
    kept: _Collector,
    log: SensorLog | None,
    notes: tuple[str, ...],
) -> SectionResult:
    grid, known_instrument = kept.plan.grid, kept.plan.known_instrument
    parts = [window.segments for window in kept.windows]
    numbers = section_numbers(parts, [window.seams for window in kept.windows])
    tiles, segments = _stack_tiles(kept), stack_segments(parts, numbers)
    half_widths = np.array([output.half_width_90 for output in bundle.manifest.outputs])
    above = np.broadcast_to(half_widths, tiles.properties.shape)
    below = -above
    if bundle.depth_model is not None:
        tiles, segments, below, above = correct_rows(
            bundle.depth_model, grid, tiles, kept.all("colour"), segments
        )
    outside = (segments.values[:, -1] > 0.5) | (not known_instrument)
    measured = _on_intervals(log, grid)
    minerals = segment_minerals(segments, outside, bundle.manifest, measured, endmembers)
    intervals = _intervals(kept, tiles, below, above, segments, minerals, measured)
    return SectionResult(
        section,
        grid,
        tiles,
        segments,
        outside,
        minerals,
        intervals,
        kept.all("preview"),
        kept.all("preview_mask"),
        kept.plan.preview_step,
        kept.labels.numbered(numbers),
        notes,
    )


def _stack_tiles(kept: _Collector) -> TileResult:
    fields = ("row", "col", "core_fraction", "properties", "distance", "outside")
    return TileResult(*(kept.all(name) for name in fields))


def _intervals(
    kept: _Collector,
    tiles: TileResult,
    below: Floats,
    above: Floats,
    segments: WindowSegments,
    minerals: MineralResult,
    measured: dict[str, Joined],
) -> IntervalResult:
    grid, known_instrument = kept.plan.grid, kept.plan.known_instrument
    edges = grid.interval_rows
    count = len(edges) - 1
    values = np.concatenate([tiles.properties, below, above, tiles.out_of_domain[:, None]], axis=1)
    means = tiles_to_intervals(overlap(grid), grid, tiles.row, tiles.core_fraction, values)
    outside = (np.nan_to_num(means.mean[:, -1]) > 0.5) | (not known_instrument)
    mineral_values = np.concatenate(
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
    pooled = segments_to_intervals(segments.interval_pixels, mineral_values, count)
    pooled[outside | (means.tiles == 0)] = np.nan
    mean, under, over = np.split(means.mean[:, :-1], 3, axis=1)
    shares = minerals.volume_pct.shape[1]
    core_px = np.add.reduceat(kept.all("core_px"), edges[:-1])
    return IntervalResult(
        core_px / (np.diff(edges) * grid.width_px),
        means.tiles,
        mean,
        mean + under,
        mean + over,
        means.std[:, : mean.shape[1]],
        pooled[:, :shares],
        pooled[:, shares : 2 * shares],
        pooled[:, 2 * shares : 3 * shares],
        pooled[:, 3 * shares : 4 * shares],
        pooled[:, 4 * shares : 5 * shares],
        _sources(*np.split(pooled[:, 5 * shares : -2], 2, axis=1)),
        pooled[:, -2],
        outside,
        means.tiles == 0,
        np.nan_to_num(pooled[:, -1]) > 0,
        measured,
    )


def _sources(predicted: Floats, measured: Floats) -> npt.NDArray[np.uint8]:
    """Where the values behind the abundances of an interval come from, by the shares [I, 3] of its segments."""
    both = (np.nan_to_num(predicted) > 0).astype(np.uint8) * Source.PREDICTED
    return np.asarray(both | (np.nan_to_num(measured) > 0).astype(np.uint8) * Source.MEASURED, np.uint8)


def _on_intervals(log: SensorLog | None, grid: Grid) -> dict[str, Joined]:
    """Every column of a log, on the intervals."""
    edges = grid.interval_rows
    top, base = grid.depth_cm(edges[:-1]), grid.depth_cm(edges[1:])
    return {name: join(log, name, top, base) for name in log.values} if log else {}


def _superpixel_note(settings: RunSettings) -> str:
    why = "the bundle holds no segmenter" if settings.refine else "refine is off"
    return f"segments are superpixels alone: {why}"


def _plane_notes(planes: Sequence[PlaneImage], uncovered: int) -> tuple[str, ...]:
    notes = tuple(note for image in planes for note in image.notes)
    if not uncovered:
        return notes
    names = ", ".join(image.plane.name for image in planes)
    return (
        *notes,
        f"{uncovered} tiles of core not predicted: not covered by every plane the model takes ({names})",
    )


def _log_notes(log: SensorLog) -> tuple[str, ...]:
    rejected = tuple(f"log column {name} refused: {reason}" for name, reason in log.rejected.items())
    return tuple(log.notes) + rejected
