"""The picture of a map: probability with its legend, coordinates along the edges, known sites and the best targets."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lithostream.engine.maps.grid import Grid
from lithostream.engine.maps.sites import Sites
from lithostream.engine.report import style
from lithostream.engine.report.figure import style_lock

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_WIDTH, _LEAST, _MOST, _LEGEND, _EDGES = 10.8, 3.0, 14.0, 0.9, 0.9  # inches
_NUMBERED = 20  # targets that are marked
# Light to dark, even in lightness, read alike by the colour-blind: Paul Tol's "YlOrBr" (SRON/EPS/TN/09-002, 2021).
_COLOURS = ("#ffffe5", "#fff7bc", "#fee391", "#fec44f", "#fb9a29", "#ec7014", "#cc4c02", "#993404", "#662506")
_SCALE = LinearSegmentedColormap.from_list("probability", _COLOURS)
_SITE: dict[str, Any] = {
    "marker": "^",
    "color": "#4477aa",
    "markeredgecolor": "white",
    "markersize": 6.5,
    "linewidth": 0,
}
_POINT = 9.0


class Placed(NamedTuple):
    """Points with a probability."""

    x: Floats
    y: Floats
    probability: Floats


class Squares(NamedTuple):
    """A raster, made small.

    Attributes
    ----------
    grid : Grid
        Of the full raster, north up or not.
    step : int
        Pixels along the side of a square.
    probability : float64 [h, w]
    outside : bool [h, w]
        Squares out of the model's domain.
    """

    grid: Grid
    step: int
    probability: Floats
    outside: Bools


def map_svg(
    shown: Squares | Placed, sites: Sites | None, targets: Sequence[tuple[float, float]], degrees: bool
) -> bytes:
    """Draw a map; equal maps give equal bytes (per matplotlib version).

    Parameters
    ----------
    shown : Squares or Placed
    sites : Sites, optional
    targets : sequence of (x, y)
        The best first; some of them get their number.
    degrees : bool
        Whether x and y are degrees.
    """
    out = io.BytesIO()
    with style_lock, mpl.rc_context():
        mpl.rcdefaults()  # a personal matplotlibrc changes no report
        mpl.rcParams.update(style.FIGURE_STYLE)
        figure = _draw(shown, sites, targets, degrees)
        figure.savefig(
            out, format="svg", dpi=144, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return out.getvalue().replace(style.LAID_OUT_FONT.encode(), style.SHOWN_FONT.encode())


def _draw(
    shown: Squares | Placed, sites: Sites | None, targets: Sequence[tuple[float, float]], degrees: bool
) -> Figure:
    left, right, bottom, top = _extent(shown)
    stretch = 1 / max(np.cos(np.radians((bottom + top) / 2)), 0.05) if degrees else 1.0
    body = float(np.clip((_WIDTH - _EDGES) * (top - bottom) * stretch / (right - left), _LEAST, _MOST))
    height = body + _LEGEND + _EDGES / 2
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((_EDGES / _WIDTH, _EDGES / 2 / height, 1 - 1.2 * _EDGES / _WIDTH, body / height))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect(stretch, adjustable="box", anchor="NW")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    painted = _paint(axes, shown)
    handles = _marks(axes, sites, targets)
    if isinstance(shown, Squares):
        handles.append(Patch(facecolor=style.FLAGGED, alpha=0.75, label="unlike the training data"))
    scale = figure.add_axes((_EDGES / _WIDTH, 1 - 0.45 / height, 0.25, 0.13 / height))
    figure.colorbar(painted, cax=scale, orientation="horizontal")
    scale.set_title("probability", loc="left", size=8.5, weight="bold")
    scale.xaxis.set_major_locator(MaxNLocator(5))
    place: dict[str, Any] = {
        "loc": "upper left",
        "bbox_to_anchor": (_EDGES / _WIDTH + 0.29, 1 - 0.25 / height),
        "ncols": 3,
    }
    figure.legend(handles=handles, **place)
    return figure


def _extent(shown: Squares | Placed) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what is drawn."""
    if isinstance(shown, Squares):
        rows, columns = shown.grid.shape
        corners = [shown.grid.centre(r - 0.5, c - 0.5) for r in (0, rows) for c in (0, columns)]
        x, y = np.array(corners).T
        return x.min(), x.max(), y.min(), y.max()
    x, y = shown.x, shown.y
    if not len(x):
        return 0.0, 1.0, 0.0, 1.0
    air = 0.03 * max(float(np.ptp(x)), float(np.ptp(y))) or 1.0
    return x.min() - air, x.max() + air, y.min() - air, y.max() + air


def _paint(axes: Axes, shown: Squares | Placed) -> Any:
    if isinstance(shown, Placed):
        order = np.argsort(shown.probability, kind="stable")
        return axes.scatter(
            shown.x[order], shown.y[order], c=shown.probability[order], s=_POINT, cmap=_SCALE, vmin=0, vmax=1,
            edgecolors=style.QUIET, linewidths=0.2, rasterized=len(order) > 2000,
        )  # fmt: skip
    a, b, c, d, e, f = shown.grid.transform
    turn = mpl.transforms.Affine2D.from_values(a, d, b, e, c, f) + axes.transData
    rows, columns = (side * shown.step for side in shown.probability.shape)
    box: dict[str, Any] = {
        "extent": (0, columns, rows, 0),
        "interpolation": "nearest",
        "transform": turn,
        "aspect": "auto",
    }
    limits = axes.get_xlim(), axes.get_ylim(), axes.get_aspect()
    painted = axes.imshow(shown.probability, cmap=_SCALE, vmin=0, vmax=1, **box)
    veil = np.zeros((*shown.outside.shape, 4))
    veil[shown.outside] = mpl.colors.to_rgba(style.FLAGGED, 0.75)
    axes.imshow(veil, **box)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    axes.set_aspect(limits[2], adjustable="box", anchor="NW")
    return painted


def _marks(axes: Axes, sites: Sites | None, targets: Sequence[tuple[float, float]]) -> list[Any]:
    handles: list[Any] = []
    if sites is not None:
        axes.plot(sites.x, sites.y, **_SITE)
        handles.append(Line2D([], [], label="known site", **_SITE))
    for number, (x, y) in enumerate(targets[:_NUMBERED], 1):
        plate = {
            "boxstyle": "circle,pad=0.25",
            "facecolor": "white",
            "edgecolor": style.INK,
            "linewidth": 0.7,
        }
        axes.text(x, y, str(number), size=6.5, ha="center", va="center", bbox=plate, clip_on=True)
    if targets:
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                color="white",
                markeredgecolor=style.INK,
                label="target, by rank",
                linewidth=0,
            )
        )
    return handles
