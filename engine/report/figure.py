"""The strip log of one section: picture, properties and minerals on one depth axis, as SVG."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from lithostream.engine.core.tables import VOLUME_PCT, flags_of, floats_of, minerals_of, targets_of
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.report import style
from lithostream.engine.report.content import ReportSection
from lithostream.kernels.errors import ContractError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Inches. A metre of core fills about a screen; beyond the cap depth is compressed rather than endless.
_WIDTH, _INCH_PER_CM, _LEAST, _MOST = 11.0, 0.085, 3.2, 60.0
_LEFT, _RIGHT, _HOLE_AXIS, _GAP = 0.6, 0.15, 0.6, 0.22
_TITLE, _LEGEND_ROW, _FOOT = 0.7, 0.17, 0.3
_STRIP_NARROWEST, _STRIP_WIDEST = 0.5, 1.5
_TICK_EVERY = 0.55
_REMARK = 0.3  # least height of a hatched stretch that says what it is
_MINERALS_TO_PROPERTY = 1.7  # panel widths
_LEGEND_COLUMNS = 3

style_lock = Lock()  # matplotlib's settings belong to the whole process


def strip_log_svg(section: ReportSection) -> bytes:
    """Draw a section; equal sections give equal bytes (per matplotlib version).

    Raises
    ------
    ContractError
        Truth is given for some minerals only, or of another length than the table.
    """
    out = io.BytesIO()
    with style_lock, mpl.rc_context():
        mpl.rcdefaults()  # a personal matplotlibrc changes no report
        mpl.rcParams.update(style.FIGURE_STYLE)
        figure = _Drawing(section).draw()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue().replace(style.LAID_OUT_FONT.encode(), style.SHOWN_FONT.encode())


def spans(top: Floats, base: Floats, flag: Bools) -> Iterator[tuple[float, float]]:
    """Yield (top, base) of each unbroken run of flagged intervals."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flag, [False]])))
    for first, end in edges.reshape(-1, 2):
        yield float(top[first]), float(base[end - 1])


