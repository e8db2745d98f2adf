"""Bands of a TIFF: decoded by a few threads, ahead of their reader and into the memory that is handed out."""

import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial

import numpy as np

from lithostream.engine.errors import DecodeError
from lithostream.engine.io.pixels import Band, Meaning, Pixels, Samples
from lithostream.engine.io.tiff_layout import Layout
from lithostream.engine.io.tiff_strips import decode_rows, pieces

WORKERS = min(2, os.cpu_count() or 1)  # more would take the cores of those who wait for the pixels
AHEAD_BYTES = 1 << 26  # decoded side by side or ahead of the reader, unless a single strip is more
# NumPy asks for huge pages from here on. They spare a page fault for every 4 kB, which takes longer than reading these.
HUGE_BYTES = 1 << 22


def bands(layout: Layout, meaning: Meaning, rows: int) -> Iterator[Band]:
    """Decode from the top row to the last into bands of `rows` rows; the last may be lower.

    The number of threads changes neither the pixels nor which error is raised.

    Raises
    ------
    DecodeError
        Naming the strip or tile and its rows.
    """
    as_stored = layout.pixel_samples == 3 and meaning == Meaning("rgb", 8, 255)
    if as_stored and layout.copied:
        return _read(layout, rows)
    return _decoded(layout, None if as_stored else meaning, rows)


def _read(layout: Layout, rows: int) -> Iterator[Band]:
    """Bands that lie in the file as they are."""
    canvas = _Canvas(layout, rows, masked=False)
    with layout.path.open("rb", buffering=0) as file:
        for top in range(0, layout.height_px, rows):
            band = canvas.take(top)
            decode_rows(file.fileno(), layout, top, top + len(band.rgb), band.rgb)
            yield band


def _decoded(layout: Layout, meaning: Meaning | None, rows: int) -> Iterator[Band]:
    """Bands that threads decode: all pieces of one, and a few of the next while its reader is busy."""
    canvas = _Canvas(layout, rows, masked=meaning is not None and meaning.alpha is not None)
    edges = pieces(layout, rows)
    ahead = min(WORKERS, AHEAD_BYTES // (layout.pixel_bytes * layout.width_px * int(np.diff(edges).max())))
    pending: deque[Future[None]] = deque()
    begun = done = 0
    with layout.path.open("rb", buffering=0) as file:
        pool = ThreadPoolExecutor(max(1, ahead), thread_name_prefix="decode")
        paint = partial(_paint, file.fileno(), layout, meaning)
        try:
            for top in range(0, layout.height_px, rows):
                due = int(np.searchsorted(edges[:-1], top + rows))
                while begun < min(due + ahead, len(edges) - 1):
                    first, base = edges[begun : begun + 2].tolist()
                    pending.append(pool.submit(paint, first, base, canvas.parts(first, base)))
                    begun += 1
                needed = [pending.popleft() for _ in range(due - done)]
                done = due
                wait(needed, return_when=FIRST_EXCEPTION)
                for future in needed:
                    future.result()
                yield canvas.take(top)
        finally:
            # Before the file is closed: no thread may read from a descriptor that has become another file's.
            pool.shutdown(cancel_futures=True)


class _Canvas:
    """Bands of `rows` rows that are being filled, by their first row."""

    def __init__(self, layout: Layout, rows: int, *, masked: bool) -> None:
        self._layout, self._rows, self._masked = layout, rows, masked
        self._begun: dict[int, Band] = {}

    def parts(self, top: int, base: int) -> list[Band]:
        """Parts of bands that take the rows from `top` to `base`."""
        return [
            _rows(self._band(first), max(top - first, 0), base - first)
            for first in range(top - top % self._rows, base, self._rows)
        ]

    def take(self, top: int) -> Band:
        """Give a band away."""
        self._band(top)
        return self._begun.pop(top)

    def _band(self, top: int) -> Band:
        if top not in self._begun:
            shape = min(self._rows, self._layout.height_px - top), self._layout.width_px
            alpha = np.empty(shape, np.bool_) if self._masked else None
            self._begun[top] = Band(_empty((*shape, 3)), alpha)
        return self._begun[top]


def _empty(shape: tuple[int, int, int]) -> Pixels:
    size = math.prod(shape)
    return np.empty(size if 2 * size < HUGE_BYTES else max(size, HUGE_BYTES), np.uint8)[:size].reshape(shape)


def _rows(band: Band, top: int, base: int) -> Band:
    return Band(band.rgb[top:base], None if band.alpha is None else band.alpha[top:base])


def _paint(fd: int, layout: Layout, meaning: Meaning | None, top: int, base: int, parts: list[Band]) -> None:
    """Decode rows into the parts of bands that they fill; without a meaning, they are stored as red, green, blue."""
    if meaning is None and len(parts) == 1:
        decode_rows(fd, layout, top, base, parts[0].rgb)
        return
    stored = decode_rows(fd, layout, top, base)
    found = _meant(stored, layout, meaning or Meaning("rgb", 8, 255), top, base)
    at = 0
    for part in parts:
        rows = _rows(found, at, at + len(part.rgb))
        part.rgb[...] = rows.rgb
        if part.alpha is not None:
            part.alpha[...] = rows.alpha
        at += len(part.rgb)


def _meant(stored: Samples, layout: Layout, meaning: Meaning, top: int, base: int) -> Band:
    """Turn samples into a band, or name the strip in which one of them means nothing."""
    first, end = np.searchsorted(layout.edges, [top, base])
    try:
        return meaning.to_band(stored, layout.path, layout.place(0, first, 0))
    except DecodeError:
        for band in range(first, end):
            rows = slice(*(layout.edges[band : band + 2] - top))
            meaning.to_band(stored[rows], layout.path, layout.place(0, band, 0))
        raise
