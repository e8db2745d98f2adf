"""The geometry of the core region, compiled: every pass is linear in the pixels, whatever the radius."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.jit import compiled
from lithostream.kernels.roi.rules import CORE, DARK, FOREIGN

Mask = npt.NDArray[np.bool_]
Limits = npt.NDArray[np.int64]


@compiled
def _spread(mask: Mask, radius: int) -> Mask:
    """Dilate by a square of 2 * radius + 1, one axis after the other, by the distance to the last set pixel."""
    height, width = mask.shape
    wide = np.zeros((height, width), np.bool_)
    for y in range(height):
        reach = -1
        for x in range(width):
            if mask[y, x]:
                reach = x + radius
            wide[y, x] = x <= reach
        reach = width
        for x in range(width - 1, -1, -1):
            if mask[y, x]:
                reach = x - radius
            wide[y, x] |= x >= reach
    out = np.zeros((height, width), np.bool_)
    below = np.full(width, -1)
    above = np.full(width, height)
    for y in range(height):
        for x in range(width):
            if wide[y, x]:
                below[x] = y + radius
            out[y, x] = y <= below[x]
    for y in range(height - 1, -1, -1):
        for x in range(width):
            if wide[y, x]:
                above[x] = y - radius
            out[y, x] |= y >= above[x]
    return out


@compiled
def _shrink(mask: Mask, radius: int) -> Mask:
    """Erode by a square; what lies outside the image counts as set."""
    return ~_spread(~mask, radius)


@compiled
def _row_limits(solid: Mask, run_px: int) -> Limits:
    """First and last run of `run_px` solid pixels per row, half-open, int64 [H, 2]; -1 where there is none."""
    height, width = solid.shape
    limits = np.full((height, 2), -1)
    for y in range(height):
        run = 0
        for x in range(width):
            run = run + 1 if solid[y, x] else 0
            if run >= run_px:
                limits[y, 1] = x + 1
                if limits[y, 0] < 0:
                    limits[y, 0] = x + 1 - run
    return limits


@compiled
def _smooth_limits(limits: Limits, reach_px: int) -> Limits:
    """Lower median of the limits found within `reach_px` rows; -1 where none was."""
    height = limits.shape[0]
    smooth = np.full((height, 2), -1)
    for y in range(height):
        near = limits[max(0, y - reach_px) : y + reach_px + 1]
        found = near[near[:, 0] >= 0]
        if len(found) > 0:
            middle = (len(found) - 1) // 2
            smooth[y, 0] = np.sort(found[:, 0])[middle]
            smooth[y, 1] = np.sort(found[:, 1])[middle]
    return smooth


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
def core_mask(
    classes: npt.NDArray[np.uint8], crack_px: int, min_row_fraction: float, min_piece_px: int
) -> Mask:
    """Core pixels of an image of class codes; steps and terms as in `lithostream.kernels.roi`."""
    height, width = classes.shape
    half_px, rim_px = (crack_px + 1) // 2, (crack_px + 3) // 4
    dark = classes == DARK
    void = _spread(_shrink(dark, half_px), half_px)
    foreign = _shrink(_spread(classes == FOREIGN, half_px + rim_px), half_px)
    solid = (classes == CORE) | (classes == FOREIGN)
    limits = _smooth_limits(_row_limits(solid, crack_px), crack_px)
    mask = np.zeros((height, width), np.bool_)
    for y in range(height):
        left, right = limits[y, 0] + rim_px, limits[y, 1] - rim_px
        stretch, longest, between = 0, 0, 0
        for x in range(left, right):
            if foreign[y, x]:
                between += 1
                if between > crack_px:
                    stretch = 0
                continue
            between = 0
            if classes[y, x] == CORE or (dark[y, x] and not void[y, x]):
                mask[y, x] = True
                stretch += 1
                longest = max(longest, stretch)
        if longest < min_row_fraction * max(limits[y, 1] - limits[y, 0], width // 2):
            mask[y] = False
    _drop_short_pieces(mask, min_piece_px)
    return mask
