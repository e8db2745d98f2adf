"""Spatial blocks: rows of one place or one observation stay together, and a buffer lies around what is held out."""

from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

from lithostream.training.transfer.alike import ALIKE, distances
from lithostream.training.transfer.config import Blocks
from lithostream.training.transfer.tables import Flags, Floats, Integers

SAME_PLACE_M = 1.0


class Repeat(NamedTuple):
    """One partition of rows into folds, and what each model of it learns from.

    Attributes
    ----------
    fold : int64 [N]
        Of each row.
    outer : bool [K, N]
        Rows that the model of fold k learns from.
    inner : bool [K, K, N]
        Rows that the model learns from that neither k nor j are in; it scores fold j for the threshold and the
        calibration of fold k. [k, j] is [j, k].
    held : bool [K, N]
    """

    fold: Integers
    outer: Flags
    inner: Flags
    held: Flags


def groups(place: Floats, components: Floats) -> Integers:
    """Give rows [N] numbers that those of one place, or of one observation, share, int64 [N]."""
    near = np.linalg.norm(place[:, None] - place[None], axis=2) < SAME_PLACE_M
    same = distances(components, components, np.ones(1)) < ALIKE
    numbers: Integers = connected_components(near | same, directed=False)[1].astype(np.int64)
    return numbers


def draw_blocks(place: Floats, group: Integers, edge_m: float, rng: np.random.Generator) -> Integers:
    """Give rows [N] the number of their block on a grid of random shift and angle; blocks that share a group are one."""
    angle, shift = rng.uniform(0, np.pi / 2), rng.uniform(0, edge_m, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cell = np.floor((place @ turn.T + shift) / edge_m).astype(np.int64)
    block = np.unique(cell, axis=0, return_inverse=True)[1].ravel()
    joined = (block[:, None] == block[None]) | (group[:, None] == group[None])
    numbers: Integers = connected_components(joined, directed=False)[1].astype(np.int64)
    return numbers


def deal(block: Integers, labels: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """Deal blocks into folds of like numbers of deposits, then of rows: richest block first, int64 [N]."""
    count = int(block.max()) + 1
    positives, rows = np.bincount(block, labels, count), np.bincount(block, minlength=count)
    dealt, held = np.zeros(count, np.int64), np.zeros((folds, 2))
    total = max(positives.sum(), 1), len(block)
    for one in np.lexsort((rng.random(count), -rows, -positives)):
        weight = held[:, 0] / total[0] * (10 if positives[one] else 0) + held[:, 1] / total[1]
        dealt[one] = int(weight.argmin())
        held[dealt[one]] += positives[one], rows[one]
    return dealt[block]


def draw(place: Floats, components: Floats, labels: Integers, blocks: Blocks, seed: int) -> Repeat:
    """Draw one partition.

    Parameters
    ----------
    place : float64 [N, 2]
        In m; every row has one.
    components : float64 [N, C]
        In standard deviations.
    labels : int64 [N]
    blocks : Blocks
    seed : int
    """
    rng = np.random.default_rng(seed)
    block = draw_blocks(place, groups(place, components), blocks.edge_m, rng)
    fold = deal(block, labels, blocks.folds, rng)
    held = fold[None] == np.arange(blocks.folds)[:, None]
    apart = np.linalg.norm(place[:, None] - place[None], axis=2)
    outer = np.array([apart[:, rows].min(axis=1, initial=np.inf) > blocks.buffer_m for rows in held]) & ~held
    return Repeat(fold, outer, outer[:, None] & outer[None], held)


def pairs(folds: int) -> list[tuple[int, int]]:
    """Pairs of folds, each once."""
    return [(k, j) for k in range(folds) for j in range(k + 1, folds)]
