"""Windows tile any grid; answers that overlap are blended into one without seams."""

import numpy as np
import pytest

from lithostream.engine.maps.windows import Blend, Floats, Window, taper, windows
from lithostream.kernels.errors import ContractError

SHAPES = [
    ((1, 1), (4, 4), 0),
    ((110, 118), (64, 64), 0),
    ((110, 118), (32, 40), 7),
    ((33, 129), (64, 32), 16),
]


@pytest.mark.parametrize(("shape", "size", "halo"), SHAPES)
def test_windows_own_every_pixel_once_and_see_what_lies_around(
    shape: tuple[int, int], size: tuple[int, int], halo: int
) -> None:
    owned = np.zeros(shape, int)
    for number, window in enumerate(windows(shape, size, halo)):
        own, seen = window.own, window.seen
        assert window.number == number
        owned[own.top : own.bottom, own.left : own.right] += 1
        assert seen.top == max(own.top - halo, 0) and seen.right == min(own.right + halo, shape[1])
        assert seen.left == max(own.left - halo, 0) and seen.bottom == min(own.bottom + halo, shape[0])
    assert (owned == 1).all()


@pytest.mark.parametrize(("size", "halo"), [((0, 4), 0), ((4, 4), -1), ((4, 8), 5)])
def test_windows_that_cannot_be_are_refused(size: tuple[int, int], halo: int) -> None:
    with pytest.raises(ContractError, match="windows"):
        list(windows((10, 10), size, halo))


def test_weights_of_two_neighbours_add_up_to_one() -> None:
    left, right = windows((8, 32), (8, 16), 4)
    across = taper(left)[0, 12:20] + taper(right)[0, :8]
    np.testing.assert_allclose(across, 1, rtol=1e-6)
    assert taper(left)[0, 0] == 1 and taper(left)[0, 19] == pytest.approx(1 / 16)


def blend(field: Floats, size: tuple[int, int], halo: int, offset: float = 0.0) -> Floats:
    blended, out, next_row = Blend(field.shape, size, halo), np.full(field.shape, np.nan, np.float32), 0
    for window in windows(field.shape, size, halo):
        seen = window.seen
        answer = field[seen.top : seen.bottom, seen.left : seen.right] + np.float32(
            offset * (window.number % 2)
        )
        for top, rows in blended.add(window, answer):
            assert top == next_row
            next_row += len(rows)
            out[top:next_row] = rows
    assert next_row == field.shape[0]
    return out


@pytest.mark.parametrize(("shape", "size", "halo"), SHAPES)
def test_a_local_answer_is_not_changed_by_blending(
    shape: tuple[int, int], size: tuple[int, int], halo: int, rng: np.random.Generator
) -> None:
    field = rng.normal(size=shape).astype(np.float32)
    assert blend(field, size, halo).tobytes() == field.tobytes()


def test_where_windows_disagree_the_change_is_gradual() -> None:
    blended = blend(np.zeros((40, 80), np.float32), (40, 20), 8, offset=1.0)
    assert blended.min() == 0 and blended.max() == 1
    assert np.abs(np.diff(blended, axis=1)).max() <= 1 / 16 + 1e-6  # over an overlap of 16 pixels


def test_an_answer_of_another_size_is_refused() -> None:
    window: Window = next(windows((8, 8), (4, 4), 2))
    with pytest.raises(ContractError, match="answer"):
        next(Blend((8, 8), (4, 4), 2).add(window, np.zeros((4, 4), np.float32)))
