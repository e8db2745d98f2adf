"""Segments of all windows as those of the section: those that are one object become one."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.segmenter.join import Seam, match, number, together, total

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Seams = Sequence[tuple[Seam, Seam] | None]


def section_numbers(parts: Sequence[WindowSegments], seams: Seams) -> list[Ints]:
    """Numbers of each window's segments in the section, from 0 in the order of windows.

    Parameters
    ----------
    parts : sequence of WindowSegments
    seams : sequence of (Seam, Seam) or None
        Of each window, above and below; None where nothing is known beyond its edges.
    """
    pairs = [
        match(upper[1], lower[0]) if upper and lower else np.zeros((0, 2), np.int64)
        for upper, lower in itertools.pairwise(seams)
    ]
    return number([len(part.area_px) for part in parts], pairs)


def stack_segments(parts: Sequence[WindowSegments], numbers: Sequence[Ints]) -> WindowSegments:
    """Stack the segments of windows under their numbers; what several windows hold of one is added up."""
    one = WindowSegments(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    which = np.concatenate(numbers)
    count = int(which.max(initial=-1)) + 1
    area = one.area_px.astype(np.float64)
    colour, colour_std = together(which, area, one.colour, one.colour_std)
    first = np.full(count, len(which))
    np.minimum.at(first, which, np.arange(len(which)))
    low = np.full((count, 2), np.iinfo(np.int64).max)
    high = np.zeros((count, 2), np.int64)
    np.minimum.at(low, which, one.box[:, :2])
    np.maximum.at(high, which, one.box[:, 2:])
    pixels = [
        np.column_stack([ids[part.interval_pixels[:, 0]], part.interval_pixels[:, 1:]])
        for ids, part in zip(numbers, parts, strict=True)
    ]
    return WindowSegments(
        window=one.window[first],
        parent=_parents(parts, numbers)[first],
        area_px=total(which, one.area_px).astype(np.int64),
        box=np.concatenate([low, high], axis=1),
        centroid=_mean(which, area, one.centroid),
        colour=colour,
        colour_std=colour_std,
        reflectance=_mean(which, area, one.reflectance),
        values=_mean(which, area, one.values),
        interval_pixels=np.concatenate(pixels),
    )


def _parents(parts: Sequence[WindowSegments], numbers: Sequence[Ints]) -> Ints:
    """Section numbers of the parents, -1 for none."""
    return np.concatenate([np.append(ids, -1)[part.parent] for ids, part in zip(numbers, parts, strict=True)])


def _mean(which: Ints, area: Floats, values: Floats) -> Floats:
    """Mean by area over the pieces that have a value; NaN where none has."""
    known = np.isfinite(values)
    weight = total(which, area[:, None] * known)
    sums = total(which, np.where(known, area[:, None] * values, 0.0))
    mean = np.full(sums.shape, np.nan)
    np.divide(sums, weight, out=mean, where=weight > 0)
    return mean
