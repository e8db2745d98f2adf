"""The kernels of the core region, in bit planes: geometry moves words of 64 pixels, not pixels.

A plane is uint64 [K, H]: bit j of word (k, y) is pixel (y, 64 k + j), and bits beyond the width are clear. Words
of neighbouring rows are neighbours in memory: the threads of a warp take 32 rows and read them side by side.
Steps and terms as in `lithostream.kernels.roi`; where nothing else is said, a thread does a word or a row.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lithostream.kernels.launch import cuda, kernel
from lithostream.kernels.roi.rules import CORE, DARK, Rule

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

NO_BIT: Final = np.uint64(0)
BIT: Final = np.uint64(1)
ALL_BITS: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

LIGHT, FOREIGN_BODY, BODY = 0, 1, 2
"""Planes after the colour rule: all but the dark pixels, the foreign and the core ones."""


@lru_cache(maxsize=32)
def classifier(rule: Rule) -> Any:
    """Return the kernel that asks `rule` for each pixel; the rule's own machine code for the host stays as it is."""

    @kernel
    def classify(image: Bytes, alpha: Mask, planes: Bytes) -> None:
        """Write `planes` uint8 [3, K, 8 * H], the words byte by byte: a block per row, a thread per 8 pixels."""
        y = cuda.blockIdx.x
        width = image.shape[1]
        for at in range(cuda.threadIdx.x, 8 * planes.shape[1], cuda.blockDim.x):
            light, foreign, core = 0, 0, 0
            for j in range(8):
                x = 8 * at + j
                if x >= width:
                    break
                bit = 1 << j
                light |= bit
                if alpha.shape[0] > 0 and not alpha[y, x]:
                    continue
                code = rule(np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2]))
                if code == CORE:
                    core |= bit
                elif code == DARK:
                    light ^= bit
                else:
                    foreign |= bit
            planes[LIGHT, at >> 3, 8 * y + (at & 7)] = light
            planes[FOREIGN_BODY, at >> 3, 8 * y + (at & 7)] = foreign
            planes[BODY, at >> 3, 8 * y + (at & 7)] = core

    return classify


@kernel
def widen_along_rows(planes: Words, radius: int, more: int, width: int, wide: Words) -> None:
    """Spread set pixels along their row by `radius`, in plane 1 by `more` besides, but by 64 at most; -> `wide`."""
    n = cuda.grid(1)
    count, height = planes.shape[1], planes.shape[2]
    if n >= planes.shape[0] * count * height:
        return
    y, k, plane = n % height, n // height % count, n // height // count
    reach = min(64, radius + plane * more)
    right = left = planes[plane, k, y]  # smeared to the right and to the left
    before = planes[plane, k - 1, y] if k > 0 else NO_BIT
    after = planes[plane, k + 1, y] if k + 1 < count else NO_BIT
    done = 0
    while done < reach:  # twice as far each time: at most 32 pixels
        step = min(done + 1, reach - done)
        here, over = np.uint64(step), np.uint64(64 - step)
        right |= (right << here) | (before >> over)
        before |= before << here
        left |= (left >> here) | (after << over)
        after |= after >> here
        done += step
    inside = ALL_BITS if 64 * k + 64 <= width else (BIT << np.uint64(width - 64 * k)) - BIT
    wide[plane, k, y] = (right | left) & inside


@kernel
def widen_along_columns(
    planes: Words, radius: int, more: int, width: int, inverted: bool, wide: Words
) -> None:
    """Spread set pixels along their column by `radius`, in plane 1 by `more` besides; inverted if asked; -> `wide`."""
    n = cuda.grid(1)
    count, height = planes.shape[1], planes.shape[2]
    if n >= planes.shape[0] * count * height:
        return
    y, k, plane = n % height, n // height % count, n // height // count
    reach = radius + plane * more
    word = NO_BIT
    for near in range(max(0, y - reach), min(height, y + reach + 1)):
        word |= planes[plane, k, near]
    inside = ALL_BITS if 64 * k + 64 <= width else (BIT << np.uint64(width - 64 * k)) - BIT
    wide[plane, k, y] = inside & ~word if inverted else word


@kernel
def row_limits(planes: Words, run_px: int, limits: Ints) -> None:
    """First and last run of `run_px` solid pixels per row, half-open, int64 [2, H]; -1 where there is none."""
    y = cuda.grid(1)
    if y >= planes.shape[2]:
        return
    run, first, last = 0, -1, -1
    for k in range(planes.shape[1]):
        word = planes[BODY, k, y] | planes[FOREIGN_BODY, k, y]
        for j in range(64):
            run = run + 1 if (word >> np.uint64(j)) & BIT else 0
            if run >= run_px:
                last = 64 * k + j + 1
                if first < 0:
                    first = last - run
    limits[0, y], limits[1, y] = first, last


