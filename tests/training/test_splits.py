from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.training.config import SplitConfig
from lithostream.training.data.profile import Profile
from lithostream.training.data.splits import (
    assign_folds,
    away_from,
    cores,
    depth_blocks,
    held_out_parts,
    validation_parts,
    validation_splits,
)
from lithostream.training.data.tiles import TileSet

PLAIN = Section("s", Path("s.tif"), 16.0, "manifest")


def named(count: int) -> tuple[Section, ...]:
    return tuple(replace(PLAIN, name=f"s{i}") for i in range(count))


def rows_only(
    section: np.ndarray, top: np.ndarray, height: float, sections: tuple[Section, ...] | None = None
) -> TileSet:
    count = len(top)
    return TileSet(
        targets=("density",),
        sections=named(int(section.max()) + 1) if sections is None else sections,
        pixels=np.zeros((count, 8, 8, 3), np.uint8),
        moments=np.zeros((count, 2, 3)),
        tile=np.arange(count),
        row=np.arange(count),
        core_fraction=np.ones(count),
        labels=np.ones((count, 1)),
        interpolated=np.zeros((count, 1), np.bool_),
        section=section,
        top_cm=top,
        base_cm=top + height,
        place=np.arange(count),
        profile=Profile(section, np.arange(count), np.zeros((count, 3))),
    )


@st.composite
def data_sets(draw: st.DrawFn) -> TileSet:
    """Rows of several sections of several cores, some of which know their depth in the hole, or are scans of one."""
    height = draw(st.sampled_from([0.5, 1.0, 2.0]))
    sections: list[Section] = []
    section: list[np.ndarray] = []
    tops: list[np.ndarray] = []
    for core in range(draw(st.integers(2, 4))):
        depth_cm = draw(st.sampled_from([0.0, 130.0, 1000.0]))
        hole = draw(st.sampled_from(["A", "B", None]))
        knows = draw(st.booleans())
        for number in range(draw(st.integers(1, 3))):
            length = draw(st.sampled_from([20.0, 33.0, 80.0]))
            one = replace(
                PLAIN,
                name=f"c{core}s{number}",
                hole=hole,
                core=draw(st.sampled_from([f"{core}H", f"{core}H", None])),
                section=draw(st.sampled_from([str(number), "1", None])),
                hole_top_m=depth_cm / 100 if knows else None,
            )
            depth_cm += length + draw(st.sampled_from([0.0, 2.0, 40.0]))
            top = np.arange(draw(st.sampled_from([0.0, 0.3])), length - height, height)
            top = top[np.random.default_rng(draw(st.integers(0, 99))).random(len(top)) < 0.8]
            section.append(np.full(len(top), len(sections)))
            sections.append(one)
            tops.append(top)
    return rows_only(np.concatenate(section), np.concatenate(tops), height, tuple(sections))


@settings(deadline=None, max_examples=60)
@given(
    tiles=data_sets(),
    kind=st.sampled_from(["block", "core"]),
    block_cm=st.sampled_from([5.0, 12.5, 20.0]),
    buffer_cm=st.sampled_from([0.0, 1.0, 6.0, 15.0]),
    seed=st.integers(0, 99),
)
def test_no_training_footprint_lies_within_the_buffer_of_a_held_out_one(
    tiles: TileSet, kind: str, block_cm: float, buffer_cm: float, seed: int
) -> None:
    split = SplitConfig.model_validate({"kind": kind, "block_cm": block_cm, "buffer_cm": buffer_cm})
    part = held_out_parts(tiles, split)
    folds = min(4, len(np.unique(part)))
    if folds < 2:
        return
    fold = assign_folds(part, folds, seed)
    assert all(len(np.unique(fold[part == one])) == 1 for one in np.unique(part))
    held_out = np.zeros(len(fold), np.int64)
    for k in range(folds):
        held = fold == k
        held_out += held
        free = away_from(tiles, held, buffer_cm)
        assert not (free & held).any()
        assert_apart(tiles, free, held, buffer_cm)
        parts = validation_parts(tiles, split, free)
        if len(np.unique(parts[free])) < 2:
            continue
        for train, validation in validation_splits(tiles, free, parts, buffer_cm, 2, seed):
            assert not (train & (validation | held)).any()
            assert not (validation & held).any()
            assert_apart(tiles, train, validation, buffer_cm)
    assert np.all(held_out == 1)


def assert_apart(tiles: TileSet, one: np.ndarray, other: np.ndarray, buffer_cm: float) -> None:
    """Hold every pair of rows that can be compared at all against the buffer, in plain loops over sections."""
    for i, a in enumerate(tiles.sections):
        for j, b in enumerate(tiles.sections):
            mine, theirs = one & (tiles.section == i), other & (tiles.section == j)
            if not (mine.any() and theirs.any()):
                continue
            named_alike = a.section is not None and (a.hole or a.core) is not None
            same = (a.hole, a.core, a.section) == (b.hole, b.core, b.section)
            if i == j or (named_alike and same):
                assert smallest_gap(tiles, mine, theirs, 0.0) >= buffer_cm - 1e-6
            same_hole = a.hole == b.hole if a.hole else (not b.hole and a.core and a.core == b.core)
            if same_hole and a.hole_top_m is not None and b.hole_top_m is not None:
                shift = 100 * (b.hole_top_m - a.hole_top_m)
                assert smallest_gap(tiles, mine, theirs, shift) >= buffer_cm - 1e-6


