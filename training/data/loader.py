"""Batches of tiles, read from the map by one thread while the network works on the batch before."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lithostream.training.data.tiles import TileSet

AHEAD = 3  # batches read before they are asked for: rides out a slow page, costs a few MB

Ints = npt.NDArray[np.int64]
Wanted = TypeVar("Wanted")
Got = TypeVar("Got")


class Batch(NamedTuple):
    """Rows int64 [B] and `tiles_per_row` tiles of each, uint8 [B * tiles_per_row, S, S, 3], row by row."""

    rows: Ints
    pixels: Tensor


def row_batches(
    tiles: TileSet,
    steps: int,
    tiles_per_row: int,
    rng: np.random.Generator,
    *,
    ahead: int = AHEAD,
    pin: bool = False,
) -> Iterator[Batch]:
    """Pass over all rows once, in random order, in `steps` batches of nearly equal size.

    All draws are made before the first batch is read, so the batches depend on `rng` alone and not on when they
    are read, and `rng` is free for other use meanwhile.

    Parameters
    ----------
    tiles : TileSet
    steps : int
        Number of batches.
    tiles_per_row : int
        Tiles drawn from each row, with replacement.
    rng : Generator
    ahead : int
        Batches that are read in the background; with 0 each is read when it is asked for.
    pin : bool
        Read into page-locked memory, from which a GPU copies while it computes.
    """
    order = rng.permutation(len(tiles.labels))
    picks = _draw(tiles, order, tiles_per_row, rng)
    bounds = np.array_split(np.arange(len(order)), steps)

    def read(part: Ints) -> Batch:
        return Batch(order[part], _gathered(tiles, picks[part].ravel(), pin))

    return prefetched(read, bounds, ahead)


def tile_batches(tiles: TileSet, size: int, *, ahead: int = AHEAD, pin: bool = False) -> Iterator[Tensor]:
    """All tiles in their order, `size` at a time: uint8 [size, S, S, 3]; parameters as in `row_batches`."""
    parts = [np.arange(at, min(at + size, len(tiles.row))) for at in range(0, len(tiles.row), size)]
    return prefetched(lambda part: _gathered(tiles, part, pin), parts, ahead)


def prefetched(read: Callable[[Wanted], Got], wanted: Iterable[Wanted], ahead: int) -> Iterator[Got]:
    """Apply `read` to each of `wanted` in one background thread, at most `ahead` before they are asked for.

    Results come in order, and an error of `read` comes where its result would.
    """
    if ahead == 0:
        yield from map(read, wanted)
        return
    waiting: deque[Future[Got]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="tiles") as reader:
        try:
            for one in wanted:
                waiting.append(reader.submit(read, one))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _draw(tiles: TileSet, rows: Ints, tiles_per_row: int, rng: np.random.Generator) -> Ints:
    """Draw tiles of each row with replacement, int64 [rows, tiles_per_row]."""
    edges = np.searchsorted(tiles.row, np.arange(len(tiles.labels) + 1))
    first, count = edges[rows], np.diff(edges)[rows]
    pick = rng.random((len(rows), tiles_per_row)) * count[:, None]
    return np.asarray(first[:, None] + pick.astype(np.int64))


def _gathered(tiles: TileSet, which: Ints, pin: bool) -> Tensor:
    out = torch.empty((len(which), *tiles.pixels.shape[1:]), dtype=torch.uint8, pin_memory=pin)
    tiles.gather(which, out=out.numpy())
    return out
