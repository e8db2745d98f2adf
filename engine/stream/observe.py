"""One thing for the runner to call: what happens to its sections is told as events and counted as metrics."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.grid import Edges, Grid
from lithostream.engine.core.lane import WindowResult
from lithostream.engine.errors import LithostreamError
from lithostream.engine.manifest import Manifest
from lithostream.engine.stream.events import Events, Subject
from lithostream.engine.stream.metering import Live
from lithostream.engine.stream.metrics import Amounts, Metrics

CM_PER_M = 100.0

Values = dict[str, object]
Bools = npt.NDArray[np.bool_]


class News(NamedTuple):
    """What a window has for those who follow a run, ready for JSON.

    Attributes
    ----------
    reading : dict
        See `reading`.
    gaps : list of dict
        See `gaps`.
    lost : int
        Rows that no line came for.
    rows : list of int
        First row of each tile row.
    done : Amounts
    """

    reading: Values
    gaps: list[Values]
    lost: int
    rows: list[int]
    done: Amounts


class SectionWatch:
    """Tells and counts what becomes of one section, from `Observer.begin` on.

    Parameters
    ----------
    events : Events
    metrics : Metrics
    subject : Subject
    grid : Grid
        Of an open-ended source, that of the most it may hold.
    manifest : Manifest
    """

    def __init__(
        self, events: Events, metrics: Metrics, subject: Subject, grid: Grid, manifest: Manifest
    ) -> None:
        self._events, self._metrics = events, metrics
        self._subject, self._grid, self._manifest = subject, grid, manifest

    def window(self, result: WindowResult, rows_px: int) -> None:
        """Tell a window's readings and gaps, then count it; `rows_px` rows of the section end with it."""
        self.tell(window_news(result, rows_px, self._grid, self._manifest))

    def tell(self, news: News) -> None:
        """Tell what a window has, then count it."""
        self._events.tell("rows", self._subject, **news.reading)
        for gap in news.gaps:
            self._events.tell("gap", self._subject, **gap)
        self._metrics.window(self._subject.section, lost=news.lost, rows=news.rows, done=news.done)

    def committed(self, folder: str) -> None:
        """Tell that the section's folder is in place and in the ledger."""
        self._metrics.ended(self._subject.section, "committed")
        self._events.tell("committed", self._subject, folder=folder)


class Observer:
    """Events and metrics of a run.

    Parameters
    ----------
    events : Events
        Without sinks, nobody is told.
    metrics : Metrics
    """

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self.events, self.metrics = events, metrics

    def started(self, bundle: Bundle, backend: str) -> None:
        """Tell with what the run goes about its sections."""
        self.events.tell("started", bundle=bundle.manifest.name, bundle_sha256=bundle.sha256, backend=backend)

    def begin(
        self, subject: Subject, image: str, grid: Grid, manifest: Manifest, live: Live | None = None
    ) -> SectionWatch:
        """Tell that a section begins; begins it anew where an attempt came before.

        Parameters
        ----------
        subject : Subject
        image : str
            Its name.
        grid : Grid
        manifest : Manifest
        live : Live, optional
            Its lines, where the source is open-ended.
        """
        rows = grid.height_px if live is None else None
        self.metrics.begun(subject.section, grid.height_px if live is None else live)
        self.events.tell("begun", subject, image=image, px_per_cm=grid.px_per_cm, rows=rows)
        return SectionWatch(self.events, self.metrics, subject, grid, manifest)

    def refused(self, subject: Subject, error: LithostreamError) -> None:
        """Tell why an input has no result, whether it was begun or not."""
        self.metrics.ended(subject.section, "refused")
        self.events.tell("refused", subject, **error.as_json())

    def unchanged(self, subject: Subject, folder: str) -> None:
        """Tell that a section was committed before, from the same input."""
        self.metrics.ended(subject.section, "unchanged")
        self.events.tell("unchanged", subject, folder=folder)

    def finished(self, sections: int, refused: int) -> None:
        """Tell that every input has been seen to."""
        self.events.tell("finished", sections=sections, refused=refused)

    def stopped(self, error: BaseException) -> None:
        """Tell what ends the run early; never raises for a reader that has gone."""
        reason = error.reason if isinstance(error, LithostreamError) else str(error)
        self.events.tell("stopped", error=type(error).__name__, reason=reason)


