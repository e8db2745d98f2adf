"""The device code of the superpixels, run on the host: the labels of the CPU and of the reference, bit for bit."""

from types import ModuleType
from typing import Any

import cupy_on_host
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from lithostream.kernels.errors import ContractError, DeviceMismatchError
from lithostream.kernels.superpixels import reference, slic
from lithostream.kernels.superpixels.plan import plan_grid

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def on_device(cupy: ModuleType, image: Image, mask: Mask | None = None, **options: Any) -> Labels:
    given: Any = cupy.asarray(image), None if mask is None else cupy.asarray(mask)
    found: Any = slic(given[0], mask=given[1], **options)
    labels: Labels = found.get()
    return labels


def assert_pieces(labels: Labels, mask: Mask) -> None:
    """Labels 1..K in row order over the mask, each of one 4-connected piece."""
    assert np.array_equal(labels > 0, mask)
    found, first = np.unique(labels[mask], return_index=True)
    assert found.tolist() == list(range(1, len(found) + 1))
    assert np.all(np.diff(first) > 0)
    assert all(ndimage.label(labels == label)[1] == 1 for label in found)


def noise(height: int, width: int, channels: int) -> Image:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels)).astype(np.uint8)


def blobs(height: int, width: int, channels: int) -> Image:
    smooth = ndimage.gaussian_filter(
        np.random.default_rng(0).normal(0, 1, (height, width, channels)), (4, 4, 0)
    )
    image: Image = np.clip(127 + 600 * smooth, 0, 255).astype(np.uint8)
    return image


def gradient(height: int, width: int, channels: int) -> Image:
    y, x, c = np.indices((height, width, channels))
    image: Image = ((3 * y + 2 * x) // (1 + c) % 256).astype(np.uint8)
    return image


def flat(height: int, width: int, channels: int) -> Image:
    return np.full((height, width, channels), 255, np.uint8)


@pytest.mark.parametrize("n_segments", [1, 7, 90, 10**6])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (noise, (19, 40, 3)),
        (blobs, (40, 35, 1)),
        (gradient, (33, 34, 2)),
        (flat, (20, 33, 4)),
        (noise, (1, 200, 2)),
        (blobs, (150, 1, 4)),
        (flat, (1, 1, 3)),
    ],
)
def test_equals_the_reference_bit_for_bit(
    cupy: ModuleType, make: Any, shape: tuple[int, int, int], n_segments: int
) -> None:
    image = make(*shape)
    options: dict[str, Any] = {"n_segments": n_segments, "compactness": 10.0}
    labels = on_device(cupy, image, **options)
    np.testing.assert_array_equal(labels, slic(image, **options))
    np.testing.assert_array_equal(labels, reference.slic(image, **options))


@pytest.mark.parametrize("compactness", [0.01, 10.0, 1000.0])
@pytest.mark.parametrize("masked", [False, True])
def test_several_tiles_and_sampled_rows(
    cupy: ModuleType, rng: np.random.Generator, compactness: float, masked: bool
) -> None:
    image, mask = blobs(130, 100, 3), rng.random((130, 100)) < 0.9 if masked else None
    options: dict[str, Any] = {"n_segments": 14, "compactness": compactness, "mask": mask}
    plan = plan_grid(image.shape, mask, 14, compactness)
    assert plan is not None and plan.stride == 6
    labels = on_device(cupy, image, **options)
    np.testing.assert_array_equal(labels, slic(image, **options))
    assert_pieces(labels, np.ones(labels.shape, np.bool_) if mask is None else mask)


def test_noise_of_thousands_of_pieces(cupy: ModuleType) -> None:
    image = noise(90, 70, 3)
    options: dict[str, Any] = {"n_segments": 10, "compactness": 1.0}
    labels = on_device(cupy, image, **options)
    np.testing.assert_array_equal(labels, slic(image, **options))
    assert_pieces(labels, np.ones(labels.shape, np.bool_))


