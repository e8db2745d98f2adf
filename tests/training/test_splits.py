import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.engine.errors import ConfigError
from lithostream.training.data.splits import assign_folds, away_from, depth_blocks, validation_splits
from lithostream.training.data.tiles import TileSet


def rows_only(section: np.ndarray, top: np.ndarray, height: float) -> TileSet:
    count = len(top)
    return TileSet(
        ("density",),
        (),
        np.zeros((count, 8, 8, 3), np.uint8),
        np.arange(count),
        np.ones(count),
        np.ones((count, 1)),
        section,
        top,
        top + height,
    )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    folds=st.integers(2, 5),
    block_cm=st.sampled_from([5.0, 12.5, 20.0]),
    buffer_cm=st.sampled_from([0.0, 1.0, 6.0, 15.0]),
    height=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_no_training_row_lies_within_the_buffer_of_a_held_out_row(
    seed: int, folds: int, block_cm: float, buffer_cm: float, height: float
) -> None:
    rng = np.random.default_rng(seed)
    top = np.concatenate([np.arange(0, 120, height), np.arange(0, 90, height)])
    section = np.repeat([0, 1], [len(np.arange(0, 120, height)), len(np.arange(0, 90, height))])
    keep = rng.random(len(top)) < 0.8
    tiles = rows_only(section[keep], top[keep], height)
    block = depth_blocks(tiles, block_cm)
    fold = assign_folds(block, folds, seed)
    for k in range(folds):
        held = fold == k
        free = away_from(tiles, held, buffer_cm)
        assert not (free & held).any()
        if len(np.unique(block[free])) < 2:
            continue
        for train, validation in validation_splits(tiles, free, block, buffer_cm, 2, seed):
            assert not (train & (validation | held)).any()
            assert not (validation & held).any()
            assert_apart(tiles, train, validation, buffer_cm)
            assert_apart(tiles, train | validation, held, buffer_cm)


def assert_apart(tiles: TileSet, one: np.ndarray, other: np.ndarray, buffer_cm: float) -> None:
    for i in np.flatnonzero(one):
        same = other & (tiles.section == tiles.section[i])
        gap = np.maximum(tiles.top_cm[same] - tiles.base_cm[i], tiles.top_cm[i] - tiles.base_cm[same])
        assert np.all(gap >= buffer_cm - 1e-6)


def test_a_block_is_never_torn_and_folds_are_even() -> None:
    tiles = rows_only(np.repeat([0, 1, 2], 100), np.tile(np.arange(100.0), 3), 1.0)
    block = depth_blocks(tiles, 20.0)
    assert np.array_equal(np.bincount(block), np.full(15, 20))
    fold = assign_folds(block, 4, 7)
    blocks_of_fold = [len(np.unique(block[fold == k])) for k in range(4)]
    assert sorted(blocks_of_fold) == [3, 4, 4, 4]
    assert all(len(np.unique(fold[block == b])) == 1 for b in range(15))
    assert not np.array_equal(fold, assign_folds(block, 4, 8))


def test_the_buffer_does_not_reach_into_another_section() -> None:
    tiles = rows_only(np.repeat([0, 1], 50), np.tile(np.arange(50.0), 2), 1.0)
    held = tiles.section == 0
    assert np.array_equal(away_from(tiles, held, 1000.0), ~held)


def test_a_buffer_keeps_exactly_the_rows_beyond_it() -> None:
    tiles = rows_only(np.zeros(20, np.int64), np.arange(20.0), 1.0)
    free = away_from(tiles, tiles.top_cm == 10, 3.0)
    # Row 10 spans 10..11 cm: row 6 ends 3 cm above it and stays, row 7 does not.
    assert np.flatnonzero(~free).tolist() == [7, 8, 9, 10, 11, 12, 13]


def test_too_few_blocks_for_the_folds_is_an_error() -> None:
    with pytest.raises(ConfigError, match="2 depth blocks cannot fill 3 folds"):
        assign_folds(np.array([0, 0, 1]), 3, 0)
