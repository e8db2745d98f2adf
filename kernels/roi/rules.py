"""Colour rules: what kind of thing a pixel shows, told from its colour alone.

A rule is a function of one pixel compiled with `numba.njit`: `rule(r, g, b) -> code`. It receives integers
0..255 wide enough to subtract, never uint8, and returns `CORE`, `DARK` (a crack where thin and inside the
core, otherwise a void or the frame) or `FOREIGN`; any other code counts as foreign. Conditions joined by `|` and
`&` instead of `or` and `and` let the compiler judge many pixels at once.

Which rule: `sediment` for split cores in line scans, on a dark background as well; `box` where rock of any colour
lies in cardboard, which counts as core with all else that is not dark; `white_tray`, `coloured_liner` and `divided_box` where the holder must go.
The last three are stated in OpenCV's HSV (`COLOR_RGB2HSV`: hue in half degrees, 0..255 otherwise) and tell every
colour as `inRange` does, but for at most 0.04 % whose hue lies within 0.16 steps of where it is rounded up: OpenCV
multiplies up to 5 * 255 by a reciprocal that is off by up to 0.5 / 4096.

The rules and the loops over pixels share this file because Numba renews its cache only when the file itself
changes: a threshold edited elsewhere would be ignored in silence.
"""

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from lithostream.kernels.jit import compiled
from lithostream.kernels.roi.prefetch import prefetch

Bytes = npt.NDArray[np.uint8]
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

WHITE_SATURATION, WHITE_VALUE = 12, 180
"""HSV saturation at most and value at least: white plastic, lit or in half shade. Chalk has 14 or more."""

LINER_HUE: Final = (35, 140)
"""HSV hue from yellowish green to violet blue: plastic liners and trays."""

LINER_SATURATION, LINER_VALUE = 78, 40
"""HSV saturation and value at least. Gley clays reach a saturation of about 40, glauconite sand about 60."""

WOOD_HUE: Final = (8, 24)
"""HSV hue from orange to yellow: wood, cardboard."""

WOOD_SATURATION, WOOD_VALUE = 35, 100
"""HSV saturation and value at least. Cardboard of BGS box photographs: 49..66 and 109..157."""


@compiled
def _saturated(r: int, g: int, b: int, level: int) -> bool:
    """HSV saturation 255 * chroma / value, rounded, at least `level`; multiplied out, true of black.

    `np.int32` keeps Numba from 64 bits, half as many lanes, here and below.
    """
    high = max(r, g, b)
    return bool(np.int32(510 * np.int32(high - min(r, g, b))) >= np.int32((2 * level - 1) * high))


@compiled
def _hue_within(r: int, g: int, b: int, low: int, high: int) -> bool:
    """HSV hue in half degrees, rounded, within low..high, both inside 1..149; false of grey.

    30 * turn / chroma is the hue, counted from the sector of the largest channel (Smith 1978, SIGGRAPH 12:12-19).
    """
    value = max(r, g, b)
    chroma = np.int32(value - min(r, g, b))
    green, blue = np.int32(b - r + 2 * chroma), np.int32(r - g + 4 * chroma)
    turn = np.int32(60 * (np.int32(g - b) if r == value else (green if g == value else blue)))
    return bool((np.int32((2 * low - 1) * chroma) <= turn) & (turn < np.int32((2 * high + 1) * chroma)))


@compiled
def _is_white(r: int, g: int, b: int) -> bool:
    return (not _saturated(r, g, b, WHITE_SATURATION + 1)) & (max(r, g, b) >= WHITE_VALUE)


@compiled
def _is_liner(r: int, g: int, b: int) -> bool:
    hue = _hue_within(r, g, b, LINER_HUE[0], LINER_HUE[1])
    return hue & _saturated(r, g, b, LINER_SATURATION) & (max(r, g, b) >= LINER_VALUE)


@compiled
def sediment(r: int, g: int, b: int) -> int:
    """Classify a pixel of a split sediment core in a line scan; the rule for a black or dark background, too."""
    high, low = max(r, g, b), min(r, g, b)
    white = (low >= WHITE_LEVEL) | ((low >= COLD_LEVEL) & (b >= r))
    green, blue = np.int32(g - max(r, b)), np.int32(b - max(r, g))
    foreign = white | (np.int32(high - low) > VIVID_CHROMA) | (green > COLD_EXCESS) | (blue > COLD_EXCESS)
    return DARK if high < DARK_LIMIT else (FOREIGN if foreign else CORE)


@compiled
def box(r: int, g: int, b: int) -> int:
    """Classify a pixel of a core box photograph; cardboard and wood look like rock and count as core.

    So does white: a few bright grains of a conglomerate, taken for labels, would cost it whole rows.
    """
    return DARK if max(r, g, b) < BOX_DARK_LIMIT else CORE


@compiled
def white_tray(r: int, g: int, b: int) -> int:
    """Classify a pixel of core in a white tray; quartz and marble as white as the tray go with it."""
    foreign = _is_white(r, g, b)
    return DARK if max(r, g, b) < DARK_LIMIT else (FOREIGN if foreign else CORE)


@compiled
def coloured_liner(r: int, g: int, b: int) -> int:
    """Classify a pixel of core in a green or blue liner or tray, lit or in shade."""
    foreign = _is_liner(r, g, b)
    return DARK if max(r, g, b) < DARK_LIMIT else (FOREIGN if foreign else CORE)


