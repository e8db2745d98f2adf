import numpy as np
import pytest

from lithostream.engine.core.segmenter.merge import borders, dense, merge
from lithostream.kernels import segment_stats, slic
from lithostream.kernels.errors import ContractError


def _striped(colours: list[int]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(1, len(colours) + 1, dtype=np.int32), 4)[None].repeat(4, axis=0)
    rgb = np.array(colours, np.uint8)[labels - 1][..., None].repeat(3, axis=2)
    return labels, rgb


def _merged(colours: list[int], threshold: float) -> list[int]:
    labels, rgb = _striped(colours)
    found: list[int] = merge(labels, segment_stats(labels, rgb), threshold=threshold).tolist()
    return found


def test_similar_neighbours_become_one_and_others_stay() -> None:
    assert _merged([10, 12, 100, 101, 10], 6.0) == [1, 1, 2, 2, 3]


def test_a_region_follows_a_slow_change_only_as_far_as_its_mean() -> None:
    found = _merged(list(range(0, 200, 4)), 10.0)
    assert 1 < max(found) < 50
    assert found == sorted(found)


def test_the_bound_itself_still_merges_and_below_zero_nothing_does() -> None:
    assert _merged([10, 13], 27**0.5 + 1e-9) == [1, 1]
    assert _merged([10, 13], 27**0.5 - 1e-9) == [1, 2]
    assert _merged([10, 10], 0.0) == [1, 1]
    assert _merged([10, 10], -1.0) == [1, 2]


def test_equal_differences_are_taken_in_order_of_the_labels() -> None:
    assert _merged([0, 10, 20], 18.0) == [1, 1, 2]


def test_regions_are_connected_and_flat_colour_is_one() -> None:
    rgb = np.full((60, 50, 3), 90, np.uint8)
    labels = slic(rgb, n_segments=40, compactness=10.0)
    assert merge(labels, segment_stats(labels, rgb), threshold=1.0).max() == 1


def test_borders_count_the_edges_of_pixels() -> None:
    pairs, length = borders(np.array([[1, 1, 2], [0, 3, 2]], np.int32))
    assert pairs.tolist() == [[1, 2], [1, 3], [2, 3]]
    assert length.tolist() == [1, 1, 1]


def test_no_core_and_one_pixel() -> None:
    none = np.zeros((3, 3), np.int32)
    assert len(merge(none, segment_stats(none, np.zeros((3, 3, 3), np.uint8)), threshold=5.0)) == 0
    one = np.ones((1, 1), np.int32)
    assert merge(one, segment_stats(one, np.zeros((1, 1, 3), np.uint8)), threshold=5.0).tolist() == [1]


def test_dense_numbers_follow_first_appearance() -> None:
    assert dense(np.array([7, 3, 7, 9], np.int64)).tolist() == [0, 1, 0, 2]


def test_what_does_not_fit_is_refused() -> None:
    labels, rgb = _striped([1, 2])
    stats = segment_stats(labels, rgb)
    with pytest.raises(ContractError, match="threshold"):
        merge(labels, stats, threshold=float("nan"))
    with pytest.raises(ContractError, match="stats"):
        merge(labels + 5, stats, threshold=1.0)