def window_news(result: WindowResult, rows_px: int, grid: Grid, manifest: Manifest) -> News:
    """Return a window's readings, gaps and amounts; `rows_px` rows of the section end with it."""
    height = len(result.core_px)
    lost = np.zeros(height, np.bool_) if result.lost is None else result.lost
    metres = height / grid.px_per_cm / CM_PER_M
    return News(
        reading(result, rows_px, grid, manifest),
        gaps(lost, rows_px - height, grid),
        int(np.count_nonzero(lost)),
        tile_edges(result, rows_px, grid)[:-1].tolist(),
        Amounts(height, height * grid.width_px, len(result.tiles.row), metres),
    )


def reading(result: WindowResult, rows_px: int, grid: Grid, manifest: Manifest) -> Values:
    """Return what a window says of its depths: means over its tile rows, weighted by core area as in the intervals.

    Parameters
    ----------
    result : WindowResult
    rows_px : int
        Rows of the section up to the window's end.
    grid : Grid
    manifest : Manifest
    """
    first_px, edges = rows_px - len(result.core_px), tile_edges(result, rows_px, grid)
    found = result.tiles
    count, row = len(edges) - 1, found.row - np.searchsorted(grid.tile_rows, edges[0])
    weight = np.bincount(row, found.core_fraction, minlength=count)
    weighted = found.core_fraction[:, None] * np.column_stack([found.properties, found.out_of_domain])
    known = np.where(weight > 0, weight, np.nan)
    means = np.stack([np.bincount(row, value, minlength=count) / known for value in weighted.T], axis=1)
    tiles = np.bincount(row, minlength=count)
    core_px = np.concatenate([[0], np.cumsum(result.core_px)])[edges - first_px]
    core_fraction = np.diff(core_px) / (np.diff(edges) * grid.width_px)
    depth_cm = grid.depth_cm(edges)
    names = [output.name for output in manifest.outputs]
    tile_rows = [
        {
            "top_cm": float(depth_cm[place]),
            "base_cm": float(depth_cm[place + 1]),
            "tiles": int(tiles[place]),
            "core_fraction": float(core_fraction[place]),
            "out_of_domain": bool(means[place, -1] > 0.5) if tiles[place] else None,
            "properties": dict(zip(names, map(_number, means[place, :-1]), strict=True)),
        }
        for place in range(count)
    ]
    return {
        "rows": rows_px,
        "top_cm": float(grid.depth_cm(first_px)),
        "base_cm": float(grid.depth_cm(rows_px)),
        "units": {output.name: output.unit for output in manifest.outputs},
        "tile_rows": tile_rows,
    }


def tile_edges(result: WindowResult, rows_px: int, grid: Grid) -> Edges:
    """Return the row edges of a window's whole tiles, int64 [R + 1]; of a window without one, its first row."""
    first_px, edges = rows_px - len(result.core_px), grid.tile_rows
    found = edges[(edges >= first_px) & (edges <= rows_px)]
    return found if len(found) else np.array([first_px])


def gaps(lost: Bools, first_px: int, grid: Grid) -> list[Values]:
    """Return the runs of rows that never arrived; `lost` begins at row `first_px` of the section."""
    steps = np.flatnonzero(np.diff(lost, prepend=False, append=False))
    return [
        {
            "top_cm": float(grid.depth_cm(first_px + top)),
            "base_cm": float(grid.depth_cm(first_px + base)),
            "lines": int(base - top),
        }
        for top, base in steps.reshape(-1, 2)
    ]


def _number(value: float) -> float | None:
    """Return what JSON can hold."""
    return float(value) if np.isfinite(value) else None
