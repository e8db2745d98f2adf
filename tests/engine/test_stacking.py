"""Segments of windows as those of the section: numbers, and sums of what lies in several windows."""

import numpy as np
import pytest

from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.segmenter.join import Seam
from lithostream.engine.core.stacking import (
    Numbered,
    Numbering,
    Seams,
    joined,
    stack_segments,
    under_numbers,
)


def part(window: int, area: list[int], colour: list[float], value: list[float], row: int) -> WindowSegments:
    count = len(area)
    return WindowSegments(
        window=np.full(count, window),
        parent=np.array([-1, 0, *[-1] * count][:count]),
        area_px=np.array(area),
        box=np.array([[row, 10 * i, row + 5, 10 * i + 10] for i in range(count)]),
        centroid=np.array([[row + 2.0, 10.0 * i + 5] for i in range(count)]),
        colour=np.repeat(np.array(colour)[:, None], 3, axis=1),
        colour_std=np.full((count, 3), 2.0),
        reflectance=np.full((count, 3), np.nan),
        values=np.array(value)[:, None],
        interval_pixels=np.array([[i, row, a] for i, a in enumerate(area)]),
    )


def masks(*rows: list[int]) -> Seam:
    return Seam(np.packbits(np.array(rows, np.bool_).reshape(-1, 8), axis=1), np.arange(len(rows)))


def numbered(parts: list[WindowSegments], seams: list[Seams]) -> tuple[list[list[int]], Numbered]:
    numbering = Numbering()
    numbers = [numbering.add(len(one.area_px), seam) for one, seam in zip(parts, seams, strict=True)]
    pieces = joined([under_numbers(one, ids) for one, ids in zip(parts, numbers, strict=True)])
    return [ids.tolist() for ids in numbers], pieces


def test_without_seams_numbers_run_through() -> None:
    parts = [part(0, [4, 6], [1, 2], [1, 2], 0), part(1, [8], [3], [3], 5)]
    numbers, pieces = numbered(parts, [None, None])
    assert numbers == [[0, 1], [2]]
    stacked = stack_segments(pieces, 0)
    assert stacked.area_px.tolist() == [4, 6, 8]
    assert stacked.parent.tolist() == [-1, 0, -1]
    assert stacked.window.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(stacked.interval_pixels, [[0, 0, 4], [1, 0, 6], [2, 5, 8]])
    np.testing.assert_allclose(stacked.colour_std, 2.0)


def test_an_object_in_two_windows_is_one_segment() -> None:
    upper, lower = part(0, [4, 6], [10, 20], [1, np.nan], 0), part(1, [2, 3], [50, 60], [7, 5], 5)
    left, right = [1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]
    top, base = masks(left, right), masks(right, left)  # the lower window found them in the other order
    numbers, pieces = numbered([upper, lower], [(masks(), top), (base, masks())])
    assert numbers == [[0, 1], [1, 0]]
    stacked = stack_segments(pieces, 0)
    assert stacked.area_px.tolist() == [4 + 3, 6 + 2]
    assert stacked.box.tolist() == [[0, 0, 10, 20], [0, 0, 10, 20]]
    assert stacked.window.tolist() == [0, 0]
    np.testing.assert_allclose(stacked.colour[:, 0], [(4 * 10 + 3 * 60) / 7, (6 * 20 + 2 * 50) / 8])
    spread = np.sqrt(4 + (4 * (10 - 220 / 7) ** 2 + 3 * (60 - 220 / 7) ** 2) / 7)
    assert stacked.colour_std[0, 0] == pytest.approx(spread)
    np.testing.assert_allclose(stacked.values[:, 0], [(4 * 1 + 3 * 5) / 7, 7.0])  # NaN has no weight
    pixels = {tuple(row) for row in stacked.interval_pixels.tolist()}
    assert pixels == {(0, 0, 4), (1, 0, 6), (1, 5, 2), (0, 5, 3)}
    assert np.isnan(stacked.reflectance).all()


def test_a_section_without_core_has_no_segments() -> None:
    empty = WindowSegments(
        window=np.zeros(0, np.int64),
        parent=np.zeros(0, np.int64),
        area_px=np.zeros(0, np.int64),
        box=np.zeros((0, 4), np.int64),
        centroid=np.zeros((0, 2)),
        colour=np.zeros((0, 3)),
        colour_std=np.zeros((0, 3)),
        reflectance=np.zeros((0, 3)),
        values=np.zeros((0, 2)),
        interval_pixels=np.zeros((0, 3), np.int64),
    )
    stacked = stack_segments(numbered([empty, empty], [None, None])[1], 0)
    assert len(stacked.area_px) == 0 and stacked.values.shape == (0, 2)


def test_some_of_the_segments_are_stacked_as_they_are_with_the_others() -> None:
    upper, lower = part(0, [4, 6], [10, 20], [1, 2], 0), part(1, [2, 3], [50, 60], [7, 5], 5)
    left, right = [1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]
    _, pieces = numbered([upper, lower], [(masks(), masks(left, right)), (masks(right), masks())])
    whole = stack_segments(pieces, 0)
    for number in range(3):
        alone = stack_segments(pieces.between(number, number + 1), number)
        for name in WindowSegments._fields:
            if name != "interval_pixels":
                np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[number])
