"""Scenes of cores with the exact outline of everything in them, drawn from a seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.training.segmenter.camera import photograph
from lithostream.training.segmenter.fields import (
    Bytes,
    Floats,
    Ints,
    Random,
    cells,
    coordinates,
    noise,
    octaves,
    step,
)
from lithostream.training.segmenter.layouts import LAYOUTS, Layout, warped
from lithostream.training.segmenter.sheets import SHARE, cut
from lithostream.training.segmenter.textures import colour, material, plain

LEAST_PX = 64  # pixels of an object; fewer belong to what is around it, or to nothing


class Scene(NamedTuple):
    """A picture and what is in it.

    Attributes
    ----------
    rgb : uint8 [S, S, 3]
    whole : int32 [S, S]
        Fragment, layer, grain; 0 is a gap or what the core lies in.
    part : int32 [S, S]
        Clast or band within one of them, or 0.
    """

    rgb: npt.NDArray[np.uint8]
    whole: Ints
    part: Ints


def scene(seed: int, size: int = 512, sheets: Sequence[Bytes] = ()) -> Scene:
    """Draw a scene: rows of fragments, sediment, grains in a matrix, or a mosaic.

    Parameters
    ----------
    seed : int
    size : int
        S, by 8. A smaller scene is a cut-out: objects have the same size in px.
    sheets : sequence of uint8 [h, w, 3]
        Photographs of core, see `read_sheets`, that some of the materials are taken from.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(4, p=(0.45, 0.2, 0.15, 0.2))
    layout = LAYOUTS[kind](rng, size)
    if rng.random() < 0.5:
        layout = Layout(layout.label.T.copy(), layout.edge.T.copy())
    whole = renumbered(layout.label)
    part, part_edge = _parts(rng, whole, layout.edge) if kind != 2 and rng.random() < 0.4 else (None, None)
    image = _painted(rng, whole, sheets)
    if part is not None and part_edge is not None:
        image = _painted_parts(rng, image, part, part_edge)
    image = _set_into(rng, image, whole, layout.edge)
    whole, part = whole.copy(), np.zeros_like(whole) if part is None else part
    if rng.random() < 0.15:
        _label_on(rng, image, whole, part)
    return Scene(photograph(rng, image), whole, part)


def renumbered(label: Ints) -> Ints:
    """Return labels numbered 1 .. N in order, those of under `LEAST_PX` pixels as 0."""
    count = np.bincount(label.ravel())
    keep = count >= LEAST_PX
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.int32)[label]


def _parts(rng: Random, whole: Ints, edge: Floats) -> tuple[Ints, Floats]:
    """Clasts or bands within objects, and the distance to their edges."""
    size = len(whole)
    if rng.random() < 0.6:
        pitch = 10 ** rng.uniform(1.25, 1.9)
        rows, columns = warped(rng, size, 0.1 * pitch, 0.7 * pitch)
        found = cells(rng, rows, columns, (pitch, pitch * rng.uniform(0.6, 1.6)))
        chance = rng.random(int(found.label.max()) + 1, dtype=np.float32)[found.label]
        border = np.minimum(found.edge, pitch * rng.uniform(0.25, 0.5) * (0.5 + chance) - found.centre)
        there, label = (border > 0) & (chance < rng.uniform(0.2, 0.9)), found.label
    else:
        rows, columns = warped(rng, size, rng.uniform(0, 8), rng.uniform(30, 200))
        at = rows * np.cos(angle := rng.normal(0, 0.5)) + columns * np.sin(angle) + 600
        ends = np.cumsum(10 ** rng.uniform(0.9, 1.8) * rng.lognormal(0, 0.6, 400))
        label = np.searchsorted(ends, at).clip(1, 399).astype(np.int32)
        border = np.minimum(at - ends[label - 1], ends[label] - at)
        there = rng.random(401)[label] < 0.4
    chosen = (rng.random(int(whole.max()) + 1) < 0.6)[whole]
    label = np.where(there & chosen & (whole > 0), label + 1000 * whole, 0).astype(np.int32)
    return renumbered(label), np.minimum(border, edge).astype(np.float32)