@kernel
def smooth_limits(limits: Ints, reach_px: int, smooth: Ints) -> None:
    """Lower median of the limits found within `reach_px` rows, -1 where none was.

    A thread per row and candidate: of the candidates one has the middle rank, and writes. Rows count as ordered.
    """
    n = cuda.grid(1)
    height = limits.shape[1]
    if n >= height * (2 * reach_px + 1):
        return
    y = n % height
    own = y - reach_px + n // height
    low, high = max(0, y - reach_px), min(height, y + reach_px + 1)
    found, before, behind = 0, 0, 0
    if 0 <= own < height:
        for near in range(low, high):
            first, last = limits[0, near], limits[1, near]
            if first >= 0:
                found += 1
                before += first < limits[0, own] or (first == limits[0, own] and near < own)
                behind += last < limits[1, own] or (last == limits[1, own] and near < own)
        if found == 0:
            if own == y:
                smooth[0, y], smooth[1, y] = -1, -1
        elif limits[0, own] >= 0:
            if before == (found - 1) // 2:
                smooth[0, y] = limits[0, own]
            if behind == (found - 1) // 2:
                smooth[1, y] = limits[1, own]


@kernel
def core_rows(
    planes: Words,
    wide: Words,
    limits: Ints,
    rim_px: int,
    crack_px: int,
    min_row_fraction: float,
    width: int,
    core: Words,
    spans: Ints,
) -> None:
    """Write the core pixels between the limits, and `spans` int64 [2, H]: their extent, or 0, 0 if not enough.

    `wide` holds the voids, and all but the foreign bodies.
    """
    y = cuda.grid(1)
    if y >= planes.shape[2]:
        return
    left, right = limits[0, y] + rim_px, limits[1, y] - rim_px
    first, last, stretch, longest, between = 0, 0, 0, 0, 0
    for k in range(planes.shape[1]):
        free = wide[1, k, y]
        cracks = ~(planes[LIGHT, k, y] | wide[0, k, y])
        body = free & (planes[BODY, k, y] | cracks)
        word = NO_BIT
        for x in range(max(left, 64 * k), min(right, 64 * k + 64)):
            bit = BIT << np.uint64(x - 64 * k)
            if not free & bit:
                between += 1
                if between > crack_px:
                    stretch = 0
                continue
            between = 0
            if body & bit:
                word |= bit
                stretch += 1
                longest = max(longest, stretch)
                first = first if last > 0 else x
                last = x + 1
        core[k, y] = word
    if longest < min_row_fraction * max(limits[1, y] - limits[0, y], width // 2):
        first, last = 0, 0
    spans[0, y], spans[1, y] = first, last


@kernel
def long_pieces(spans: Ints, min_piece_px: int, rows: Mask, box: Ints) -> None:
    """Keep the rows of pieces long enough or at the edge of the image, and enlarge `box` around each."""
    y = cuda.grid(1)
    height = spans.shape[1]
    if y >= height:
        return
    rows[y] = False
    if spans[1, y] == 0:
        return
    first, last = y, y + 1
    while first > 0 and y - first < min_piece_px and spans[1, first - 1] > 0:
        first -= 1
    while last < height and last - y < min_piece_px and spans[1, last] > 0:
        last += 1
    if first == 0 or last == height or last - first >= min_piece_px:
        rows[y] = True
        cuda.atomic.min(box, 0, y)
        cuda.atomic.min(box, 1, spans[0, y])
        cuda.atomic.max(box, 2, y + 1)
        cuda.atomic.max(box, 3, spans[1, y])


@kernel
def unpack(core: Words, rows: Mask, mask: Mask) -> None:
    """Write the mask, one byte per pixel: a block per row."""
    y = cuda.blockIdx.x
    for x in range(cuda.threadIdx.x, mask.shape[1], cuda.blockDim.x):
        mask[y, x] = rows[y] and (core[x >> 6, y] >> np.uint64(x & 63)) & BIT != NO_BIT


@kernel
def count_core(planes: Words, need: int, rows: Mask, spans: Ints) -> None:
    """Tell the rows with at least `need` core pixels, and write the extent of those to `spans` int64 [2, H]."""
    y = cuda.grid(1)
    if y >= planes.shape[2]:
        return
    total, first, last = 0, 0, 0
    for k in range(planes.shape[1]):
        word = planes[BODY, k, y]
        if word == NO_BIT:
            continue
        for j in range(64):
            if (word >> np.uint64(j)) & BIT:
                first = first if total > 0 else 64 * k + j
                last = 64 * k + j + 1
                total += 1
    rows[y] = total >= need
    spans[0, y], spans[1, y] = (first, last) if total >= need else (0, 0)
