"""Splits by depth: neighbouring rows of a core are nearly the same row, so blocks are held out whole."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import ConfigError
from lithostream.training.data.tiles import TileSet

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

VALIDATION_PARTS = 6  # one part in so many of the training blocks decides when to stop


def depth_blocks(tiles: TileSet, block_cm: float) -> Ints:
    """Block of each row, int64 [R], numbered from 0: stretches of `block_cm` of one section."""
    slot = np.floor(0.5 * (tiles.top_cm + tiles.base_cm) / block_cm).astype(np.int64)
    _, block = np.unique(np.stack([tiles.section, slot]), axis=1, return_inverse=True)
    return block.ravel().astype(np.int64)


def assign_folds(block: Ints, folds: int, seed: int) -> Ints:
    """Deal the blocks of each row [R] into folds of nearly equal numbers of blocks, int64 [R].

    Raises
    ------
    ConfigError
        Fewer blocks than folds.
    """
    numbers, position = np.unique(block, return_inverse=True)
    if len(numbers) < folds:
        raise ConfigError(
            f"{len(numbers)} depth blocks cannot fill {folds} folds",
            place="split",
            fix="lower block_cm or folds, or add sections",
        )
    dealt = np.random.default_rng(seed).permutation(len(numbers)) % folds
    return dealt[position.ravel()]


def away_from(tiles: TileSet, held: Bools, buffer_cm: float) -> Bools:
    """Rows that may be trained on: not `held` [R], and at least `buffer_cm` from each held row of the section."""
    free = ~held
    for section in np.unique(tiles.section[held]):
        here = np.flatnonzero((tiles.section == section) & ~held)
        other = held & (tiles.section == section)
        gap = np.maximum(
            tiles.top_cm[here, None] - tiles.base_cm[other], tiles.top_cm[other] - tiles.base_cm[here, None]
        )
        free[here] = gap.min(axis=1) >= buffer_cm - 1e-9
    return free


def validation_splits(
    tiles: TileSet, allowed: Bools, block: Ints, buffer_cm: float, count: int, seed: int
) -> list[tuple[Bools, Bools]]:
    """Split the `allowed` rows, `count` times, into those to fit and those that decide when to stop.

    Returns
    -------
    list of (train, validation) : bool [R]
        Other blocks are the validation rows each time; the buffer lies between the two.

    Raises
    ------
    ConfigError
        The rows are of a single block.
    """
    parts = max(2, min(VALIDATION_PARTS, len(np.unique(block[allowed]))))
    part = np.full(len(block), -1)
    part[allowed] = assign_folds(block[allowed], parts, seed)
    held = [part == k for k in range(min(count, parts))]
    return [(allowed & away_from(tiles, validation, buffer_cm), validation) for validation in held]


def check_measured(tiles: TileSet, rows: Bools) -> None:
    """Refuse training rows [R] without any reading of a target.

    Raises
    ------
    ConfigError
        Naming the target.
    """
    labels = tiles.labels[rows]
    missing = [
        name for name, label in zip(tiles.targets, labels.T, strict=True) if not np.isfinite(label).any()
    ]
    if missing:
        raise ConfigError(
            f"none of {np.count_nonzero(rows)} training rows has a reading of {', '.join(missing)}",
            place="split",
            fix="lower buffer_cm or block_cm, or add sections",
        )
