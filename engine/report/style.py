"""Colours, sizes and fonts of the figures."""

from collections.abc import Sequence
from typing import Any

from lithostream.engine.core.minerals import PORE_WATER

INK, QUIET, RULE, GRID = "#1d2733", "#5d6976", "#c9cfd6", "#e8ecf0"
FLAGGED, FLAGGED_FACE = "#8a949f", "#f6f7f8"

# Lines and fills from Paul Tol's "bright" and "muted" schemes, made for colour-blind readers
# (technical note SRON/EPS/TN/09-002, 2021); pore water is a pale blue outside both.
LINES = ("#4477aa", "#aa3377", "#228833")
_WATER = "#dbe9f4"
_FILLS = ("#ddcc77", "#cc6677", "#88ccee", "#117733", "#332288", "#aa4499", "#44aa99", "#999933", "#882255")

FIGURE_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lithostream",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.7,
    "axes.labelcolor": QUIET,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "hatch.color": RULE,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.3,
    "legend.handlelength": 1.5,
    "legend.handletextpad": 0.6,
    "legend.columnspacing": 1.4,
    "legend.labelspacing": 0.4,
}

CURVE: dict[str, Any] = {"linewidth": 1.3}
FLAGGED_CURVE: dict[str, Any] = {"color": FLAGGED, "linewidth": 0.9}
TRUTH: dict[str, Any] = {"color": INK, "linewidth": 0.7, "dashes": (3.0, 2.0)}
LOG_POINT: dict[str, Any] = {
    "color": INK,
    "marker": "o",
    "linewidth": 0.0,
    "markersize": 2.8,
    "markerfacecolor": "white",
    "markeredgewidth": 0.6,
}
OUTSIDE: dict[str, Any] = {"facecolor": FLAGGED_FACE, "edgecolor": RULE, "hatch": "////", "linewidth": 0.0}
REMARK: dict[str, Any] = {
    "color": QUIET,
    "size": 7.5,
    "ha": "center",
    "va": "center",
    "bbox": {"facecolor": FLAGGED_FACE, "edgecolor": "none", "pad": 3.0},
}

# Text is laid out with the font that ships with matplotlib and shown in the reader's own, which is narrower.
LAID_OUT_FONT = "'DejaVu Sans'"
SHOWN_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def mineral_fills(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Fill of each mineral, in order; a second round of colours is dotted, so no two look alike."""
    fills: dict[str, dict[str, Any]] = {}
    solids = [name for name in names if name != PORE_WATER]
    for number, name in enumerate(solids):
        round_, colour = divmod(number, len(_FILLS))
        fills[name] = {"facecolor": _FILLS[colour], "edgecolor": "white", "hatch": "." * 3 * round_}
    return fills | {PORE_WATER: {"facecolor": _WATER, "edgecolor": "white", "hatch": ""}}
