"""Colour rules: what kind of thing a pixel shows, told from its colour alone.

A rule is a function of one pixel compiled with `numba.njit`: `rule(r, g, b) -> code`. It receives integers
0..255 wide enough to subtract, never uint8, and returns `CORE`, `DARK` (a crack where thin and inside the
core, otherwise a void or the frame) or `FOREIGN`; any other code counts as foreign.

The rule and the loop over pixels share this file because Numba renews its cache only when the file itself
changes: a threshold edited elsewhere would be ignored in silence.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from lithostream.kernels.jit import compiled

Rule = Callable[[Any, Any, Any], int]

CORE: Final = 0
DARK: Final = 1
FOREIGN: Final = 2

DARK_LIMIT: Final = 40
"""All channels below: open crack, deep shadow, black frame. The darkest whole core seen, wet lake mud, has 56."""

BOX_DARK_LIMIT: Final = 50
"""The same under the lamps of a photo stand, where gaps and plug holes catch stray light."""

WHITE_LEVEL: Final = 225
"""All channels at least this: foam, paper. Chalk is cream, not white: its blue stays near 200."""

COLD_LEVEL: Final = 160
"""All channels at least this and blue not below red: label pin, foil. Pale sediment and rock are warm."""

VIVID_CHROMA: Final = 96
"""Largest minus smallest channel above: orange cap, colour card. Yellow-brown soil (Munsell 10YR 6/6) has 92."""

COLD_EXCESS: Final = 32
"""Green or blue above both other channels by more: scan border, colour card. Gley clays reach about 15."""


@compiled
def sediment(r: int, g: int, b: int) -> int:
    """Classify a pixel of a split sediment core in a line scan."""
    high, low = max(r, g, b), min(r, g, b)
    if high < DARK_LIMIT:
        return DARK
    white = low >= WHITE_LEVEL or (low >= COLD_LEVEL and b >= r)
    vivid = high - low > VIVID_CHROMA or g - max(r, b) > COLD_EXCESS or b - max(r, g) > COLD_EXCESS
    return FOREIGN if white or vivid else CORE


@compiled
def box(r: int, g: int, b: int) -> int:
    """Classify a pixel of a core box photograph; cardboard and wood look like rock and count as core."""
    if max(r, g, b) < BOX_DARK_LIMIT:
        return DARK
    return FOREIGN if min(r, g, b) >= WHITE_LEVEL else CORE


RULES: Final[dict[str, Rule]] = {"sediment": sediment, "box": box}


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _classify(image: npt.NDArray[np.uint8], rule: Rule) -> npt.NDArray[np.uint8]:
    height, width, _ = image.shape
    classes = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            code = rule(np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2]))
            classes[y, x] = code if CORE <= code <= DARK else FOREIGN
    return classes


@compiled
def _classify_sediment(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    classes: npt.NDArray[np.uint8] = _classify(image, sediment)
    return classes


@compiled
def _classify_box(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    classes: npt.NDArray[np.uint8] = _classify(image, box)
    return classes


def classify(image: npt.NDArray[np.uint8], rule: Rule) -> npt.NDArray[np.uint8]:
    """Return the class code of every pixel, uint8 [H, W].

    The named rules are compiled once per machine; a rule of the caller's is compiled once per process.
    """
    classes: npt.NDArray[np.uint8]
    if rule is RULES["sediment"]:
        classes = _classify_sediment(image)
    elif rule is RULES["box"]:
        classes = _classify_box(image)
    else:
        classes = _classify(image, rule)
    return classes
