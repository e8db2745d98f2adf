"""Splits by depth: neighbouring rows of a core are nearly the same row, so blocks or cores are held out whole."""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.training.config import SplitConfig
from lithostream.training.data.profile import Rows, on_scale

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VALIDATION_PARTS = 6  # one part in so many of the training blocks decides when to stop


def held_out_parts(tiles: Rows, split: SplitConfig) -> Ints:
    """Part of each row that is held out whole under a split, int64 [R], numbered from 0."""
    if split.kind == "block":
        return depth_blocks(tiles, split.block_cm)
    return cores(tiles) if split.kind == "core" else np.arange(len(tiles.labels))


def validation_parts(tiles: Rows, split: SplitConfig, allowed: Bools) -> Ints:
    """Part of each row that is set aside whole while fitting to the `allowed` rows [R], int64 [R].

    As `held_out_parts`; within a single core these are depth blocks.
    """
    parts = held_out_parts(tiles, split)
    if split.kind == "core" and len(np.unique(parts[allowed])) == 1:
        return depth_blocks(tiles, split.block_cm)
    return parts


def cores(tiles: Rows) -> Ints:
    """Core of each row, int64 [R], numbered from 0: hole and core, or the section where neither is known."""
    return _numbers([_core(section) for section in tiles.sections])[tiles.section]


def depth_blocks(tiles: Rows, block_cm: float) -> Ints:
    """Block of each row, int64 [R], numbered from 0: stretches of `block_cm` of one section."""
    section = _numbers([_identity(section) for section in tiles.sections])[tiles.section]
    slot = np.floor(0.5 * (tiles.top_cm + tiles.base_cm) / block_cm).astype(np.int64)
    _, block = np.unique(np.stack([section, slot]), axis=1, return_inverse=True)
    return block.ravel().astype(np.int64)


def assign_folds(part: Ints, folds: int, seed: int) -> Ints:
    """Deal the parts of each row [R] into folds of nearly equal numbers of parts, int64 [R].

    Raises
    ------
    ConfigError
        Fewer parts than folds.
    """
    numbers, position = np.unique(part, return_inverse=True)
    if len(numbers) < folds:
        raise ConfigError(
            f"{len(numbers)} parts (depth blocks, cores or rows) cannot fill {folds} folds",
            place="split",
            fix="lower block_cm or folds, or add sections or cores",
        )
    dealt = np.random.default_rng(seed).permutation(len(numbers)) % folds
    return dealt[position.ravel()]


def away_from(tiles: Rows, held: Bools, buffer_cm: float) -> Bools:
    """Rows that may be trained on: not `held` [R], and at least `buffer_cm` from each held row.

    Distances are taken within a section, which may have been scanned more than once, and along the hole where
    both sections know their depth in it.
    """
    free = ~held
    for axis, shift_cm in (_section_axis(tiles.sections), _hole_axis(tiles.sections)):
        top, base = tiles.top_cm + shift_cm[tiles.section], tiles.base_cm + shift_cm[tiles.section]
        line = axis[tiles.section]
        for number in np.unique(line[held & (line >= 0)]):
            here = np.flatnonzero((line == number) & free)
            other = held & (line == number)
            free[here] = _gap(top[here], base[here], top[other], base[other]) >= buffer_cm - 1e-9
    return free


def validation_splits(
    tiles: Rows, allowed: Bools, part: Ints, buffer_cm: float, count: int, seed: int
) -> list[tuple[Bools, Bools]]:
    """Split the `allowed` rows, `count` times, into those to fit and those that decide when to stop.

    Returns
    -------
    list of (train, validation) : bool [R]
        Other parts are the validation rows each time; the buffer lies between the two.

    Raises
    ------
    ConfigError
        The rows are of a single part.
    """
    parts = max(2, min(VALIDATION_PARTS, len(np.unique(part[allowed]))))
    number = np.full(len(part), -1)
    number[allowed] = assign_folds(part[allowed], parts, seed)
    held = [number == k for k in range(min(count, parts))]
    return [(allowed & away_from(tiles, validation, buffer_cm), validation) for validation in held]


def check_measured(tiles: Rows, rows: Bools, logarithmic: Bools | None = None) -> None:
    """Refuse training rows [R] without any label of a target; one that is not positive is none of a `logarithmic` [T] one.

    Raises
    ------
    ConfigError
        Naming the target.
    """
    labels = tiles.labels[rows] if logarithmic is None else on_scale(tiles.labels[rows], logarithmic)
    missing = [
        name for name, label in zip(tiles.targets, labels.T, strict=True) if not np.isfinite(label).any()
    ]
    if missing:
        raise ConfigError(
            f"none of {np.count_nonzero(rows)} training rows has a reading of {', '.join(missing)}",
            place="split",
            fix="lower buffer_cm or block_cm, or add sections",
        )


def _gap(top: Floats, base: Floats, held_top: Floats, held_base: Floats) -> Floats:
    """Distance of each row [n] to the nearest held row [m], some negative number where they overlap: float64 [n].

    Rows that do not overlap lie in the order of their middles: the lowest base of the held rows above a row and
    the highest top of those below it decide.
    """
    middle, held_middle = 0.5 * (top + base), 0.5 * (held_top + held_base)
    order = np.argsort(held_middle)
    lowest_base = np.concatenate([[-np.inf], np.maximum.accumulate(held_base[order])])
    highest_top = np.concatenate([np.minimum.accumulate(held_top[order][::-1])[::-1], [np.inf]])
    above = np.searchsorted(held_middle[order], middle)
    nearest: Floats = np.minimum(top - lowest_base[above], highest_top[above] - base)
    return nearest


def _core(section: Section) -> Hashable:
    if section.hole is None and section.core is None:
        return section.name
    return section.hole, section.core


def _identity(section: Section) -> Hashable:
    """Two scans of one section share its identity; without a name a section is its own."""
    named = section.section is not None and (section.hole is not None or section.core is not None)
    return (section.hole, section.core, section.section) if named else section.name


def _section_axis(sections: Sequence[Section]) -> tuple[Ints, Floats]:
    """Return the number of the section that offsets are counted in, int64 [sections], and no shift."""
    return _numbers([_identity(section) for section in sections]), np.zeros(len(sections))


def _hole_axis(sections: Sequence[Section]) -> tuple[Ints, Floats]:
    """Return the number of the hole, -1 where depth in it is not known, and the cm from section offset to depth."""
    known = np.array([section.hole_top_m is not None for section in sections], np.bool_)
    holes = [(_core(one) if one.hole is None else (one.hole,), one.depth_scale) for one in sections]
    shift = [100.0 * (section.hole_top_m or 0.0) for section in sections]
    return np.where(known, _numbers(holes), -1), np.array(shift)


def _numbers(keys: Sequence[Hashable]) -> Ints:
    """Give equal keys equal numbers, from 0 in order of appearance."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(key, len(seen)) for key in keys], np.int64)
