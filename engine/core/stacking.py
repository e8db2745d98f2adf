"""Segments of all windows as those of the section: those that are one object become one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.label_map import NUMBERS
from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.segmenter.join import Seam, match, together, total
from lithostream.engine.core.spill import Arrays

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SUPERPIXELS = "superpixels."  # before the names in a window's record, of those that were refined

Seams = tuple[Seam, Seam] | None


class Numbering:
    """Numbers of segments in their section, from 0 in the order of windows; it looks back one window.

    A segment goes on into at most one of the next window (`match`), so the number it got when it began is final.
    """

    def __init__(self) -> None:
        self.count = 0
        self._above: tuple[Ints, Seam] | None = None

    def add(self, segments: int, seams: Seams) -> Ints:
        """Give the next window's segments their numbers.

        Parameters
        ----------
        segments : int
            How many it has.
        seams : (Seam, Seam), optional
            Above and below; None where nothing is known beyond its edges.

        Returns
        -------
        int64 [segments]
            Numbers below `count` as it was are those of segments that began in an earlier window.
        """
        numbers = np.full(segments, -1)
        if seams and self._above:
            above, below = match(self._above[1], seams[0]).T
            numbers[below] = self._above[0][above]
        begun = numbers < 0
        first, self.count = self.count, self.count + int(np.count_nonzero(begun))
        numbers[begun] = np.arange(first, self.count)
        self._above = (numbers, seams[1]) if seams else None
        return numbers


class Numbered(NamedTuple):
    """Segments, or pieces of them, under their numbers in the section.

    Attributes
    ----------
    number : int64 [S]
    segments : WindowSegments
        Their parents, and the first column of `interval_pixels`, are numbers as well.
    """

    number: Ints
    segments: WindowSegments

    def between(self, first: int, end: int) -> "Numbered":
        """Those with numbers from `first` to `end` - 1, in the same order."""
        kept = (self.number >= first) & (self.number < end)
        *others, pixels = self.segments
        owner = pixels[:, 0]
        shared = pixels[(owner >= first) & (owner < end)]
        columns: Sequence[Any] = [*(column[kept] for column in others), shared]
        return Numbered(self.number[kept], WindowSegments(*columns))


def under_numbers(segments: WindowSegments, number: Ints) -> Numbered:
    """Give the segments of a window, and their parents, their numbers."""
    pixels = segments.interval_pixels
    return Numbered(
        number,
        segments._replace(
            parent=np.append(number, -1)[segments.parent],
            interval_pixels=np.column_stack([number[pixels[:, 0]], pixels[:, 1:]]),
        ),
    )


def segment_record(part: Numbered, of: str = "") -> Arrays:
    """Name the arrays that the record of a window holds of its segments, or of its `SUPERPIXELS`."""
    return {of + name: array for name, array in ({NUMBERS: part.number} | part.segments._asdict()).items()}


def read_segments(record: Arrays, of: str = "") -> Numbered:
    """Segments of a window from its record, or its `SUPERPIXELS`."""
    fields = (record[of + name] for name in WindowSegments._fields)
    return Numbered(record[of + NUMBERS], WindowSegments(*fields))


def joined(parts: Sequence[Numbered]) -> Numbered:
    """Put parts one after the other; at least one."""
    columns: Sequence[Any] = [np.concatenate(c) for c in zip(*(p.segments for p in parts), strict=True)]
    return Numbered(np.concatenate([part.number for part in parts]), WindowSegments(*columns))


def stack_segments(pieces: Numbered, first: int) -> WindowSegments:
    """Stack pieces of the segments from number `first` on; what several windows hold of one is added up.

    Pieces come in the order of windows, so sums have the same bits whatever else is stacked with them.

    Returns
    -------
    WindowSegments
        In the order of numbers; `interval_pixels` counts them from 0.
    """
    which, one = pieces.number - first, pieces.segments
    count = int(which.max(initial=-1)) + 1
    area = one.area_px.astype(np.float64)
    colour, colour_std = together(which, area, one.colour, one.colour_std)
    begin = np.full(count, len(which))
    np.minimum.at(begin, which, np.arange(len(which)))
    low = np.full((count, 2), np.iinfo(np.int64).max)
    high = np.zeros((count, 2), np.int64)
    np.minimum.at(low, which, one.box[:, :2])
    np.maximum.at(high, which, one.box[:, 2:])
    return WindowSegments(
        window=one.window[begin],
        parent=one.parent[begin],
        area_px=total(which, one.area_px).astype(np.int64),
        box=np.concatenate([low, high], axis=1),
        centroid=_mean(which, area, one.centroid),
        colour=colour,
        colour_std=colour_std,
        reflectance=_mean(which, area, one.reflectance),
        values=_mean(which, area, one.values),
        interval_pixels=one.interval_pixels - np.array([first, 0, 0]),
    )


def _mean(which: Ints, area: Floats, values: Floats) -> Floats:
    """Mean by area over the pieces that have a value; NaN where none has."""
    known = np.isfinite(values)
    weight = total(which, area[:, None] * known)
    sums = total(which, np.where(known, area[:, None] * values, 0.0))
    mean = np.full(sums.shape, np.nan)
    np.divide(sums, weight, out=mean, where=weight > 0)
    return mean