def smallest_gap(tiles: TileSet, one: np.ndarray, other: np.ndarray, shift: float) -> float:
    top, base = tiles.top_cm[one][:, None], tiles.base_cm[one][:, None]
    return float(np.maximum(tiles.top_cm[other] + shift - base, top - tiles.base_cm[other] - shift).min())


def test_the_buffer_reaches_across_adjoining_sections_of_known_depth() -> None:
    upper = replace(PLAIN, name="u", hole="A", core="1H", section="1", hole_top_m=3.0)
    lower = replace(PLAIN, name="l", hole="A", core="1H", section="2", hole_top_m=3.5)
    tiles = rows_only(np.repeat([0, 1], 50), np.tile(np.arange(50.0), 2), 1.0, (upper, lower))
    held = tiles.section == 0
    assert np.flatnonzero(~away_from(tiles, held, 3.0)).tolist() == [*range(50), 50, 51, 52]
    apart = replace(tiles, sections=(upper, replace(lower, hole_top_m=None)))
    assert np.array_equal(away_from(apart, held, 3.0), ~held)
    elsewhere = replace(tiles, sections=(upper, replace(lower, hole="B")))
    assert np.array_equal(away_from(elsewhere, held, 3.0), ~held)


def test_two_scans_of_one_section_are_one_section() -> None:
    wet = replace(PLAIN, name="wet", hole="A", core="1H", section="1")
    dry = replace(wet, name="dry")
    tiles = rows_only(np.repeat([0, 1], 50), np.tile(np.arange(50.0), 2), 1.0, (wet, dry))
    block = depth_blocks(tiles, 10.0)
    assert np.array_equal(block[:50], block[50:]) and block.max() == 4
    free = away_from(tiles, tiles.section == 0, 0.5)
    assert not free.any()


def test_whole_cores_are_held_out_and_leave_one_out_takes_each_once() -> None:
    identities = [("A", "1H", "1"), ("A", "1H", "2"), ("B", "1H", "1"), (None, "2H", "1"), (None, None, "1")]
    sections = tuple(
        replace(PLAIN, name=f"s{i}", hole=hole, core=core, section=section)
        for i, (hole, core, section) in enumerate([*identities, (None, None, "1")])
    )
    tiles = rows_only(np.repeat(np.arange(6), 10), np.tile(np.arange(10.0), 6), 1.0, sections)
    core = cores(tiles)
    assert core[::10].tolist() == [0, 0, 1, 2, 3, 4]
    split = SplitConfig(kind="core", folds=5)
    fold = assign_folds(held_out_parts(tiles, split), split.folds, 3)
    assert sorted(np.unique(core[fold == k]).tolist() for k in range(5)) == [[0], [1], [2], [3], [4]]
    with pytest.raises(ConfigError, match=r"5 parts .* cannot fill 6 folds"):
        assign_folds(held_out_parts(tiles, split), 6, 3)


def test_a_single_core_left_to_train_on_is_validated_by_blocks() -> None:
    tiles = rows_only(np.repeat([0, 1, 2], 60), np.tile(np.arange(60.0), 3), 1.0)
    split = SplitConfig(kind="core", block_cm=20.0)
    assert np.array_equal(validation_parts(tiles, split, tiles.section > 0), cores(tiles))
    alone = validation_parts(tiles, split, tiles.section == 1)
    assert np.array_equal(alone, depth_blocks(tiles, 20.0))


def test_random_rows_are_dealt_singly_without_a_buffer_and_called_leaky() -> None:
    tiles = rows_only(np.zeros(40, np.int64), np.arange(40.0), 1.0)
    split = SplitConfig(kind="random", folds=4)
    assert split.leaky and split.gap_cm == 0 and "leaky" in split.describe()
    fold = assign_folds(held_out_parts(tiles, split), split.folds, 0)
    assert np.bincount(fold).tolist() == [10, 10, 10, 10]
    assert np.array_equal(away_from(tiles, fold == 0, split.gap_cm), fold != 0)
    assert not SplitConfig().leaky and "leaky" not in SplitConfig(kind="core").describe()


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
    with pytest.raises(ConfigError, match=r"2 parts .* cannot fill 3 folds"):
        assign_folds(np.array([0, 0, 1]), 3, 0)


@pytest.mark.parametrize(("kind", "leaky"), [("block", False), ("core", False), ("random", True)])
def test_a_report_says_whether_its_split_leaks(core_tiles: TileSet, kind: str, leaky: bool) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from lithostream.training.out_of_fold import baseline_folds
    from lithostream.training.report import MODEL, report_target

    twins = replace(core_tiles, sections=(core_tiles.sections[0], replace(PLAIN, name="twin")))
    half = np.arange(len(twins.labels)) % 2
    tiles = replace(twins, section=half)  # two cores, by name only
    split = SplitConfig.model_validate({"kind": kind, "folds": 2})
    linear = np.zeros(len(tiles.targets), np.bool_)
    run = baseline_folds(tiles, split, 0, linear)
    run.found[MODEL] = run.found["ridge"]
    report = report_target(tiles, 0, [run], linear, leaky=split.leaky)
    assert report.leaky is leaky
    assert report.scores["ridge"].rows == np.isfinite(tiles.labels[:, 0]).sum()
    drawn = np.arange(len(half)) % 3 == 0
    unread = replace(tiles, interpolated=np.broadcast_to(drawn[:, None], tiles.labels.shape))
    assert (
        report_target(unread, 0, [run], linear).scores["ridge"].rows
        == np.isfinite(tiles.labels[~drawn, 0]).sum()
    )
