"""Where the objects of a scene lie: fragments in rows, layers, grains in a matrix, a mosaic."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lithostream.training.segmenter.fields import Floats, Ints, Random, cells, coordinates, noise, octaves


class Layout(NamedTuple):
    """Where objects are: label int32 [S, S], and the distance to their edge float32 [S, S], px."""

    label: Ints
    edge: Floats


def _rows_of_fragments(rng: Random, size: int) -> Layout:
    """Core pieces one behind the other, in one to four rows."""
    rows, columns = warped(rng, size, rng.uniform(0.5, 5), rng.uniform(8, 40))
    height = min(10 ** rng.uniform(1.8, 2.65), 0.98 * 512)
    pitch, start = height * rng.uniform(1.0, 1.25), rng.uniform(0, height)
    row = np.floor((rows + start) / pitch).astype(np.int32)
    row -= row.min()
    across = (rows + start) % pitch
    along = columns + rng.normal(0, 0.25) * across
    label, edge = np.zeros((size, size), np.int32), np.zeros((size, size), np.float32)
    mean = height * 10 ** rng.uniform(-0.45, 0.35)
    crack = 10 ** rng.uniform(-0.3, 1.1)
    for at in range(int(row.max()) + 1):
        inside = row == at
        ends = np.cumsum(mean * rng.lognormal(0, 0.6, 80)) - 300 - mean * rng.random()
        tilted = (
            along + rng.normal(0, 0.3) * across + rng.uniform(0, 0.06) * height * noise(rng, size, size / 60)
        )
        piece = np.searchsorted(ends, tilted).clip(1, 79)
        near = np.minimum(tilted - ends[piece - 1], ends[piece] - tilted)
        gap = (crack * rng.lognormal(0, 0.7, 81)).astype(np.float32)
        ragged = near - 0.5 * gap[piece]
        label[inside] = (piece + 100 * at + 1)[inside]
        edge[inside] = ragged[inside]
    side = np.minimum(across, height - across) - rng.uniform(0, 3)
    corner = rng.uniform(0, 0.2) * height
    edge = _rounded(edge, side, corner)
    label = _crushed(rng, label, rows, columns, edge, 0.3 * mean) if rng.random() < 0.35 else label
    lost = rng.random(int(label.max()) + 1) < rng.choice([0.0, 0.08, 0.2])
    return Layout(np.where((edge > 0) & ~lost[label], label, 0).astype(np.int32), edge)


def _crushed(rng: Random, label: Ints, rows: Floats, columns: Floats, edge: Floats, pitch: float) -> Ints:
    """Break some pieces into rubble; `edge` is lowered along the new cracks in place."""
    pitch = max(pitch, 14.0)
    found = cells(rng, rows, columns, (pitch, pitch), 0.3)
    broken = (rng.random(int(label.max()) + 1) < 0.3)[label]
    np.copyto(edge, np.minimum(edge, found.edge - rng.uniform(0, 2)), where=broken)
    return np.where(broken, label + 1000 * found.label, label).astype(np.int32)


def _sediment(rng: Random, size: int) -> Layout:
    """Layers across the frame, sharp or wavy, perhaps cracked, perhaps with the liner at the sides."""
    rows, columns = warped(rng, size, rng.uniform(0, 10), rng.uniform(30, 300))
    thickness = 10 ** rng.uniform(1.2, 2.2)
    ends = np.cumsum(thickness * rng.lognormal(0, 0.7, 120)) - 100
    at = rows + rng.normal(0, 0.12) * columns + 30
    layer = np.searchsorted(ends, at).clip(1, 119)
    edge = np.minimum(at - ends[layer - 1], ends[layer] - at).astype(np.float32)
    label = layer.astype(np.int32)
    if rng.random() < 0.35:
        crack = np.abs(octaves(rng, size, rng.uniform(0.5, 3), 3)) * size / 8 - np.float32(
            rng.uniform(0.3, 4)
        )
        edge = np.minimum(edge, crack)
        label = np.where(crack > 0, label, 0).astype(np.int32)
    if rng.random() < 0.4:
        left, right = rng.uniform(-60, 0.12 * size), size - rng.uniform(-60, 0.12 * size)
        outside = np.minimum(columns - left, right - columns)
        edge = np.minimum(edge, outside)
        label = np.where(outside > 0, label, 0).astype(np.int32)
    return Layout(label, edge)


def _grains(rng: Random, size: int) -> Layout:
    """Grains or clasts apart from each other in a matrix, which is one object as well, or a gap."""
    pitch = 10 ** rng.uniform(1.3, 2.1)
    rows, columns = warped(rng, size, pitch * rng.uniform(0.02, 0.15), pitch * rng.uniform(0.4, 1.5))
    found = cells(rng, rows, columns, (pitch, pitch * rng.uniform(0.6, 1.8)), rng.uniform(0, 0.3))
    chance = rng.random(int(found.label.max()) + 1, dtype=np.float32)[found.label]
    round_edge = pitch * rng.uniform(0.3, 0.7) * (0.5 + chance) - found.centre
    edge = np.minimum(found.edge - np.float32(rng.uniform(0.3, 4)), round_edge)
    there = (edge > 0) & (chance < rng.uniform(0.4, 1.05))
    matrix = 1 if rng.random() < 0.6 else 0
    label = np.where(there, found.label + 1, matrix).astype(np.int32)
    return Layout(label, np.where(there, edge, 20 * matrix))


def _mosaic(rng: Random, size: int) -> Layout:
    """Pieces that fill the frame, along cracks or without any."""
    pitch = 10 ** rng.uniform(1.5, 2.4)
    rows, columns = warped(rng, size, pitch * rng.uniform(0.01, 0.12), pitch * rng.uniform(0.3, 1.5))
    found = cells(rng, rows, columns, (pitch, pitch * rng.uniform(0.5, 2)), rng.uniform(0, 0.4))
    crack = rng.choice([0.0, 0.8, 1.5, 3.0, 8.0]) * rng.uniform(0.5, 1)
    edge = found.edge - np.float32(crack)
    lost = rng.random(int(found.label.max()) + 1) < rng.choice([0.0, 0.1])
    return Layout(np.where((edge > 0) & ~lost[found.label], found.label, 0).astype(np.int32), edge)


def warped(rng: Random, size: int, height: float, length: float) -> tuple[Floats, Floats]:
    """Coordinates shaken by noise of `height` px and features of `length` px."""
    rows, columns = coordinates(size)
    shake = [np.float32(height) * octaves(rng, size, size / length, 3) for _ in range(2)]
    return rows + shake[0], columns + shake[1]


def _rounded(first: Floats, second: Floats, radius: float) -> Floats:
    """Distance to the edge of where both are positive, corners rounded."""
    if radius <= 0:
        return np.minimum(first, second)
    short = np.maximum(radius - np.stack([first, second]), 0)
    corner = radius - np.hypot(short[0], short[1])
    return np.asarray(np.minimum(np.minimum(first, second), corner), np.float32)


LAYOUTS: tuple[Callable[[Random, int], Layout], ...] = (_rows_of_fragments, _sediment, _grains, _mosaic)
