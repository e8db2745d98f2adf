import numpy as np
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'train'")

from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from lithostream.training.metrics import (
    half_width,
    interval,
    interval_score,
    paired_difference,
    score,
    unseen_factors,
)


def test_scores_agree_with_scikit_learn_and_skip_missing_rows(rng: np.random.Generator) -> None:
    measured = rng.normal(1.5, 0.2, 80)
    found = measured + rng.normal(0, 0.1, 80)
    holed = np.append(measured, [np.nan, 3.0])
    scores = score(np.append(found, [1.0, np.nan]), holed)
    assert scores.rows == 80
    assert scores.r2 == pytest.approx(r2_score(measured, found))
    assert scores.rmse == pytest.approx(root_mean_squared_error(measured, found))
    assert scores.mae == pytest.approx(mean_absolute_error(measured, found))


def test_paired_difference_is_the_t_interval_of_the_gaps() -> None:
    gain = paired_difference([0.5, 0.7, 0.6], [0.4, 0.5, 0.3])
    assert gain.mean == pytest.approx(0.2)
    # Gaps 0.1, 0.2, 0.3: standard error 0.1 / sqrt(3); t(0.975, 2) = 4.30265.
    assert gain.low == pytest.approx(0.2 - 4.30265 * 0.1 / 3**0.5, abs=1e-6)
    assert gain.high == pytest.approx(0.2 + 4.30265 * 0.1 / 3**0.5, abs=1e-6)
    assert paired_difference([0.5], [0.4]).low is None


def test_half_width_is_the_corrected_order_statistic() -> None:
    assert half_width(np.arange(-9.0, 10.0)) == 9.0  # 18 of 19, rank ceil(0.9 * 20) = 18
    assert half_width(np.array([1.0, -5.0, np.nan])) == 5.0
    assert half_width(np.arange(1.0, 100.0)) == 90.0


def test_unseen_intervals_judge_a_fold_by_the_others(rng: np.random.Generator) -> None:
    residuals, fold = rng.normal(size=4000), np.arange(4000) % 4
    holed, folds = np.append(residuals, np.nan), np.append(fold, 0)
    found = interval(holed, unseen_factors(holed, np.ones(len(holed)), folds))
    assert found.coverage == pytest.approx(0.9, abs=0.015)
    assert found.half_width == pytest.approx(1.645, abs=0.06)
    assert found.score == pytest.approx(4.125, abs=0.15)  # 2 phi(1.645) / 0.05 for the normal law
    residuals[fold == 0] *= 100
    spread = interval(residuals, unseen_factors(residuals, np.ones(len(fold)), fold))
    assert spread.coverage < 0.85 and spread.score > 100
    known = np.where(fold == 0, 100.0, 1.0)
    told = interval(residuals, unseen_factors(residuals, known, fold) * known)
    assert told.coverage == pytest.approx(0.9, abs=0.015) and told.score < spread.score


def test_interval_score_is_width_plus_twenty_times_the_miss() -> None:
    low, high = np.array([1.0, 1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0, 2.0])
    found = interval_score(low, high, np.array([1.5, 2.0, 0.9, 2.5]))
    np.testing.assert_allclose(found, [1.0, 1.0, 3.0, 11.0])


@pytest.mark.parametrize("shape", [1.0, 3.0])
def test_the_true_interval_scores_best_in_expectation(rng: np.random.Generator, shape: float) -> None:
    reading = rng.gamma(shape, size=40_000)
    low, high = np.quantile(reading, [0.05, 0.95])

    def expected(low: float, high: float) -> float:
        return float(interval_score(np.full_like(reading, low), np.full_like(reading, high), reading).mean())

    best = expected(low, high)
    for move_low, move_high in [(-0.1, 0), (0.1, 0), (0, -0.3), (0, 0.3), (-0.04, 0.3), (0.2, 0.2)]:
        assert expected(low + move_low, high + move_high) > best
