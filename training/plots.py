"""Predictions against readings along depth: one PNG per section."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lithostream.engine.core.targets import TARGETS
from lithostream.engine.report import style
from lithostream.engine.report.figure import spans
from lithostream.training.data.profile import Rows

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_PANEL, _MARGIN, _HEIGHT, _DPI = 2.6, 0.8, 7.0, 110  # inches; dots per inch


class RowValues(NamedTuple):
    """What is predicted for labelled rows.

    Attributes
    ----------
    value, low, high : float64 [R, T]
        Prediction and 90 % interval.
    outside : bool [R]
        Rows out of the model's domain.
    """

    value: Floats
    low: Floats
    high: Floats
    outside: Bools

    def of_rows(self, keep: npt.NDArray[np.intp]) -> "RowValues":
        """Return the rows `keep` [r], in that order."""
        return RowValues(self.value[keep], self.low[keep], self.high[keep], self.outside[keep])


def write_plots(folder: Path, tiles: Rows, found: RowValues) -> list[Path]:
    """Draw each section with labelled rows: depth down, readings as points, prediction and 90 % band.

    Parameters
    ----------
    folder : Path
        Existing folder; a file is named after its section.
    tiles : Rows
    found : RowValues
        Rows out of the domain are shaded.
    """
    paths = []
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style.FIGURE_STYLE)
        for index in np.unique(tiles.section):
            keep = tiles.section == index
            path = folder / f"{tiles.sections[index].name}.png"
            here = np.flatnonzero(keep)
            figure = _draw(tiles, here[np.argsort(tiles.top_cm[here], kind="stable")], found)
            figure.suptitle(tiles.sections[index].name, x=0.02, ha="left", weight="bold", size=9)
            figure.savefig(path, dpi=_DPI, metadata={"Software": None})
            paths.append(path)
    return paths


def _draw(tiles: Rows, order: npt.NDArray[np.intp], found: RowValues) -> Figure:
    width = _MARGIN + _PANEL * max(2, len(tiles.targets))
    figure = Figure(figsize=(width, _HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(tiles.targets), sharey=True, squeeze=False)[0]
    top, base, shown = tiles.top_cm[order], tiles.base_cm[order], found.of_rows(order)
    for column, (name, axes) in enumerate(zip(tiles.targets, panels, strict=True)):
        colour = style.LINES[column % len(style.LINES)]
        for start, end in spans(top, base, shown.outside):
            axes.axhspan(start, end, zorder=0.6, **style.OUTSIDE)
        depth, line = _broken(top, base, shown.value[:, column])
        low, high = (_broken(top, base, part[:, column])[1] for part in (shown.low, shown.high))
        axes.fill_betweenx(depth, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(line, depth, color=colour, **style.CURVE)
        axes.plot(tiles.measured[order, column], 0.5 * (top + base), **style.LOG_POINT)
        _dress(axes, name)
    panels[0].set_ylim(base.max(), top.min())
    panels[0].set_ylabel("section offset, cm", loc="top")
    figure.legend(handles=_handles(bool(shown.outside.any())), loc="outside lower left", ncols=4)
    return figure


def _broken(top: Floats, base: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Middles of the rows and their values, with a NaN between rows that do not adjoin: a gap stays blank."""
    gaps = np.flatnonzero(top[1:] > base[:-1] + 1e-6) + 1
    return np.insert(0.5 * (top + base), gaps, np.nan), np.insert(value, gaps, np.nan)


def _dress(axes: Axes, name: str) -> None:
    known = TARGETS[name]
    axes.set_title(f"{known.label[0].upper()}{known.label[1:]}, {known.unit}", loc="left", size=8.5)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)


def _handles(outside: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=style.INK, label="predicted", **style.CURVE),
        Patch(facecolor=style.INK, alpha=0.2, label="90 % interval"),
        Line2D([], [], label="sensor log", **style.LOG_POINT),
    ]
    if outside:
        handles.append(Patch(label="out of domain", **style.OUTSIDE))
    return handles