class _Drawing:
    """One figure in the making: the depth axis every panel shares, and where the next panel goes."""

    def __init__(self, section: ReportSection) -> None:
        self.section, self.table = section, section.intervals
        self.top, self.base = floats_of(self.table, "top_cm"), floats_of(self.table, "base_cm")
        self.outside = flags_of(self.table, "out_of_domain")
        self.minerals, self.targets = minerals_of(self.table), targets_of(self.table)
        self.limits = float(self.base.max()), float(self.top.min())
        self.body = float(np.clip((self.limits[0] - self.limits[1]) * _INCH_PER_CM, _LEAST, _MOST))
        self.depth_ticks = max(4, int(self.body / _TICK_EVERY))
        legend_rows = max(-(-len(self.minerals) // _LEGEND_COLUMNS), 2)
        self.height = _TITLE + _LEGEND_ROW * legend_rows + self.body + _FOOT
        self.figure = Figure(figsize=(_WIDTH, self.height))
        self.next_inch = _LEFT

    def draw(self) -> Figure:
        hole_m = _hole_edges(self.table)
        last = self._strip()
        if self.section.mineral_map:
            last = self._map(self.section.mineral_map)
        curves_inch = self.next_inch
        free = _WIDTH - curves_inch - (_RIGHT if hole_m is None else _HOLE_AXIS)
        shares = len(self.targets) + _MINERALS_TO_PROPERTY * bool(self.minerals)
        unit = (free - _GAP * (len(self.targets) + bool(self.minerals) - 1)) / shares
        for number, name in enumerate(self.targets):
            last = self._property(name, style.LINES[number % len(style.LINES)], unit)
        self._legend(self._curve_handles(), curves_inch)
        if self.minerals:
            last = self._abundances(unit * _MINERALS_TO_PROPERTY)
        if hole_m is not None:
            self._hole_axis(last, hole_m)
        return self.figure

    def _panel(self, width: float, title: str, subtitle: str) -> Axes:
        rect = (self.next_inch / _WIDTH, _FOOT / self.height, width / _WIDTH, self.body / self.height)
        axes = self.figure.add_axes(rect)
        self.next_inch += width + _GAP
        axes.set_ylim(*self.limits)
        axes.yaxis.set_major_locator(MaxNLocator(self.depth_ticks, steps=[1, 2, 5, 10]))
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=True, left=False, labelleft=False)
        axes.grid(True)
        axes.set_axisbelow(True)
        axes.spines[["right", "bottom"]].set_visible(False)
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(title, (0, 1), xytext=(0, 31), weight="bold", size=8.5, **place)
        axes.annotate(subtitle, (0, 1), xytext=(0, 20), color=style.QUIET, size=7.5, **place)
        return axes

    def _strip(self) -> Axes:
        """Draw the picture, in true proportions where they fit."""
        pixels = _pixels(self.section.strip)
        to_scale = _STRIP_NARROWEST <= self._true_inch(pixels) <= _STRIP_WIDEST
        axes = self._picture(pixels, "Core", "" if to_scale else "not to scale across")
        axes.tick_params(left=True, labelleft=True)
        axes.set_ylabel("section offset, cm", loc="top")
        return axes

    def _map(self, path: Path) -> Axes:
        """Draw the leading minerals beside the picture."""
        return self._picture(_pixels(path), "Main solid", "darker: more")

    def _picture(self, pixels: npt.NDArray[np.uint8], title: str, subtitle: str) -> Axes:
        inch = float(np.clip(self._true_inch(pixels), _STRIP_NARROWEST, _STRIP_WIDEST))
        axes = self._panel(inch, title, subtitle)
        axes.grid(False)
        extent = (0.0, 1.0, *self.limits)
        axes.imshow(pixels, extent=extent, aspect="auto", interpolation="none")
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        return axes

    def _true_inch(self, pixels: npt.NDArray[np.uint8]) -> float:
        """Width at which a picture is to scale with the depth axis."""
        height, width = pixels.shape[:2]
        return float(width / height * self.body)

    def _property(self, name: str, colour: str, width: float) -> Axes:
        target, known = TARGETS[name], ~self.outside
        axes = self._panel(width, target.label[0].upper() + target.label[1:], target.unit)
        value, low, high, measured = (
            floats_of(self.table, name + suffix) for suffix in ("", "_low", "_high", "_measured")
        )
        truth = self._checked(self.section.true_properties.get(name, np.full(len(value), np.nan)))
        depth, left = self._steps(np.where(known, low, np.nan))
        _, right = self._steps(np.where(known, high, np.nan))
        self._hatch(axes)
        axes.fill_betweenx(depth, left, right, color=colour, alpha=0.2, linewidth=0)
        axes.plot(self._steps(np.where(known, np.nan, value))[1], depth, **style.FLAGGED_CURVE)
        axes.plot(self._steps(np.where(known, value, np.nan))[1], depth, color=colour, **style.CURVE)
        axes.plot(self._steps(truth)[1], depth, **style.TRUTH)
        axes.plot(measured, (self.top + self.base) / 2.0, **style.LOG_POINT)
        _fit(axes, np.concatenate([value, low[known], high[known], measured, truth]))
        return axes

    def _abundances(self, width: float) -> Axes:
        left_inch = self.next_inch
        axes = self._panel(width, "Minerals", "% of the bulk volume, pore water included")
        self._hatch(axes, "out of domain: no mineral % is given")
        fills = style.mineral_fills(self.minerals)
        depth, left = self._steps(np.zeros(len(self.top)))
        total = np.zeros(len(self.top))
        for name in self.minerals:
            total = total + floats_of(self.table, name + VOLUME_PCT)
            _, right = self._steps(total)
            axes.fill_betweenx(depth, left, right, linewidth=0, **fills[name])
            left = right
        for share in self._true_shares():
            axes.plot(self._steps(share)[1], depth, **style.TRUTH)
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        self._legend(
            [Patch(label=name.replace("_", " "), **fills[name]) for name in self.minerals], left_inch
        )
        return axes

    def _true_shares(self) -> Sequence[Floats]:
        """Cumulated truth up to each mineral but the last, whose edge is the panel's own."""
        truth = self.section.true_volume_pct
        if truth and (missing := sorted(set(self.minerals) - set(truth))):
            raise ContractError(f"true_volume_pct: expected every mineral of the table, missing {missing}")
        return list(np.cumsum([self._checked(truth[name]) for name in self.minerals if truth], axis=0)[:-1])

    def _checked(self, truth: Floats) -> Floats:
        if truth.shape != self.top.shape:
            raise ContractError(f"truth: expected float64 [{len(self.top)}], got {list(truth.shape)}")
        return truth

    def _steps(self, values: Floats) -> tuple[Floats, Floats]:
        """Outline of blocks, one per interval: depth and value, broken at NaN and where depth is missing."""
        adjoins = np.append(np.isclose(self.base[:-1], self.top[1:]), False)
        depth = np.stack([self.top, self.base, self.base], axis=1)
        outline = np.stack([values, values, np.where(adjoins, values, np.nan)], axis=1)
        return depth.ravel(), outline.ravel()

    def _hatch(self, axes: Axes, remark: str = "") -> None:
        for top, base in spans(self.top, self.base, self.outside):
            axes.axhspan(top, base, zorder=0.6, **style.OUTSIDE)
            if remark and (base - top) / (self.limits[0] - self.limits[1]) * self.body > _REMARK:
                axes.text(50.0, (top + base) / 2.0, remark, **style.REMARK)

    def _curve_handles(self) -> list[Artist]:
        handles: list[Artist] = [
            Line2D([], [], color=style.INK, label="predicted", **style.CURVE),
            Patch(facecolor=style.INK, alpha=0.2, label="90 % interval"),
        ]
        if any(np.isfinite(floats_of(self.table, f"{name}_measured")).any() for name in self.targets):
            handles.append(Line2D([], [], label="sensor log", **style.LOG_POINT))
        if self.section.true_properties or self.section.true_volume_pct:
            handles.append(Line2D([], [], label="truth", **style.TRUTH))
        if self.outside.any():
            handles.append(Patch(label="out of domain", **style.OUTSIDE))
        return handles

    def _legend(self, handles: Sequence[Artist], inch: float) -> None:
        corner = (inch / _WIDTH, 1.0)
        self.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, ncols=_LEGEND_COLUMNS)

    def _hole_axis(self, axes: Axes, hole_m: Floats) -> None:
        """Put round hole depths where they lie; none beyond the section."""
        ticks = MaxNLocator(self.depth_ticks, steps=[1, 2, 5, 10]).tick_values(hole_m[0], hole_m[-1])
        ticks = ticks[(ticks >= hole_m[0]) & (ticks <= hole_m[-1])]
        right = axes.twinx()
        right.set_ylim(*self.limits)
        places_cm = np.interp(ticks, hole_m, np.append(self.top, self.base[-1]))
        right.set_yticks(places_cm, [f"{depth:.6g}" for depth in ticks])
        right.spines[["bottom", "left"]].set_visible(False)
        scale = self.table["depth_scale"][0].as_py()
        right.set_ylabel(f"hole depth, m{f' {scale}' if scale else ''}", loc="top")


def _hole_edges(table: pa.Table) -> Floats | None:
    """Hole depth of every interval edge, m [I + 1]; None unless it is known and increases."""
    edges = np.append(floats_of(table, "top_m"), floats_of(table, "base_m")[-1])
    return edges if bool((np.diff(edges) > 0).all()) else None


def _pixels(strip: Path | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if isinstance(strip, np.ndarray):
        return strip
    with Image.open(strip) as image:
        return np.asarray(image.convert("RGB"))


def _fit(axes: Axes, drawn: Floats) -> None:
    """Show every finite value with a little air; no scale where there is nothing to show."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        axes.set_xticks([])
        return
    air = 0.05 * np.ptp(drawn) or 0.05 * abs(drawn[0]) or 1.0
    axes.set_xlim(drawn.min() - air, drawn.max() + air)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
