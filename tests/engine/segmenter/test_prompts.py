import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.core.segmenter.prompts import boxes, prompts
from lithostream.kernels import slic
from lithostream.kernels.errors import ContractError

Labels = npt.NDArray[np.int32]


def at(labels: Labels, points: npt.NDArray[np.float32]) -> list[int]:
    return [int(labels[int(y), int(x)]) for x, y in points]


def test_the_point_of_a_square_is_its_middle() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[4:11, 10:17] = 1
    np.testing.assert_array_equal(prompts(labels), np.array([[13, 7]], np.float32))
    np.testing.assert_array_equal(boxes(labels), np.array([[10, 4, 17, 11]], np.float32))


def test_a_ring_is_asked_for_in_its_band_not_in_its_hole() -> None:
    y, x = np.indices((64, 64))
    radius = np.hypot(y - 32, x - 32)
    labels = np.where(radius < 10, 2, np.where(radius < 24, 1, 0)).astype(np.int32)
    ring, disc = prompts(labels)
    assert 15 <= np.hypot(ring[0] - 32, ring[1] - 32) <= 19
    np.testing.assert_array_equal(disc, np.array([32, 32], np.float32))


def test_points_lie_in_their_regions_and_as_deep_as_brute_force_finds(rng: np.random.Generator) -> None:
    image = np.kron(rng.integers(0, 255, (6, 7, 3), np.uint8), np.ones((9, 8, 1), np.uint8))
    labels = slic(image, n_segments=12, compactness=5.0)
    points = prompts(labels)
    assert at(labels, points) == list(range(1, labels.max() + 1))
    padded = np.pad(labels, 1)
    for label, (px, py) in enumerate(points, start=1):
        inside, outside = np.argwhere(padded == label), np.argwhere(padded != label)
        apart = np.linalg.norm(inside[:, None] - outside[None], axis=2).min(1)
        mine = np.hypot(outside[:, 0] - py - 1, outside[:, 1] - px - 1).min()
        assert mine >= 0.85 * apart.max()  # the chamfer distance is within 8 % of the Euclidean


def test_labels_that_do_not_occur_give_no_point_and_a_line_is_asked_at_its_middle() -> None:
    labels = np.zeros((9, 40), np.int32)
    labels[2, 3:38] = 7
    labels[6, 1] = 9
    np.testing.assert_array_equal(prompts(labels), np.array([[20, 2], [1, 6]], np.float32))
    np.testing.assert_array_equal(boxes(labels), np.array([[3, 2, 38, 3], [1, 6, 2, 7]], np.float32))


def test_no_region_gives_no_point_and_one_pixel_its_own() -> None:
    assert prompts(np.zeros((5, 5), np.int32)).shape == (0, 2)
    assert boxes(np.zeros((5, 5), np.int32)).shape == (0, 4)
    np.testing.assert_array_equal(prompts(np.ones((1, 1), np.int32)), np.array([[0, 0]], np.float32))


def test_labels_of_another_type_are_refused() -> None:
    with pytest.raises(ContractError, match="labels"):
        prompts(np.zeros((4, 4), np.int64))