def test_a_spiral_through_many_tiles_is_one_piece(cupy: ModuleType) -> None:
    mask = np.zeros((97, 99), np.bool_)
    y, x, turn = 0, 0, ((0, 1), (1, 0), (0, -1), (-1, 0))
    for n, length in enumerate([98, *(n for n in range(96, 1, -2) for _ in range(2))]):
        dy, dx = turn[n % 4]
        ys, xs = y + dy * np.arange(length + 1), x + dx * np.arange(length + 1)
        mask[ys, xs] = True
        y, x = int(ys[-1]), int(xs[-1])
    assert ndimage.label(mask)[1] == 1
    labels = on_device(cupy, flat(97, 99, 1), mask, n_segments=1, compactness=1.0)
    np.testing.assert_array_equal(labels, mask.astype(np.int32))


@pytest.mark.parametrize(
    "place", [np.s_[5:6, 7:8], np.s_[:0], np.s_[8:30, 3:37], np.s_[1::6], np.s_[::2, ::2]]
)
def test_masks_of_one_pixel_no_pixel_a_box_lines_and_dots(cupy: ModuleType, place: Any) -> None:
    image, mask = blobs(36, 40, 3), np.zeros((36, 40), np.bool_)
    mask[place] = True
    options: dict[str, Any] = {"n_segments": 5, "compactness": 10.0, "mask": mask}
    labels = on_device(cupy, image, **options)
    np.testing.assert_array_equal(labels, slic(image, **options))
    assert_pieces(labels, mask)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 1)])
def test_no_pixels(cupy: ModuleType, shape: tuple[int, int, int]) -> None:
    image = np.zeros(shape, np.uint8)
    assert on_device(cupy, image, n_segments=3, compactness=1.0).shape == shape[:2]
    mask = np.zeros(shape[:2], np.bool_)
    assert on_device(cupy, image, mask, n_segments=3, compactness=1.0).shape == shape[:2]


def test_no_order_of_blocks_and_threads_changes_a_bit(cupy: ModuleType, rng: np.random.Generator) -> None:
    image, mask = noise(70, 75, 3), rng.random((70, 75)) < 0.95
    found = []
    for order in (0, 1, 5):
        with cupy_on_host.ordered(order):
            found.append(on_device(cupy, image, mask, n_segments=12, compactness=3.0).tobytes())
    assert len(set(found)) == 1


def test_an_own_output_views_and_a_stream(cupy: ModuleType, rng: np.random.Generator) -> None:
    image, mask = blobs(80, 60, 6), rng.random((80, 60)) < 0.9
    shown = np.s_[::2, ::-1]
    options: dict[str, Any] = {"n_segments": 9, "compactness": 10.0}
    out, stream = cupy.empty((40, 60), np.int32), cupy.cuda.Stream(non_blocking=True)
    given: Any = cupy.asarray(image)[shown][..., ::2], cupy.asarray(mask)[shown]
    got: Any = slic(given[0], mask=given[1], out=out, stream=stream, **options)
    assert got is out
    assert stream.entered > 0
    want = slic(image[shown][..., ::2], mask=mask[shown], **options)
    np.testing.assert_array_equal(got.get(), want)


def test_contract(cupy: ModuleType) -> None:
    image: Any = cupy.zeros((4, 5, 3), np.uint8)
    with pytest.raises(DeviceMismatchError, match="image on cuda:0, mask on host"):
        slic(image, n_segments=2, compactness=1.0, mask=np.ones((4, 5), np.bool_))
    with pytest.raises(DeviceMismatchError, match="image on host, out on cuda:0"):
        slic(np.zeros((4, 5, 3), np.uint8), n_segments=2, compactness=1.0, out=cupy.zeros((4, 5), np.int32))
    with pytest.raises(ContractError, match=r"out: expected int32 \[4, 5\], got int64"):
        slic(image, n_segments=2, compactness=1.0, out=cupy.zeros((4, 5), np.int64))
    with pytest.raises(ContractError, match="n_segments: expected a whole number from 1, got 0"):
        slic(image, n_segments=0, compactness=1.0)
