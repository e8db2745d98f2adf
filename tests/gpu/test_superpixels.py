"""Superpixels on a GPU: the labels of the CPU, bit for bit, whatever runs at the same instant."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from lithostream.kernels.superpixels import slic
from lithostream.kernels.superpixels.plan import plan_grid

Image = npt.NDArray[np.uint8]


def blobs(rng: np.random.Generator, shape: tuple[int, int, int]) -> Image:
    """Smooth regions under grain: big and small pieces, ragged borders."""
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, shape), (9, 9, 0))
    image: Image = np.clip(127 + 1500 * smooth + rng.normal(0, 6, shape), 0, 255).astype(np.uint8)
    return image


def noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> Image:
    return rng.integers(0, 256, shape).astype(np.uint8)


def flat(rng: np.random.Generator, shape: tuple[int, int, int]) -> Image:
    return np.full(shape, 255, np.uint8)


@pytest.mark.parametrize("n_segments", [1, 600, 50_000])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (blobs, (1400, 1001, 3)),
        (blobs, (1001, 1400, 1)),
        (noise, (1100, 1000, 4)),
        (flat, (1200, 1000, 2)),
        (noise, (1, 1_000_000, 1)),
        (noise, (300_000, 1, 3)),
    ],
)
def test_equals_the_host(
    gpu: ModuleType, rng: np.random.Generator, make: Any, shape: tuple[int, int, int], n_segments: int
) -> None:
    image = make(rng, shape)
    got: Any = slic(gpu.asarray(image), n_segments=n_segments, compactness=10.0)
    np.testing.assert_array_equal(got.get(), slic(image, n_segments=n_segments, compactness=10.0))


@pytest.mark.parametrize("compactness", [0.01, 10.0, 1000.0])
@pytest.mark.parametrize("share", [0.01, 0.6, 0.97])
def test_ragged_masks_equal_the_host(
    gpu: ModuleType, rng: np.random.Generator, share: float, compactness: float
) -> None:
    image, mask = blobs(rng, (1300, 900, 3)), np.zeros((1300, 900), np.bool_)
    mask[100:1250, 33:801] = rng.random((1150, 768)) < share
    options: dict[str, Any] = {"n_segments": 500, "compactness": compactness}
    got: Any = slic(gpu.asarray(image), mask=gpu.asarray(mask), **options)
    np.testing.assert_array_equal(got.get(), slic(image, mask=mask, **options))


def test_places_beyond_32_bits(gpu: ModuleType, rng: np.random.Generator) -> None:
    image = noise(rng, (1, 900_000, 1))
    plan = plan_grid(image.shape, None, 10**9, 1000.0)
    assert plan is not None and image.shape[1] * plan.weight * 16 >> 20 > 2**32
    options: dict[str, Any] = {"n_segments": 10**9, "compactness": 1000.0}
    got: Any = slic(gpu.asarray(image), **options)
    np.testing.assert_array_equal(got.get(), slic(image, **options))


def test_the_same_bits_each_time(gpu: ModuleType, rng: np.random.Generator) -> None:
    image: Any = gpu.asarray(blobs(rng, (1500, 1300, 3)))
    runs: list[Any] = [slic(image, n_segments=900, compactness=3.0) for _ in range(20)]
    assert len({run.get().tobytes() for run in runs}) == 1


def test_no_pixels_views_an_own_output_and_a_stream(gpu: ModuleType, rng: np.random.Generator) -> None:
    image, mask = blobs(rng, (1000, 800, 3)), rng.random((1000, 800)) < 0.9
    options: dict[str, Any] = {"n_segments": 300, "compactness": 10.0}
    stream = gpu.cuda.Stream(non_blocking=True)
    with stream:  # so that the copies come before the kernels
        given: Any = gpu.asarray(image)[::-1, ::2], gpu.asarray(mask)[::-1, ::2]
        out = gpu.empty((1000, 400), np.int32)
    got: Any = slic(given[0], mask=given[1], out=out, stream=stream, **options)
    stream.synchronize()
    assert got is out
    np.testing.assert_array_equal(got.get(), slic(image[::-1, ::2], mask=mask[::-1, ::2], **options))
    nothing: Any = slic(gpu.asarray(image), mask=gpu.zeros((1000, 800), np.bool_), **options)
    assert not nothing.get().any()
