"""Where the rows of a section come from, and the few of them that are held at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lithostream.engine.io.images import Slab

Mask = npt.NDArray[np.bool_]


class RowSource(Protocol):
    """An image, or lines that still arrive."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def height_px(self) -> int:
        """Rows; of an open source the most that it may hold."""
        ...

    @property
    def width_px(self) -> int:
        """Pixels of a row."""
        ...

    @property
    def conversions(self) -> tuple[str, ...]:
        """Rules that turn its samples into these pixels, in words."""
        ...

    @property
    def open_ended(self) -> bool:
        """The section ends where the slabs stop."""
        ...

    def slabs(self, rows: int) -> Iterator[Slab]:
        """Serve the rows from the top, `rows` at a time; an open source decides itself how many."""
        ...


class RowBuffer:
    """Rows of a section, held as long as spans that go down need them: no more than one span and one slab.

    Parameters
    ----------
    slabs : iterator of Slab
    """

    def __init__(self, slabs: Iterator[Slab]) -> None:
        self._slabs = slabs
        self._held: list[Slab] = []
        self.height_px = 0

    def reach(self, last: int) -> bool:
        """Draw slabs until the row before `last` is there, and no more; False where they stop before."""
        while self.height_px < last:
            slab = next(self._slabs, None)
            if slab is None:
                return False
            self._held.append(slab)
            self.height_px = slab.row_px + len(slab.rgb)
        return True

    def between(self, first: int, last: int) -> Slab:
        """Give the rows from `first` to `last`, and forget those above."""
        self._held = [slab for slab in self._held if slab.row_px + len(slab.rgb) > first]
        parts = [_cut(slab, first, last) for slab in self._held if slab.row_px < last]
        shapes = [slab.rgb.shape for slab in parts]
        return Slab(
            first,
            np.concatenate([slab.rgb for slab in parts]),
            _joined([slab.alpha for slab in parts], [shape[:2] for shape in shapes], missing=True),
            _joined([slab.lost for slab in parts], [shape[:1] for shape in shapes], missing=False),
        )


def _joined(masks: Sequence[Mask | None], shapes: Sequence[tuple[int, ...]], *, missing: bool) -> Mask | None:
    """Join masks; `missing` stands for those that are not there, unless none is."""
    if all(mask is None for mask in masks):
        return None
    whole = (np.full(shape, missing) if m is None else m for m, shape in zip(masks, shapes, strict=True))
    return np.concatenate(list(whole))


def _cut(slab: Slab, first: int, last: int) -> Slab:
    cut = slice(max(first - slab.row_px, 0), last - slab.row_px)
    alpha, lost = (None if mask is None else mask[cut] for mask in (slab.alpha, slab.lost))
    return Slab(max(first, slab.row_px), slab.rgb[cut], alpha, lost)
