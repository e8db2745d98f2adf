"""The mineral map of a section: each segment in the colour of the mineral that leads among its solids."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.colors as mcolors
import numpy as np
import numpy.typing as npt
from PIL import Image

from lithostream.engine.report import style
from lithostream.kernels.errors import ContractError

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.uint8]

# Share of the dry weight at which a colour deepens, and its strength from there on.
STEPS_PCT = (0.0, 40.0, 60.0, 80.0)
_STRENGTH = (0.35, 0.55, 0.78, 1.0)
_MOST_MINERALS = (256 - 2) // len(STEPS_PCT)
_NO_CORE, _UNKNOWN = (255, 255, 255), (225, 228, 232)


def map_index(dry_weight_pct: Floats) -> Index:
    """Place of segments in the palette: uint8 [S].

    0 is no core, 1 a segment without an answer; from 2 on, each mineral's four strengths in their order.

    Parameters
    ----------
    dry_weight_pct : float64 [S, E]
        NaN rows are segments without an answer.

    Raises
    ------
    ContractError
        More minerals than a palette has colours for.
    """
    count = dry_weight_pct.shape[1]
    if count > _MOST_MINERALS:
        raise ContractError(f"minerals: expected at most {_MOST_MINERALS}, got {count}")
    known = np.isfinite(dry_weight_pct).sum(axis=1) == count
    leading = np.argmax(np.nan_to_num(dry_weight_pct), axis=1)
    share = dry_weight_pct[np.arange(len(leading)), leading]
    step = np.searchsorted(STEPS_PCT, np.where(known, share, 0.0), side="right") - 1
    return np.where(known, 2 + leading * len(STEPS_PCT) + step.clip(min=0), 1).astype(np.uint8)


def write_mineral_map(
    path: Path, labels: Iterable[npt.NDArray[np.uint32]], index: Index, minerals: Sequence[str]
) -> None:
    """Write the map as palette PNG; equal input gives equal bytes.

    Parameters
    ----------
    path : Path
        File to write.
    labels : iterable of uint32 [h, w]
        Rows of the map from the top: 0 is no core, else segment + 1.
    index : uint8 [S]
        Of each segment, from `map_index`.
    minerals : sequence of str
        Names, in the order of the palette.
    """
    colours = np.concatenate([np.zeros(1, np.uint8), index])
    pixels = np.concatenate([colours[rows] for rows in labels])
    image = Image.fromarray(pixels, mode="P")
    image.putpalette(np.array(map_palette(minerals), np.uint8).tobytes())
    with path.open("wb") as file:
        image.save(file, format="PNG", compress_level=6)


def map_palette(minerals: Sequence[str]) -> list[tuple[int, int, int]]:
    """Colours of the map's indices, sRGB 0..255."""
    fills = style.mineral_fills(minerals)
    colours = [_NO_CORE, _UNKNOWN]
    for name in minerals:
        full = np.array(mcolors.to_rgb(fills[name]["facecolor"]))
        for strength in _STRENGTH:
            red, green, blue = (round(255 * float(c)) for c in 1.0 - strength * (1.0 - full))
            colours.append((red, green, blue))
    return colours
