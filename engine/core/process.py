"""One section from rows to what its windows leave behind: the stages in the order the data flows."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.calibration import calibrate
from lithostream.engine.core.grid import Edges, Grid
from lithostream.engine.core.join import Joined, join
from lithostream.engine.core.label_map import LABELS, packed
from lithostream.engine.core.lane import Lanes, SectionPlan, Tools, WindowResult, process_window
from lithostream.engine.core.planes import open_planes
from lithostream.engine.core.preview import Preview
from lithostream.engine.core.results import CollectedSection
from lithostream.engine.core.row_source import RowSource
from lithostream.engine.core.section import Section
from lithostream.engine.core.segmenter.view import halo_rows
from lithostream.engine.core.spill import Spill
from lithostream.engine.core.stacking import (
    SUPERPIXELS,
    Numbered,
    Numbering,
    joined,
    segment_record,
    under_numbers,
)
from lithostream.engine.core.tile_store import tile_record
from lithostream.engine.core.windows import Block, blocks, section_grid
from lithostream.engine.inference import Predictor
from lithostream.engine.io.mscl import SensorLog, read_log
from lithostream.engine.io.planes import PlaneImage

_MOST_PLACES = 5  # of lost lines that a note names

Ints = npt.NDArray[np.int64]
# Told what became of a window, rows done and the most rows there may be.
OnWindow = Callable[[WindowResult, int, int], None]


class _Collector:
    """Windows in order; of what grows with the core, only what is small stays in memory."""

    def __init__(self, plan: SectionPlan, windows: Spill) -> None:
        self.windows = windows
        self.height_px = self.tile_count = self.uncovered = self.superpixels = 0
        self.preview = Preview(plan.preview_step)
        self.continued: list[Numbered] = []
        self.lost_rows: list[Ints] = [np.zeros(0, np.int64)]
        self._numbering = Numbering()
        self._edges = plan.grid.interval_rows
        self._core_px = np.zeros(len(self._edges) - 1, np.int64)

    def add(self, result: WindowResult) -> None:
        begun = self._numbering.count
        numbers = self._numbering.add(len(result.segments.area_px), result.seams)
        part = under_numbers(result.segments, numbers)
        kept = {LABELS: packed(result.labels), **segment_record(part), **tile_record(result.tiles)}
        if result.superpixels is not None:
            first, self.superpixels = self.superpixels, self.superpixels + len(result.superpixels.area_px)
            own = np.arange(first, self.superpixels)
            kept |= segment_record(under_numbers(result.superpixels, own), SUPERPIXELS)
        self.windows.append(kept)
        self.tile_count += len(result.tiles.row)
        if not self.continued or (numbers < begun).any():
            self.continued.append(part.between(0, begun))
        self.preview.add(result.preview, result.preview_mask)
        rows = self.height_px + np.arange(len(result.core_px))
        np.add.at(self._core_px, _interval(self._edges, rows), result.core_px)
        if result.lost is not None:
            self.lost_rows.append(rows[result.lost])
        self.uncovered += result.uncovered
        self.height_px += len(rows)

    def core_px(self, intervals: int) -> Ints:
        """Core pixels of the first intervals; a grid that was too high cuts them the same."""
        return self._core_px[:intervals].copy()


def collect_section(
    section: Section,
    source: RowSource,
    bundle: Bundle,
    lanes: Lanes,
    settings: RunSettings,
    spill: Path,
    on_window: OnWindow,
) -> CollectedSection:
    """Run every window of a section.

    Parameters
    ----------
    section : Section
    source : RowSource
        Its rows: of `open_section`, or live.
    bundle : Bundle
    lanes : Lanes
        They change no result.
    settings : RunSettings
    spill : Path
        File for what grows with the core. It has no name once it is open, so that nothing of it is left behind.
    on_window : callable
        Told the result of each window in order, the rows done, and the most rows there may be.

    Raises
    ------
    LithostreamError
        Naming the file, the place, the reason and the fix.
    OSError
        The disk of `spill` is full.
    """
    log = read_log(section.log, section.section) if section.log else None
    grid = section_grid(section, source, bundle.manifest.input, settings)
    planes = open_planes(section, bundle.manifest.input)
    known_instrument = bundle.manifest.domain.admits(section.scanner, section.px_per_cm)
    colours = calibrate(section, source.width_px)
    refines = bundle.refines(settings)
    plan = SectionPlan(
        grid, bundle.manifest, settings, planes, section.core_cm, known_instrument, colours.calibration
    )

    def work(block: Block, tools: Tools[Predictor]) -> WindowResult:
        return process_window(block, plan, tools)

    with ExitStack() as undo:
        kept = _Collector(plan, undo.enter_context(Spill(spill)))
        halo_px = halo_rows(grid.window_px) if refines else 0
        for result in lanes.map(work, blocks(source, grid, settings, halo_px)):
            kept.add(result)
            on_window(result, kept.height_px, grid.height_px)
        whole = grid.cut(kept.height_px)
        notes = section.notes + tuple(source.conversions) + (_log_notes(log) if log else ())
        notes += () if refines else (_superpixel_note(settings, bundle),)
        notes += colours.notes + _plane_notes(planes, kept.uncovered)
        notes += lost_notes(np.concatenate(kept.lost_rows), whole)
        found = _collected(section, plan, whole, kept, _on_intervals(log, whole), notes)
        undo.pop_all()
    return found


def _collected(
    section: Section,
    plan: SectionPlan,
    grid: Grid,
    kept: _Collector,
    measured: dict[str, Joined],
    notes: tuple[str, ...],
) -> CollectedSection:
    edges = grid.interval_rows
    lost = _interval(edges, np.concatenate(kept.lost_rows))
    return CollectedSection(
        section,
        grid,
        plan.known_instrument,
        plan.calibration is not None,
        kept.tile_count,
        kept.core_px(len(edges) - 1),
        np.bincount(lost, minlength=len(edges) - 1),
        kept.preview,
        kept.windows,
        joined(kept.continued),
        kept.superpixels > 0,
        measured,
        notes,
    )


def _interval(edges: Edges, rows: Ints) -> Ints:
    """Interval that each row lies in."""
    return np.searchsorted(edges, rows, side="right").astype(np.int64) - 1


def _on_intervals(log: SensorLog | None, grid: Grid) -> dict[str, Joined]:
    """Every column of a log, on the intervals."""
    edges = grid.interval_rows
    top, base = grid.depth_cm(edges[:-1]), grid.depth_cm(edges[1:])
    return {name: join(log, name, top, base) for name in log.values} if log else {}


def lost_notes(rows: Ints, grid: Grid) -> tuple[str, ...]:
    """Say how many lines never arrived, and where the first of them are missing; `rows` int64 [L] rise."""
    if not len(rows):
        return ()
    cuts = np.flatnonzero(np.diff(rows) > 1)
    top = grid.depth_cm(rows[np.append(0, cuts + 1)])
    base = grid.depth_cm(rows[np.append(cuts, len(rows) - 1)] + 1)
    named = list(zip(top[:_MOST_PLACES], base[:_MOST_PLACES], strict=True))
    places = ", ".join(f"{start:.2f}-{end:.2f} cm" for start, end in named)
    more = f", and {len(top) - len(named)} more places" if len(top) > len(named) else ""
    return (f"{len(rows)} lines lost: {places}{more}",)


def _superpixel_note(settings: RunSettings, bundle: Bundle) -> str:
    if not settings.segments:
        return "no segments and no minerals: segments is off"
    why = "the bundle holds no segmenter"
    if bundle.segmenter is not None:
        why = (
            "refine is off"
            if settings.refine is False
            else "the bundle's segmenter serves where refine is on"
        )
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
