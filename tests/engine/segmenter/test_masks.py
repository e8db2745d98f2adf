import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.core.segmenter.masks import (
    OUTSIDE,
    Limits,
    MaskSet,
    accept,
    joined,
    no_masks,
    suppress,
)

SIDE = 24
LIMITS = Limits(quality=0.5, stability=0.5)

Floats = npt.NDArray[np.float32]


def disc(x: float, y: float, radius: float, slope: float = 10.0) -> Floats:
    row, column = np.indices((SIDE, SIDE))
    return np.asarray(slope * (radius - np.hypot(row - y, column - x)), np.float32)


def found(masks: list[Floats], quality: list[float], prompt: list[int] | None = None) -> MaskSet:
    count = len(masks)
    return MaskSet(
        np.stack(masks),
        np.array(quality, np.float32),
        np.ones(count, np.float32),
        np.zeros((count, 2), np.float32),
        np.array(prompt or range(count), np.int64),
    )


def iou(one: Floats, two: Floats) -> float:
    return float(((one > 0) & (two > 0)).sum() / ((one > 0) | (two > 0)).sum())


def test_what_is_poor_unstable_empty_or_no_number_is_left_out() -> None:
    logits = np.stack(
        [
            np.stack([disc(8, 8, 5), disc(8, 8, 6), disc(8, 8, 7)]),  # the second is poor
            np.stack(
                [disc(9, 9, 5, slope=0.3), disc(9, 9, -3), disc(9, 9, 4)]
            ),  # vague, empty, without quality
        ]
    )
    quality = np.array([[0.9, 0.5, 0.7], [0.9, 0.9, np.nan]], np.float32)
    points = np.array([[32, 33], [36, 37]], np.float32)
    kept = accept(logits, quality, points, 16, (SIDE, SIDE), LIMITS)
    np.testing.assert_array_equal(kept.logits, logits[0, [0, 2]])
    np.testing.assert_array_equal(kept.quality, np.array([0.9, 0.7], np.float32))
    np.testing.assert_array_equal(kept.seed, points[[0, 0]])
    assert kept.prompt.tolist() == [16, 16]


def test_stability_is_the_ratio_of_the_areas_at_both_thresholds() -> None:
    logits = disc(12, 12, 6, slope=1.5)
    kept = accept(logits[None, None], np.ones((1, 1), np.float32), np.zeros((1, 2), np.float32), 0, (24, 24), LIMITS._replace(stability=0))  # fmt: skip
    assert kept.stability[0] == pytest.approx((logits > 1).sum() / (logits > -1).sum())


def test_nothing_is_found_in_the_padding() -> None:
    logits = np.full((1, 1, SIDE, SIDE), 5, np.float32)
    kept = accept(
        logits, np.ones((1, 1), np.float32), np.zeros((1, 2), np.float32), 0, (10, 7), LIMITS
    ).logits
    assert (kept[0, :10, :7] == 5).all()
    assert (kept == OUTSIDE).sum() == SIDE * SIDE - 70


def test_of_masks_that_overlap_the_best_stays_and_ties_go_to_the_earlier_prompt() -> None:
    a, b, c = disc(8, 8, 6), disc(8, 9, 6), disc(17, 17, 4)
    assert iou(a, b) > LIMITS.overlap > iou(a, c)
    kept = suppress(found([a, b, c], [0.8, 0.9, 0.7]), LIMITS)
    assert kept.prompt.tolist() == [1, 2]
    kept = suppress(found([a, b, c], [0.8, 0.8, 0.9], prompt=[5, 3, 4]), LIMITS)
    assert kept.prompt.tolist() == [4, 3]


def test_suppression_is_that_of_plain_intersections(rng: np.random.Generator) -> None:
    masks = [disc(x, y, radius) for x, y, radius in rng.uniform((6, 6, 3), (18, 18, 9), (120, 3))]
    quality = rng.integers(0, 20, 120) / 20
    wanted: list[int] = []
    for one in sorted(range(120), key=lambda place: (-quality[place], place)):
        if all(iou(masks[one], masks[other]) <= LIMITS.overlap for other in wanted):
            wanted.append(one)
    kept = suppress(found(masks, quality.tolist()), LIMITS)
    assert 5 < len(wanted) < 115
    assert kept.prompt.tolist() == wanted
    np.testing.assert_array_equal(kept.logits, np.stack(masks)[wanted])


def test_five_thousand_masks_are_capped_and_say_so(rng: np.random.Generator) -> None:
    logits = np.full((5000, 32, 32), -9, np.float32)
    logits.reshape(5000, -1)[np.arange(5000)[:, None], rng.integers(0, 1024, (5000, 30))] = 9
    quality = rng.random(5000, np.float32)
    given = found(list(logits), quality.tolist())
    kept = suppress(given, LIMITS._replace(most=200))
    assert kept.capped and len(kept.quality) == 200
    np.testing.assert_array_equal(kept.quality, np.sort(quality)[::-1][:200])
    assert not suppress(given, LIMITS._replace(most=5000)).capped


def test_no_masks_are_an_empty_set() -> None:
    kept = suppress(joined([no_masks(SIDE), no_masks(SIDE)]), LIMITS)
    assert kept.logits.shape == (0, SIDE, SIDE) and kept.seed.shape == (0, 2) and not kept.capped
