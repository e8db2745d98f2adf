"""Tiles in Numba CUDA against their oracle, thread by thread."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.kernels.tiling import reference, tiles


def edges() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.array([0, 4, 5, 11], np.int64), np.array([1, 8, 12], np.int64)


def host(array: Any) -> npt.NDArray[Any]:
    """Bring a result from the device."""
    brought: npt.NDArray[Any] = array.get()
    return brought


@pytest.mark.parametrize("size_px", [1, 3, 4, 9])
@pytest.mark.parametrize("transposed", [False, True])
def test_equals_the_reference(
    cupy: ModuleType, rng: np.random.Generator, size_px: int, transposed: bool
) -> None:
    image = rng.integers(0, 256, (12, 13, 3), dtype=np.uint8)
    given = cupy.asarray(np.ascontiguousarray(image.transpose(1, 0, 2))).transpose(1, 0, 2)
    got = tiles(given if transposed else cupy.asarray(image), *edges(), size_px)
    np.testing.assert_array_equal(host(got), reference.tiles(image, *edges(), size_px))


def test_writes_into_out_on_a_stream(cupy: ModuleType, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (12, 13, 3), dtype=np.uint8)
    out, stream = cupy.empty((3, 2, 5, 5, 3), np.uint8), cupy.cuda.Stream()
    assert tiles(cupy.asarray(image), *edges(), 5, out=out, stream=stream) is out
    assert stream.entered
    np.testing.assert_array_equal(host(out), reference.tiles(image, *edges(), 5))


def test_cells_of_the_size_asked_for_are_a_view(cupy: ModuleType, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)
    given, cells = cupy.asarray(image), (np.array([1, 4, 7]), np.array([0, 3, 6, 9]))
    want = reference.tiles(image, *cells, 3)
    got = tiles(given, *cells, 3)
    np.testing.assert_array_equal(host(got), want)
    out = cupy.empty(want.shape, np.uint8)
    assert tiles(given, *cells, 3, out=out) is out
    given.fill(7)
    assert (host(got) == 7).all()
    np.testing.assert_array_equal(host(out), want)


def test_white_stays_white(cupy: ModuleType) -> None:
    image = cupy.asarray(np.full((12, 13, 3), 255, np.uint8))
    assert (host(tiles(image, *edges(), 7)) == 255).all()


def test_no_cells(cupy: ModuleType) -> None:
    image = cupy.asarray(np.zeros((4, 4, 3), np.uint8))
    got = tiles(image, np.array([1]), np.array([0, 4]), 2)
    assert got.shape == (0, 1, 2, 2, 3)
