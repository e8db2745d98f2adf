"""The core region on a GPU: kernels queued one after the other, one wait of the host at the end."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.kernels.arrays import output
from lithostream.kernels.launch import Launch, each, each_row, queue
from lithostream.kernels.loader import cupy
from lithostream.kernels.roi import bit_planes
from lithostream.kernels.roi.boxes import Box
from lithostream.kernels.roi.rules import Rule

Mask = npt.NDArray[np.bool_]


def core_roi(
    image: Any,
    rule: Rule,
    crack_px: int,
    min_row_fraction: float,
    min_piece_px: int,
    alpha: Any | None,
    out: Any | None,
    stream: object | None,
) -> tuple[Mask, Mask, Box | None]:
    """Return mask, rows and box as `lithostream.kernels.roi.core_roi`, for arguments proven there but for `out`.

    The host waits once, for the box. Scratch: 9/8 byte per pixel, of a width rounded up to 64, and 48 per row.
    """
    height, width, _ = image.shape
    half_px, rim_px = (crack_px + 1) // 2, (crack_px + 3) // 4
    xp = cupy()
    with queue(stream) as launch:
        mask = output("out", out, dtype=np.bool_, shape=(height, width), empty=xp.empty)
        rows = xp.zeros(height, np.bool_)
        if height * width == 0:
            return mask, rows, None
        planes = _classified(image, rule, alpha, launch)
        wide = _widened(planes[:2], half_px, rim_px, width, True, launch)  # dark shrunk, foreign spread, not
        wide = _widened(wide, half_px, 0, width, False, launch)  # the voids; what is free of foreign bodies
        limits, smooth = xp.empty((2, height), np.int64), xp.empty((2, height), np.int64)
        launch(bit_planes.row_limits, each(height), planes, crack_px, limits)
        reach = min(crack_px, height)
        launch(bit_planes.smooth_limits, each(height * (2 * reach + 1)), limits, reach, smooth)
        core, spans = xp.empty(planes.shape[1:], np.uint64), xp.empty((2, height), np.int64)
        distances = rim_px, crack_px, float(min_row_fraction), width
        launch(bit_planes.core_rows, each(height), planes, wide, smooth, *distances, core, spans)
        box = xp.asarray(np.array([height, width, 0, 0], np.int64))
        launch(bit_planes.long_pieces, each(height), spans, min_piece_px, rows, box)
        launch(bit_planes.unpack, each_row(height, width), core, rows, mask)
        y0, x0, y1, x1 = (int(edge) for edge in box.get())
    return mask, rows, (y0, x0, y1, x1) if y1 > 0 else None


def core_boxes(
    image: Any, rule: Rule, need: int, gap_px: int, stream: object | None
) -> tuple[list[Box], Mask]:
    """Return boxes and rows as `lithostream.kernels.roi.core_boxes`: `need` core pixels a row, gaps of `gap_px` rows.

    The host waits once, for 16 bytes per row. Scratch: 3/8 byte per pixel.
    """
    height, width, _ = image.shape
    xp = cupy()
    with queue(stream) as launch:
        rows = xp.zeros(height, np.bool_)
        if height * width == 0:
            return [], rows
        spans = xp.empty((2, height), np.int64)
        planes = _classified(image, rule, None, launch)
        launch(bit_planes.count_core, each(height), planes, need, rows, spans)
        x0, x1 = spans.get()
    y = np.flatnonzero(x1)
    if len(y) == 0:
        return [], rows
    apart = np.diff(y, prepend=y[0] - gap_px - 1) - 1 >= gap_px
    first = np.flatnonzero(apart)  # of each box
    last = np.append(first[1:], len(y)) - 1
    left, right = np.minimum.reduceat(x0[y], first), np.maximum.reduceat(x1[y], first)
    boxes = zip(y[first], left, y[last] + 1, right, strict=True)
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in boxes], rows


def _classified(image: Any, rule: Rule, alpha: Any | None, launch: Launch) -> Any:
    """Return the three planes that the colour rule tells, uint64 [3, K, H]."""
    height, width, _ = image.shape
    xp = cupy()
    planes = xp.empty((3, -(-width // 64), height), np.uint64)
    shown = xp.empty((0, 0), np.bool_) if alpha is None else alpha
    grid = each_row(height, 8 * planes.shape[1])
    launch(bit_planes.classifier(rule), grid, image, shown, planes.view(np.uint8))
    return planes


def _widened(planes: Any, radius: int, more: int, width: int, inverted: bool, launch: Launch) -> Any:
    """Spread the pixels of two planes by squares of 2 * radius + 1, those of the second by `more` besides."""
    xp = cupy()
    grid = each(planes.size)
    for done in range(0, radius + more, 64):
        wide = xp.empty(planes.shape, np.uint64)
        launch(bit_planes.widen_along_rows, grid, planes, radius - done, more, width, wide)
        planes = wide
    wide = xp.empty(planes.shape, np.uint64)
    launch(bit_planes.widen_along_columns, grid, planes, radius, more, width, inverted, wide)
    return wide
