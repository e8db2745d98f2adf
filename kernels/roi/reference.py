"""Plain NumPy oracle of the core region: the same definitions, pixel by pixel and row by row."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.roi import OUTSIDE, CoreBoxes, Roi, bounded
from lithostream.kernels.roi.rules import CORE, DARK, FOREIGN, Rule

Mask = npt.NDArray[np.bool_]
Limits = list[tuple[int, int] | None]


def core_roi(
    image: npt.NDArray[np.uint8],
    *,
    rule: Rule,
    crack_px: int,
    min_row_fraction: float = 0.5,
    min_piece_px: int = 1,
    alpha: Mask | None = None,
) -> Roi:
    """Return what `lithostream.kernels.roi.core_roi` returns for valid arguments."""
    height, width, _ = image.shape
    classes = classify(image, rule)
    if alpha is not None:
        classes[~alpha] = OUTSIDE
    half_px, rim_px = (crack_px + 1) // 2, (crack_px + 3) // 4
    crack = (classes == DARK) & ~dilate(erode(classes == DARK, half_px), half_px)
    foreign = erode(dilate(classes == FOREIGN, half_px + rim_px), half_px)
    core = ((classes == CORE) | crack) & ~foreign
    limits = smooth([solid_limits(row, crack_px) for row in classes], crack_px)
    mask = np.zeros((height, width), np.bool_)
    for y, found in enumerate(limits):
        if found is not None:
            within = slice(found[0] + rim_px, max(found[1] - rim_px, 0))
            enough = min_row_fraction * max(found[1] - found[0], width // 2)
            if best_stretch(core[y, within], foreign[y, within], crack_px) >= enough:
                mask[y, within] = core[y, within]
    edges = np.flatnonzero(np.diff(mask.any(axis=1).astype(int), prepend=0, append=0))
    for first, last in edges.reshape(-1, 2):
        if last - first < min_piece_px and first > 0 and last < height:
            mask[first:last] = False
    return bounded(mask)


def core_boxes(
    image: npt.NDArray[np.uint8], *, rule: Rule, min_row_fraction: float = 0.0, min_gap_px: int | None = None
) -> CoreBoxes:
    """Return what `lithostream.kernels.roi.core_boxes` returns for valid arguments."""
    return boxes_of(classify(image, rule) == CORE, min_row_fraction, min_gap_px)


def boxes_of(core: Mask, min_row_fraction: float, min_gap_px: int | None) -> CoreBoxes:
    """Return the valid rows of a mask of all core pixels, and their boxes."""
    height, width = core.shape
    rows = core.any(axis=1) & (core.sum(axis=1) >= min_row_fraction * width)
    valid = np.flatnonzero(rows)
    between = np.diff(valid) - 1
    cuts = np.flatnonzero(between >= (min_gap_px or height)) + 1
    boxes = []
    for band in np.split(valid, cuts) if len(valid) else []:
        x = np.flatnonzero(core[band].any(axis=0))
        boxes.append((int(band[0]), int(x[0]), int(band[-1]) + 1, int(x[-1]) + 1))
    return CoreBoxes(boxes, rows)


def classify(image: npt.NDArray[np.uint8], rule: Rule) -> npt.NDArray[np.uint8]:
    """Class code of every pixel."""
    classes = np.empty(image.shape[:2], np.uint8)
    for y, x in np.ndindex(*classes.shape):
        code = rule(*(int(sample) for sample in image[y, x]))
        classes[y, x] = code if code in (CORE, DARK) else FOREIGN
    return classes


def dilate(mask: Mask, radius: int) -> Mask:
    """Any pixel of the square of 2 * radius + 1 set; outside counts as not set."""
    padded = np.pad(mask, radius)
    return np.asarray(_squares(padded, radius).any(axis=(2, 3)))


def erode(mask: Mask, radius: int) -> Mask:
    """All pixels of the square set; outside counts as set."""
    padded = np.pad(mask, radius, constant_values=True)
    return np.asarray(_squares(padded, radius).all(axis=(2, 3)))


def solid_limits(row: npt.NDArray[np.uint8], run_px: int) -> tuple[int, int] | None:
    """Half-open extent of all runs of at least `run_px` core or foreign pixels in a row."""
    solid = (row == CORE) | (row == FOREIGN)
    starts = [x for x in range(len(row) - run_px + 1) if solid[x : x + run_px].all()]
    return (starts[0], starts[-1] + run_px) if starts else None


def smooth(limits: Limits, reach_px: int) -> Limits:
    """Lower median of each limit over the rows within reach that have one."""
    out: Limits = []
    for y in range(len(limits)):
        near = [found for found in limits[max(0, y - reach_px) : y + reach_px + 1] if found is not None]
        middle = (len(near) - 1) // 2
        out.append((sorted(n[0] for n in near)[middle], sorted(n[1] for n in near)[middle]) if near else None)
    return out


def best_stretch(core: Mask, foreign: Mask, crack_px: int) -> int:
    """Most core pixels in a part of a row that no foreign run longer than `crack_px` interrupts."""
    counts, between = [0], 0
    for is_core, is_foreign in zip(core, foreign, strict=True):
        between = between + 1 if is_foreign else 0
        if between == crack_px + 1:
            counts.append(0)
        counts[-1] += int(is_core)
    return max(counts)


def _squares(padded: Mask, radius: int) -> Mask:
    side = 2 * radius + 1
    height, width = padded.shape
    if height < side or width < side:  # an image without pixels
        return np.zeros((height - side + 1, width - side + 1, 1, 1), np.bool_)
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side))
