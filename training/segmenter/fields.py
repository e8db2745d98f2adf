"""Random fields that scenes are made of: smooth noise, cells around random points, and rounded steps."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Random = np.random.Generator


def noise(rng: Random, size: int, knots: float) -> Floats:
    """Smooth noise of about unit deviation, float32 [size, size], with about `knots` features across.

    Random knots, joined by a smoothstep between them: two small matrix products.
    """
    count = int(np.clip(knots, 1, size)) + 2
    grid = rng.standard_normal((count, count), dtype=np.float32)
    rows = _between_knots(size, count, rng.random())
    columns = _between_knots(size, count, rng.random())
    return (1.35 * (rows @ grid @ columns.T)).astype(np.float32)


def octaves(rng: Random, size: int, knots: float, count: int, gain: float = 0.5) -> Floats:
    """Sum of `count` noises, each twice as fine and `gain` times as high; about unit deviation."""
    gains = gain ** np.arange(count)
    total = sum(g * noise(rng, size, knots * 2.0**i) for i, g in enumerate(gains))
    return np.asarray(total / np.sqrt(np.sum(gains**2)), np.float32)


def coordinates(size: int) -> tuple[Floats, Floats]:
    """Row and column of every pixel, float32 [size, size] each."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    return rows, columns


class Cells(NamedTuple):
    """Which cell a pixel is in, and how far from its border.

    Attributes
    ----------
    label : int32 [H, W]
        From 1.
    edge : float32 [H, W]
        Distance to the border of another cell, about, px.
    centre : float32 [H, W]
        Distance to the point of the cell, px.
    """

    label: Ints
    edge: Floats
    centre: Floats


def cells(
    rng: Random, rows: Floats, columns: Floats, pitch: tuple[float, float], merged: float = 0.0
) -> Cells:
    """Cells around one random point in each field of a grid (Worley 1996), found among 3 x 3 fields.

    Parameters
    ----------
    rng : Generator
    rows, columns : float32 [H, W]
        Coordinates, warped for ragged borders.
    pitch : (float, float)
        Of the grid, px.
    merged : float
        Share of the cells that are taken into a neighbour: sizes vary and outlines are no longer convex.
    """
    y, x = rows / pitch[0], columns / pitch[1]
    low = int(np.floor(y.min())) - 2, int(np.floor(x.min())) - 2
    shape = int(np.floor(y.max())) + 3 - low[0], int(np.floor(x.max())) + 3 - low[1]
    jitter = rng.random((2, *shape), dtype=np.float32)
    label = np.arange(1, shape[0] * shape[1] + 1, dtype=np.int32).reshape(shape)
    taken = rng.random(shape) < merged
    label = np.where(taken, np.roll(label, 1, axis=int(rng.integers(2))), label)
    fields = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
    far = np.float32(1e9)
    first, second = np.full(y.shape, far), np.full(y.shape, far)
    owner = np.zeros(y.shape, np.int32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            at = fields[0] + (down - low[0]), fields[1] + (right - low[1])
            dy = (fields[0] + down + jitter[0][at] - y) * np.float32(pitch[0])
            dx = (fields[1] + right + jitter[1][at] - x) * np.float32(pitch[1])
            distance, other = dy * dy + dx * dx, label[at]
            nearer = distance < first
            rival = np.where(nearer, np.where(other != owner, first, second), distance)
            second = np.where(nearer | (other != owner), np.minimum(second, rival), second)
            first, owner = np.where(nearer, distance, first), np.where(nearer, other, owner)
    first, second = np.sqrt(first), np.sqrt(np.minimum(second, far))
    return Cells(owner, (0.5 * (second - first)).astype(np.float32), first.astype(np.float32))


def step(value: Floats, width: float) -> Floats:
    """Rise from 0 to 1 where `value` passes from 0 to `width`."""
    return np.asarray(np.clip(value / np.float32(width), 0, 1), np.float32)


def _between_knots(size: int, count: int, phase: float) -> Floats:
    at = (np.arange(size) + phase) * ((count - 2) / size)
    first = np.floor(at).astype(np.int64)
    part = at - first
    part = part * part * (3 - 2 * part)
    weights = np.zeros((size, count), np.float32)
    weights[np.arange(size), first] = 1 - part
    weights[np.arange(size), first + 1] = part
    return weights
