"""Rows that are one observation: the same values, printed or measured a little differently."""

import hashlib

import numpy as np

from lithostream.training.transfer.tables import Flags, Floats

ALIKE = 0.01
"""Rows nearer than this in every component, in standard deviations of the labelled rows, are one observation."""


def distances(rows: Floats, others: Floats, spread: Floats) -> Floats:
    """Largest difference in any component, in standard deviations, float64 [len(rows), len(others)]."""
    apart: Floats = np.abs((rows[:, None] - others[None]) / spread).max(axis=2)
    return apart


def alike(rows: Floats, others: Floats, spread: Floats) -> Flags:
    """Tell which rows [N, C] are, nearly, one of the others, bool [N]."""
    return np.array([bool((distances(row[None], others, spread) < ALIKE).any()) for row in rows], np.bool_)


def fingerprints(rows: Floats, spread: Floats) -> list[tuple[str, ...]]:
    """Short hashes of rows [N, C], by which a row is known again without its values: two alike ones share a hash.

    Each hash is of a cell of a grid of C + 1 `ALIKE`, on C + 1 grids that are shifted by one `ALIKE` each: a border
    lies between two rows that are alike in at most one grid for each component, so that one grid is left.
    """
    grids = rows.shape[1] + 1
    cells = [np.floor(rows / spread / ALIKE / grids + shift / grids) + 0.0 for shift in range(grids)]
    return [
        tuple(
            hashlib.sha256(bytes([shift]) + cell[row].astype("<f8").tobytes()).hexdigest()[:12]
            for shift, cell in enumerate(cells)
        )
        for row in range(len(rows))
    ]