def _painted(rng: Random, whole: Ints, photographs: Sequence[Bytes]) -> Floats:
    """Give every object a material, cut from another place and turned another way, and its own shade."""
    size, count = len(whole), int(whole.max()) + 1
    ground = plain(rng, size)
    materials = [_material(rng, size, photographs) for _ in range(int(rng.integers(1, 4)))]
    sheets = np.stack([ground, *materials])
    alike = rng.random() < 0.5
    sheet = rng.integers(1, len(sheets), count) if not alike else np.full(count, 1)
    sheet[0] = 0
    angle = rng.normal(0, 0.5, count) * (rng.random() < 0.6) + (rng.random(count) < 0.5) * np.pi
    move = rng.integers(0, size, (2, count))
    move[:, 0], angle[0] = 0, 0
    rows, columns = coordinates(size)
    cosine, sine = np.cos(angle).astype(np.float32)[whole], np.sin(angle).astype(np.float32)[whole]
    y = (cosine * rows - sine * columns + move[0][whole]).astype(np.int32) % (2 * size)
    x = (sine * rows + cosine * columns + move[1][whole]).astype(np.int32) % (2 * size)
    y, x = np.minimum(y, 2 * size - 1 - y), np.minimum(x, 2 * size - 1 - x)  # mirrored: no seam
    image = sheets[sheet[whole], y, x]
    shade = rng.normal(1, rng.choice([0.01, 0.05, 0.12]), count)
    tint = shade[:, None] * rng.normal(1, 0.015, (count, 3))
    tint[0] = 1
    return np.asarray(image * tint.astype(np.float32)[whole], np.float32)


def _material(rng: Random, size: int, photographs: Sequence[Bytes]) -> Floats:
    real = bool(photographs) and rng.random() < SHARE
    return cut(rng, photographs, size) if real else material(rng, size)


def _painted_parts(rng: Random, image: Floats, part: Ints, edge: Floats) -> Floats:
    count = int(part.max()) + 1
    tones = np.stack([colour(rng) for _ in range(3)])[rng.integers(0, 3, count)]
    tones = (tones * rng.normal(1, 0.06, (count, 1))).astype(np.float32)
    weight = (rng.uniform(0.35, 1) * (part > 0) * step(edge, 1.5))[..., None].astype(np.float32)
    detail = image - image.mean(axis=(0, 1))
    return np.asarray(image * (1 - weight) + weight * (tones[part] + 0.5 * detail), np.float32)


def _set_into(rng: Random, image: Floats, whole: Ints, edge: Floats) -> Floats:
    """Shade objects towards their edges, darken gaps, and let objects throw a shadow on what is behind."""
    size = len(whole)
    inside = whole > 0
    roundness = rng.uniform(0, 0.6)
    image = image * (1 - roundness * (1 - step(edge, 10 ** rng.uniform(0.2, 1.5))) * inside)[..., None]
    if rng.random() < 0.5:
        rim = rng.uniform(-0.3, 0.3) * octaves(rng, size, size / 50, 2)  # worn and dusty edges
        image = image * (1 + rim * (1 - step(edge, 6)) * inside)[..., None]
    if rng.random() < 0.8:
        depth = rng.uniform(0.3, 1) * step(-edge + 1, 10 ** rng.uniform(0, 1))
        image = image * (1 - np.where(inside, 0, depth))[..., None]
    if rng.random() < 0.5:
        reach = rng.integers(-9, 10, 2)
        shadow = np.roll(inside, tuple(reach), (0, 1)) & ~inside
        image = image * (1 - rng.uniform(0.2, 0.8) * shadow)[..., None]
    return np.asarray(image, np.float32)


def _label_on(rng: Random, image: Floats, whole: Ints, part: Ints) -> None:
    """Lay a paper label with writing onto the scene; it is an object."""
    size = len(whole)
    height, width = int(rng.integers(18, 70)), int(rng.integers(40, 160))
    top, left = rng.integers(0, max(size - height, 1)), rng.integers(0, max(size - width, 1))
    at = slice(top, top + height), slice(left, left + width)
    paper = rng.uniform(170, 250) + rng.normal(0, 5, 3)
    ink = noise(rng, size, size / 4)[at] > 0.9
    ink &= (np.arange(ink.shape[0]) % 14 < 8)[:, None]
    image[at] = np.where(ink[..., None], rng.uniform(10, 80), paper)
    whole[at], part[at] = int(whole.max()) + 1, 0
