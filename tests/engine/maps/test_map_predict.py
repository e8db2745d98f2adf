"""Answers of pixels: the same bits in any windows, flags where there is none."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from map_scene import PREDICTORS

from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.predict import (
    CELL,
    NO_NUMBER,
    NODATA,
    OUT_OF_DOMAIN,
    Answer,
    judge,
    predict_window,
)
from lithostream.engine.maps.session import MapPrediction, MapSession
from lithostream.engine.maps.spool import ANSWERS, LEDGER, Spool
from lithostream.engine.maps.windows import windows
from lithostream.kernels.errors import ContractError

SHAPE = (110, 190)


@pytest.fixture(scope="module")
def session(map_bundle: Path) -> MapSession:
    return MapSession(load_map_bundle(map_bundle))


@pytest.fixture(scope="module")
def field() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(8)
    return rng.normal(size=(len(PREDICTORS), *SHAPE)).astype(np.float32), rng.random(SHAPE) < 0.8


def test_any_windows_answer_as_one_pass_over_the_whole(
    session: MapSession, field: tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]
) -> None:
    values, valid = field
    whole = predict_window(values, valid, session, 3.0)
    assert set(np.unique(whole.flags)) == {0, NODATA, OUT_OF_DOMAIN}
    for size in ((CELL, CELL), (CELL, 3 * CELL), (2 * CELL, CELL)):
        for window in windows(SHAPE, size):
            own = window.own
            place = np.s_[own.top : own.bottom, own.left : own.right]
            part = predict_window(values[:, *place], valid[place], session, 3.0)
            assert same(part, Answer(whole.probability[place], whole.uncertainty[place], whole.flags[place]))


def test_what_is_missing_beside_a_pixel_does_not_change_it(
    session: MapSession, field: tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]
) -> None:
    values, valid = field
    holed = np.where(valid, values, np.float32(np.nan))
    every, some = (
        predict_window(v, m, session, 3.0) for v, m in ((values, np.ones_like(valid)), (holed, valid))
    )
    assert some.probability[valid].tobytes() == every.probability[valid].tobytes()
    assert np.isnan(some.probability[~valid]).all() and (some.flags[~valid] == NODATA).all()


def test_rows_are_answered_as_the_pixels_that_they_come_from(
    session: MapSession, field: tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]
) -> None:
    values, _ = field
    rows = np.ascontiguousarray(values.reshape(len(values), -1).T)
    found = predict_window(values, np.ones(SHAPE, np.bool_), session, 3.0)
    np.testing.assert_allclose(session.infer(rows).probability.reshape(SHAPE), found.probability, atol=1e-6)


def test_an_answer_that_is_no_number_is_flagged_and_taken_away() -> None:
    numbers = np.array([0.2, np.nan, 0.4, 0.5], np.float32)
    found = MapPrediction(numbers, np.full(4, 0.1, np.float32), np.array([1, 1, np.inf, 9], np.float32))
    answer = judge(found, np.array([True, True, True, False]), 2.0)
    assert answer.flags.tolist() == [0, NO_NUMBER, NO_NUMBER | OUT_OF_DOMAIN, NODATA]
    assert np.isfinite(answer.probability).tolist() == [True, False, False, False]
    assert np.isfinite(answer.uncertainty).tolist() == [True, False, False, False]


def test_a_valid_pixel_without_a_number_is_a_defect(session: MapSession) -> None:
    values = np.full((len(PREDICTORS), 2, 2), np.inf, np.float32)
    with pytest.raises(ContractError, match="finite"):
        predict_window(values, np.ones((2, 2), np.bool_), session, 3.0)


def answer(seed: int, shape: tuple[int, int] = (3, 5)) -> Answer:
    rng = np.random.default_rng(seed)
    numbers = rng.random((2, *shape), np.float32)
    return Answer(numbers[0], numbers[1], rng.integers(0, 8, shape, np.uint8))


def same(one: Answer, two: Answer) -> bool:
    numbers = one.probability.tobytes() == two.probability.tobytes()
    return numbers and one[1].tobytes() == two[1].tobytes() and one.flags.tobytes() == two.flags.tobytes()


def fill(folder: Path) -> None:
    spool = Spool(folder)
    for number in (2, 0, 1):
        spool.add(number, answer(number))
    spool.close()


def test_answers_outlast_the_process(tmp_path: Path) -> None:
    fill(tmp_path)
    spool = Spool(tmp_path)
    assert len(spool) == 3 and 3 not in spool
    assert all(same(spool.read(number, (3, 5)), answer(number)) for number in range(3))


def test_half_an_answer_is_dropped_and_can_be_added_again(tmp_path: Path) -> None:
    fill(tmp_path)
    content = (tmp_path / ANSWERS).read_bytes()
    (tmp_path / ANSWERS).write_bytes(content[:-3])  # of the last, number 1
    spool = Spool(tmp_path)
    assert 1 not in spool and 2 in spool and 0 in spool
    spool.add(1, answer(1))
    spool.close()
    assert (tmp_path / ANSWERS).read_bytes() == content
    assert same(Spool(tmp_path).read(1, (3, 5)), answer(1))


def test_an_altered_answer_is_dropped(tmp_path: Path) -> None:
    fill(tmp_path)
    content = bytearray((tmp_path / ANSWERS).read_bytes())
    content[10] ^= 1  # of the first, number 2
    (tmp_path / ANSWERS).write_bytes(content)
    spool = Spool(tmp_path)
    assert 2 not in spool and 0 in spool and 1 in spool
    assert same(spool.read(1, (3, 5)), answer(1))


def test_bytes_behind_the_last_mark_are_cut_off(tmp_path: Path) -> None:
    fill(tmp_path)
    length = (tmp_path / ANSWERS).stat().st_size
    with (tmp_path / ANSWERS).open("ab") as file:
        file.write(b"written, and killed before it was marked")
    Spool(tmp_path).close()
    assert (tmp_path / ANSWERS).stat().st_size == length


def test_a_damaged_ledger_begins_anew(tmp_path: Path) -> None:
    fill(tmp_path)
    for path in tmp_path.glob(f"{LEDGER}-*"):
        path.unlink()
    (tmp_path / LEDGER).write_bytes(b"no database, but long enough to be looked at as one" * 40)
    spool = Spool(tmp_path)
    assert len(spool) == 0
    spool.add(0, answer(0))
    assert same(spool.read(0, (3, 5)), answer(0))
