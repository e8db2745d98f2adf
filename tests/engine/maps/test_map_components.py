"""Targets over windows are those of the whole map, by an outside oracle, whatever the windows."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from lithostream.engine.maps.components import ONE, Components, label
from lithostream.engine.maps.grid import Grid
from lithostream.engine.maps.overview import Overview
from lithostream.engine.maps.predict import NODATA, OUT_OF_DOMAIN, Answer
from lithostream.engine.maps.targets import Target, TargetFinder
from lithostream.engine.maps.windows import Box, windows

SIZES = [(64, 64), (7, 11), (1, 70), (64, 5)]


def spiral(size: int) -> npt.NDArray[np.bool_]:
    mask, row, column, step = np.zeros((size, size), np.bool_), 0, -1, (0, 1)
    for length in np.repeat(np.arange(size, 1, -2), 2):
        for _ in range(length - (step == (0, 1) and row > 0)):
            row, column = row + step[0], column + step[1]
            if 0 <= row < size and 0 <= column < size:
                mask[row, column] = True
        step = (step[1], -step[0])
    return mask


def masks() -> list[npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(5)
    random = [rng.random((64, 70)) < share for share in (0.05, 0.4, 0.59, 0.75, 1.0)]
    return [*random, spiral(61), np.zeros((5, 6), np.bool_), np.indices((40, 40)).sum(axis=0) % 2 == 0]


def answer_of(mask: npt.NDArray[np.bool_], seed: int = 1) -> Answer:
    rng = np.random.default_rng(seed)
    probability = np.where(mask, rng.uniform(0.5, 1, mask.shape), rng.uniform(0, 0.49, mask.shape))
    return Answer(
        probability.astype(np.float32), rng.random(mask.shape, np.float32), np.zeros(mask.shape, np.uint8)
    )


def cut(answer: Answer, box: Box) -> Answer:
    place = np.s_[box.top : box.bottom, box.left : box.right]
    return Answer(answer.probability[place], answer.uncertainty[place], answer.flags[place])


def found(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    components, answer, parts = Components(mask.shape[1]), answer_of(mask), []
    for window in windows(mask.shape, size):
        own = window.own
        place = np.s_[own.top : own.bottom, own.left : own.right]
        parts += list(
            components.add(window, mask[place], answer.probability[place], answer.uncertainty[place])
        )
    every = np.concatenate([*parts, components.rest()])
    return every[np.argsort(every[:, 7])]


@pytest.mark.parametrize("mask", masks())
def test_labels_are_those_of_scipy(mask: npt.NDArray[np.bool_]) -> None:
    labels, count = label(mask)
    expected, wanted = ndimage.label(mask)
    assert count == wanted
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", masks())
def test_components_over_windows_are_those_of_the_whole(
    mask: npt.NDArray[np.bool_], size: tuple[int, int]
) -> None:
    parts, answer = found(mask, size), answer_of(mask)
    labels, count = ndimage.label(mask)
    assert len(parts) == count
    whole = np.rint(answer.probability.astype(np.float64) * ONE).astype(np.int64)
    for number, part in enumerate(parts, 1):  # scipy numbers by the first pixel too
        rows, columns = np.nonzero(labels == number)
        values = whole[rows, columns]
        best = int(np.argmax(values))
        expected = [
            len(rows), values.sum(), part[2], rows.sum(), columns.sum(), values.max(),
            rows[best] * mask.shape[1] + columns[best], rows[0] * mask.shape[1] + columns[0],
            rows.min(), columns.min(), rows.max(), columns.max(),
        ]  # fmt: skip
        assert part.tolist() == expected
    np.testing.assert_array_equal(parts, found(mask, (200, 200)))


def targets(mask: npt.NDArray[np.bool_], size: tuple[int, int], most: int, answer: Answer) -> list[Target]:
    grid = Grid(mask.shape, (500.0, 0.0, 1000.0, 0.0, -500.0, 9000.0), "EPSG:3578", 1.0)
    finder = TargetFinder(grid, 0.5, most)
    for window in windows(mask.shape, size):
        own = window.own
        finder.add(window, cut(answer, own))
    return finder.targets()


@pytest.mark.parametrize("size", SIZES)
def test_targets_are_ranked_by_what_would_be_prospective(size: tuple[int, int]) -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[2:4, 3:8], mask[10:19, 9:12], mask[0, 29] = True, True, True
    answer = answer_of(mask)
    best, second, last = targets(mask, size, 10, answer)
    assert [one.rank for one in (best, second, last)] == [1, 2, 3]
    assert (best.pixels, second.pixels, last.pixels) == (27, 10, 1)
    assert (best.x, best.y) == (1000 + 500 * 10.5, 9000 - 500 * 14.5)
    assert best.area_km2 == pytest.approx(27 * 0.25)
    mean = answer.probability[10:19, 9:12].astype(np.float64).mean()
    assert best.mean_probability == pytest.approx(mean, abs=1e-7)
    assert best.expected_km2 == pytest.approx(27 * 0.25 * mean)
    assert best.max_probability == pytest.approx(float(answer.probability[10:19, 9:12].max()), abs=1e-7)
    row, column = (9000 - best.y_of_max) / 500 - 0.5, (best.x_of_max - 1000) / 500 - 0.5
    assert answer.probability[int(row), int(column)] == answer.probability[10:19, 9:12].max()


def test_the_best_of_many_are_kept_as_if_all_were() -> None:
    mask = np.random.default_rng(3).random((300, 200)) < 0.4
    answer = answer_of(mask)
    every = targets(mask, (300, 200), 10_000, answer)
    assert len(every) == ndimage.label(mask)[1] > 5000
    assert targets(mask, (17, 23), 25, answer) == every[:25]


def test_flagged_pixels_belong_to_no_target() -> None:
    mask = np.ones((6, 7), np.bool_)
    answer = answer_of(mask)
    answer.flags[:, 3] = OUT_OF_DOMAIN
    answer.flags[0, 0] = NODATA
    assert [one.pixels for one in targets(mask, (4, 4), 10, answer)] == [18, 17]


@pytest.mark.parametrize("size", SIZES)
def test_the_overview_holds_means_whatever_the_windows(size: tuple[int, int]) -> None:
    shape = (64, 2003)
    rng = np.random.default_rng(2)
    answer = answer_of(rng.random(shape) < 0.5)
    answer.flags[:, :500] = OUT_OF_DOMAIN
    answer.flags[:30, 900:] = NODATA
    answer.probability[answer.flags == NODATA] = np.nan
    overview = Overview(shape)
    for window in windows(shape, size):
        own = window.own
        overview.add(own, cut(answer, own))
    assert overview.step == 3 and overview.probability.shape == (22, 668)
    padded = np.pad(answer.probability.astype(np.float64), ((0, 2), (0, 1)), constant_values=np.nan)
    blocks = padded.reshape(22, 3, 668, 3).transpose(0, 2, 1, 3).reshape(22, 668, 9)
    known = np.isfinite(blocks).sum(axis=2)
    mean = np.nansum(blocks, axis=2) / np.maximum(known, 1)
    np.testing.assert_allclose(overview.probability, np.where(known > 0, mean, np.nan), atol=1e-7)
    assert overview.outside[:, :166].all() and not overview.outside[:, 167:].any()
    assert overview.missing == 30 * 1103 and overview.answered == 64 * 2003 - 30 * 1103


def test_the_areas_of_all_degrees_are_that_of_the_ellipsoid() -> None:
    grid = Grid((720, 1440), (0.25, 0.0, -180.0, 0.0, -0.25, 90.0), "EPSG:4326", 0.0)
    rows = np.arange(720.0)
    area = 1440 * grid.pixel_area(rows, np.zeros(720)).sum() / 1e6
    assert area == pytest.approx(510_065_621.724, rel=1e-5)  # km2, of WGS 84
    feet = Grid((1, 1), (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), "", 0.3048)
    assert feet.pixel_area(np.zeros(1), np.zeros(1))[0] == pytest.approx(9.290304)


def test_pixels_and_their_centres_answer_each_other() -> None:
    grid = Grid((10, 10), (3.0, 1.0, 50.0, -0.5, -2.0, 70.0), "", 1.0)  # turned and sheared
    x, y = grid.centre(4, 7)
    row, column = grid.pixel(np.array([x, np.nan]), np.array([y, 1.0]))
    assert (row[0], column[0], row[1]) == (4, 7, -1)
