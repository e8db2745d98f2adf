"""The answers of all windows, in order: as they are, or blended into strips where windows overlap."""

from collections.abc import Iterator

import numpy as np

from lithostream.engine.maps.predict import Answer
from lithostream.engine.maps.spool import Spool
from lithostream.engine.maps.windows import Blend, Box, Window, windows


def parts(shape: tuple[int, int], size: tuple[int, int], halo: int) -> int:
    """Count what `answers` yields."""
    down, across = (-(-pixels // edge) for pixels, edge in zip(shape, size, strict=True))
    return down if halo else down * across


def answers(
    spool: Spool, shape: tuple[int, int], size: tuple[int, int], halo: int
) -> Iterator[tuple[Window, Answer]]:
    """Yield boxes that tile the grid, row by row, with their answers.

    With a halo these are strips of whole rows. Probability and uncertainty are blended, and NaN where one window has no
    answer; a pixel has the flags of all windows that saw it.

    Parameters
    ----------
    spool : Spool
        Holds every window, over what it has seen.
    shape, size, halo
        As of `windows`; windows are more than a halo high, so that each row of them finishes some rows.
    """
    every = windows(shape, size, halo)
    if not halo:
        for window in every:
            yield window, spool.read(window.number, window.own.shape)
        return
    blends = Blend(shape, size, halo), Blend(shape, size, halo)
    flags, top, number = np.zeros((min(size[0] + 2 * halo, shape[0]), shape[1]), np.uint8), 0, 0
    for window in every:
        answer, seen = spool.read(window.number, window.seen.shape), window.seen
        flags[seen.top - top : seen.bottom - top, seen.left : seen.right] |= answer.flags
        numbers = (answer.probability, answer.uncertainty)
        done = [list(blend.add(window, values)) for blend, values in zip(blends, numbers, strict=True)]
        for (_, probability), (_, uncertainty) in zip(*done, strict=True):
            count = len(probability)
            box = Box(top, 0, top + count, shape[1])
            yield Window(number, box, box), Answer(probability, uncertainty, flags[:count].copy())
            flags = np.concatenate([flags[count:], np.zeros((count, shape[1]), np.uint8)])
            top, number = box.bottom, number + 1