@compiled
def divided_box(r: int, g: int, b: int) -> int:
    """Classify a pixel of a box photograph where dividers of wood, cardboard or plastic part rows of core.

    Pale brown and yellow rock has the colours of wood and goes with it: use `box` there, or a rule of your own.
    """
    wood = (
        _hue_within(r, g, b, WOOD_HUE[0], WOOD_HUE[1])
        & _saturated(r, g, b, WOOD_SATURATION)
        & (max(r, g, b) >= WOOD_VALUE)
    )
    foreign = wood | _is_white(r, g, b) | _is_liner(r, g, b)
    return DARK if max(r, g, b) < BOX_DARK_LIMIT else (FOREIGN if foreign else CORE)


RULES: Final[dict[str, Rule]] = {
    rule.__name__: rule for rule in (sediment, box, white_tray, coloured_liner, divided_box)
}

CHUNK: Final = 64
"""Pixels judged at once before asking whether any was core."""

ROWS_AHEAD: Final = 3
"""How far ahead memory is asked for: the time of that many rows hides its latency."""

rule: Rule = sediment  # stands for the rule that `with_rule` puts in its place


@lru_cache(maxsize=32)
def with_rule(kernel: Any, own: Any) -> Callable[..., Any]:
    """Return a kernel of this file with a rule in it.

    Numba keeps machine code only of functions that take no function as an argument or from a closure, so each
    named rule gets a copy of the kernel, compiled once per machine; a caller's own is compiled once per process.
    """
    twin = FunctionType(kernel.__code__, {**globals(), "rule": own}, f"{kernel.__name__}_{own.__name__}")
    twin.__qualname__ = twin.__name__
    return compiled(twin) if own in RULES.values() else njit(nogil=True)(twin)


def classify(flat: Bytes, pitch: int, classes: Bytes) -> None:
    """Write the class code of every pixel; rows of `flat` begin every `pitch` bytes."""
    height, width = classes.shape
    for y in range(height):
        line = classes[y]
        start = np.uint64(y * pitch)
        for x in range(np.uint64(width)):
            code = _code(flat, start + np.uint64(3) * x, rule)
            line[x] = code if CORE <= code <= DARK else FOREIGN


def scan(
    flat: Bytes,
    pitch: int,
    width: int,
    need: int,
    gap_px: int,
    rows: npt.NDArray[np.bool_],
    boxes: npt.NDArray[np.int64],
) -> int:
    """Mark the rows with at least `need` core pixels, and box them; returns the number of boxes.

    Inside the limits found so far only as much of a row is read as it takes to tell whether it counts.
    """
    found, start = -1, 0
    for y in range(len(rows)):
        at = y * pitch
        hit = _enough(flat, pitch, at, width, need, start, rule)
        if hit < 0:
            continue
        start = hit
        rows[y] = True
        if found < 0 or y - boxes[found, 2] >= gap_px:
            found += 1
            boxes[found] = (y, width, y, 0)
        boxes[found, 1] = _first_core(flat, pitch, at, boxes[found, 1], rule)
        boxes[found, 2] = y + 1
        boxes[found, 3] = _last_core(flat, pitch, at, width, boxes[found, 3], rule)
    return found + 1


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _code(flat: Bytes, at: np.uint64, rule: Rule) -> int:
    """Class code of the pixel at a byte; unsigned, since Numba reads a negative index from the end."""
    code: int = rule(np.int32(flat[at]), np.int32(flat[at + np.uint64(1)]), np.int32(flat[at + np.uint64(2)]))
    return code


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _count(flat: Bytes, pitch: int, at: int, n: int, rule: Rule) -> int:
    """Core pixels among the `n` <= CHUNK from byte `at` on; always judges CHUNK, and counts those asked for."""
    skip = max(0, (at + 3 * CHUNK - flat.size + 2) // 3)  # at the end of the picture, those before instead
    start, low, high = np.uint64(at - 3 * skip), np.uint64(skip), np.uint64(skip + n)
    for line in range(0, 3 * CHUNK, 64):
        prefetch(flat, at + ROWS_AHEAD * pitch + line)
    count = np.uint8(0)
    for i in range(np.uint64(CHUNK)):
        is_core = _code(flat, start + np.uint64(3) * i, rule) == CORE
        count += np.uint8(is_core & (i >= low) & (i < high))
    return int(count)


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _enough(flat: Bytes, pitch: int, at: int, width: int, need: int, start: int, rule: Rule) -> int:
    """First chunk with core, going round from `start`, if the row holds `need` core pixels, else -1."""
    chunks = (width + CHUNK - 1) // CHUNK
    count, left, hit = 0, width, -1
    for k in range(start, start + chunks):
        chunk = k if k < chunks else k - chunks
        n = min(CHUNK, width - chunk * CHUNK)
        count += _count(flat, pitch, at + 3 * CHUNK * chunk, n, rule)
        left -= n
        if hit < 0 and count > 0:
            hit = chunk
        if count >= need:
            return hit
        if count + left < need:
            return -1
    return -1


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _first_core(flat: Bytes, pitch: int, at: int, limit: int, rule: Rule) -> int:
    """First core pixel of a row before `limit`, or that."""
    for start in range(0, limit, CHUNK):
        n = min(CHUNK, limit - start)
        if _count(flat, pitch, at + 3 * start, n, rule) > 0:
            x = start
            while _code(flat, np.uint64(at + 3 * x), rule) != CORE:
                x += 1
            return x
    return limit


@njit(nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _last_core(flat: Bytes, pitch: int, at: int, width: int, limit: int, rule: Rule) -> int:
    """End of the last core pixel of a row from `limit` on, or that."""
    stop = width
    while stop > limit:
        n = min(CHUNK, stop - limit)
        if _count(flat, pitch, at + 3 * (stop - n), n, rule) > 0:
            while _code(flat, np.uint64(at + 3 * (stop - 1)), rule) != CORE:
                stop -= 1
            return stop
        stop -= n
    return limit
