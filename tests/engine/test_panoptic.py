import math

import numpy as np
import pytest

from lithostream.engine.core.panoptic import panoptic_quality
from lithostream.kernels.errors import ContractError


def _row(text: str) -> np.ndarray:
    return np.array([[int(sign) for sign in text]], np.int32)


def test_a_perfect_answer_scores_one_whatever_its_numbers() -> None:
    found = panoptic_quality(_row("0112200"), _row("9557799"))
    assert found == (1.0, 1.0, 1.0, 2, 0, 0)


def test_quality_is_that_of_the_paper() -> None:
    # one match of IoU 3/4; object 2 is split in halves, neither above 0.5
    found = panoptic_quality(_row("111122220"), _row("111033449"))
    assert (found.matched, found.missed, found.invented) == (1, 1, 2)
    assert found.quality == pytest.approx(0.75 / (1 + 0.5 * 3))
    assert found.quality == pytest.approx(found.segmentation * found.recognition)


def test_an_iou_of_one_half_is_no_match() -> None:
    assert panoptic_quality(_row("1100"), _row("1000")).matched == 0


def test_spilling_into_background_costs_and_into_void_does_not() -> None:
    truth, predicted = _row("111100"), _row("111111")
    assert panoptic_quality(truth, predicted).quality == pytest.approx(4 / 6)
    assert panoptic_quality(truth, predicted, void=truth == 0).quality == 1.0


def test_segments_on_background_count_only_when_asked() -> None:
    truth, predicted = _row("1111000000"), _row("1111222334")
    assert panoptic_quality(truth, predicted).invented == 0
    assert panoptic_quality(truth, predicted, count_background=True).invented == 3
    mostly_void = panoptic_quality(truth, predicted, void=truth == 0, count_background=True)
    assert mostly_void.invented == 0


def test_a_segment_half_on_an_object_is_an_invention() -> None:
    assert panoptic_quality(_row("11111100"), _row("00000220")).invented == 1


def test_nothing_found_and_nothing_to_find() -> None:
    assert panoptic_quality(_row("0110"), _row("0000"))[:3] == (0.0, 0.0, 0.0)
    assert math.isnan(panoptic_quality(_row("0000"), _row("0000")).quality)


def test_shapes_must_agree() -> None:
    with pytest.raises(ContractError, match="predicted"):
        panoptic_quality(_row("01"), _row("011"))
