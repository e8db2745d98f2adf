"""The geometry of the core region, compiled: a few passes over the rows, whatever the radius."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.jit import compiled
from lithostream.kernels.roi.rules import CORE, DARK, FOREIGN

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Limits = npt.NDArray[np.int64]


@compiled
def _widen(row: Bytes, spare: Bytes, span: int) -> Bytes:
    """Any of the `span` pixels from each on, by doubling the reach; -> whichever of the two arrays holds it."""
    reach = 1
    while reach < span:
        step = min(reach, span - reach)
        ahead = row[step:]
        for x in range(len(ahead)):
            spare[x] = row[x] | ahead[x]
        spare[len(ahead) :] = row[len(ahead) :]
        row, spare = spare, row
        reach += step
    return row


@compiled
def _spread(mask: Mask, radius: int, inverted: bool) -> None:
    """Dilate by a square of 2 * radius + 1 in place; inverted, erode: what lies outside the image counts as set.

    A row goes out `radius` rows after it came in; `until` tells where each column ceases to be set.
    """
    height, width = mask.shape
    row, spare = np.zeros(width + 2 * radius, np.uint8), np.zeros(width + 2 * radius, np.uint8)
    until = np.zeros(width, np.int32)
    for y in range(height + radius):
        if y < height:
            row[:radius] = 0
            row[radius + width :] = 0
            line, inner = mask[y], row[radius : radius + width]
            for x in range(width):
                inner[x] = line[x] ^ inverted
            wide, stop = _widen(row, spare, 2 * radius + 1), np.int32(y + 2 * radius + 1)
            for x in range(width):
                until[x] = stop if wide[x] else until[x]
        if y >= radius:
            line, now = mask[y - radius], np.int32(y)
            for x in range(width):
                line[x] = (until[x] > now) ^ inverted


@compiled
def _row_limits(classes: Bytes, run_px: int) -> Limits:
    """First and last run of `run_px` core or foreign pixels per row, half-open, int64 [H, 2]; -1 where is none."""
    height, width = classes.shape
    limits = np.full((height, 2), -1)
    for y in range(height):
        run = 0
        for x in range(width):
            run = run + 1 if classes[y, x] == CORE or classes[y, x] == FOREIGN else 0
            if run >= run_px:
                limits[y, 0] = x + 1 - run
                break
        if run < run_px:
            continue
        run = 0
        for x in range(width - 1, -1, -1):
            run = run + 1 if classes[y, x] == CORE or classes[y, x] == FOREIGN else 0
            if run >= run_px:
                limits[y, 1] = x + run
                break
    return limits


@compiled
def _exchange(ordered: Limits, count: int, new: int, old: int) -> int:
    """Put `new` into the ordered numbers and take `old` out, either unless -1; returns how many there are."""
    if old >= 0:
        at = np.searchsorted(ordered[:count], old)
        for k in range(at, count - 1):
            ordered[k] = ordered[k + 1]
        count -= 1
    if new >= 0:
        at = np.searchsorted(ordered[:count], new)
        for k in range(count, at, -1):
            ordered[k] = ordered[k - 1]
        ordered[at] = new
        count += 1
    return count


@compiled
def _smooth_limits(limits: Limits, reach_px: int) -> Limits:
    """Lower median of the limits found within `reach_px` rows; -1 where none was."""
    height = limits.shape[0]
    smooth = np.full((height, 2), -1)
    ordered = np.empty(min(height, 2 * reach_px + 1) + 1, np.int64)
    for side in range(2):
        count = 0
        for y in range(-reach_px, height):
            new = limits[y + reach_px, side] if y + reach_px < height else -1
            old = limits[y - reach_px - 1, side] if y - reach_px - 1 >= 0 else -1
            count = _exchange(ordered, count, new, old)
            if y >= 0 and count > 0:
                smooth[y, side] = ordered[(count - 1) // 2]
    return smooth


@compiled
def _best_stretch(core: Mask, foreign: Mask, crack_px: int) -> int:
    """Most core pixels in a part of a row that no foreign run longer than `crack_px` interrupts."""
    if not foreign.any():
        return int(core.sum())
    stretch, longest, between = 0, 0, 0
    for x in range(len(core)):
        between = between + 1 if foreign[x] else 0
        if between > crack_px:
            stretch = 0
        stretch += core[x]
        longest = max(longest, stretch)
    return longest


@compiled
def _drop_short_pieces(mask: Mask, min_piece_px: int) -> None:
    """Clear runs of core rows shorter than `min_piece_px` that end inside the image on both sides."""
    height = mask.shape[0]
    first = -1  # start of the run; -1 outside of any
    for y in range(height):
        if mask[y].any():
            first = y if first < 0 else first
            continue
        if first > 0 and y - first < min_piece_px:
            mask[first:y] = False
        first = -1


@compiled
def core_mask(classes: Bytes, crack_px: int, min_row_fraction: float, min_piece_px: int, mask: Mask) -> None:
    """Mark the core pixels of an image of class codes; steps and terms as in `lithostream.kernels.roi`."""
    height, width = classes.shape
    half_px, rim_px = (crack_px + 1) // 2, (crack_px + 3) // 4
    mask[:] = classes == DARK
    _spread(mask, half_px, True)
    _spread(mask, half_px, False)  # now holds the voids
    foreign = classes == FOREIGN
    _spread(foreign, half_px + rim_px, False)
    _spread(foreign, half_px, True)
    limits = _smooth_limits(_row_limits(classes, crack_px), crack_px)
    for y in range(height):
        line, codes, bodies = mask[y], classes[y], foreign[y]
        for x in range(width):
            crack = (codes[x] == DARK) & (not line[x])
            line[x] = ((codes[x] == CORE) | crack) & (not bodies[x])
        left, right = limits[y, 0] + rim_px, max(limits[y, 1] - rim_px, 0)
        line[:left] = False
        line[right:] = False
        enough = min_row_fraction * max(limits[y, 1] - limits[y, 0], width // 2)
        if _best_stretch(line[left:right], bodies[left:right], crack_px) < enough:
            line[:] = False
    _drop_short_pieces(mask, min_piece_px)
