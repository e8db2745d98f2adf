"""How the errors of properties go together, from held-out rows."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")

from lithostream.training.data.profile import Rows
from lithostream.training.out_of_fold import OutOfFold
from lithostream.training.report import MODEL, MOST_CORRELATION, error_correlation

TRUE = np.array([[1, 0.7, 0], [0.7, 1, 0], [0, 0, 1]])


def correlated(rows: int, flags: list[bool], missing: float = 0.0) -> np.ndarray:
    """Correlation of three targets whose first two err together by 0.7."""
    rng = np.random.default_rng(4)
    truth = np.exp(rng.standard_normal((rows, 3)))
    error = rng.multivariate_normal(np.zeros(3), TRUE, rows)
    measured = np.where(rng.random(truth.shape) < missing, np.nan, truth)
    found = np.where(flags, np.log(np.maximum(truth + 0.01 * error, 1e-9)), truth + error)
    run = OutOfFold(np.zeros(rows, np.int64), {MODEL: found})
    held = cast(Rows, SimpleNamespace(measured=measured))
    return np.array(error_correlation(held, [run, run], np.array(flags)))


@pytest.mark.parametrize("flags", [[False, False, False], [True, True, True]])
def test_the_correlation_is_that_of_the_residuals_in_units(flags: list[bool]) -> None:
    found = correlated(4000, flags, missing=0.2)
    np.testing.assert_allclose(found, TRUE, atol=0.05)
    assert np.array_equal(found, found.T) and np.all(found.diagonal() == 1)


def test_few_rows_tell_nothing() -> None:
    assert np.array_equal(correlated(19, [False] * 3), np.eye(3))


def test_equal_errors_stay_invertible() -> None:
    rows = np.arange(100.0)
    run = OutOfFold(np.zeros(100, np.int64), {MODEL: np.repeat(np.sin(rows)[:, None], 3, axis=1)})
    held = cast(Rows, SimpleNamespace(measured=np.zeros((100, 3))))
    found = np.array(error_correlation(held, [run], np.zeros(3, np.bool_)))
    assert found[0, 1] <= MOST_CORRELATION
    assert np.linalg.eigvalsh(found)[0] > 0
