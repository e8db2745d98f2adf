"""Tiles on a GPU: the same bytes as on the host."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.kernels.tiling import tiles

Ints = npt.NDArray[np.int64]


def edges(height: int, width: int) -> tuple[Ints, Ints]:
    """Cells of about 90 x 70 pixels, no two quite alike."""
    rows = np.floor(np.arange(0.0, height, 90.37)).astype(np.int64)
    return rows, np.floor(np.arange(3.0, width, 70.21)).astype(np.int64)


def host(array: Any) -> npt.NDArray[Any]:
    """Bring a result from the device."""
    brought: npt.NDArray[Any] = array.get()
    return brought


@pytest.mark.parametrize("size_px", [1, 32, 70, 224])
@pytest.mark.parametrize("transposed", [False, True])
def test_equals_the_host(gpu: ModuleType, rng: np.random.Generator, size_px: int, transposed: bool) -> None:
    image = rng.integers(0, 256, (500, 400, 3), dtype=np.uint8)
    given = gpu.asarray(image)
    if transposed:
        image, given = image.transpose(1, 0, 2), given.transpose(1, 0, 2)
    cells = edges(*image.shape[:2])
    np.testing.assert_array_equal(host(tiles(given, *cells, size_px)), tiles(image, *cells, size_px))


def test_cells_of_the_size_asked_for(gpu: ModuleType, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    cells = np.arange(0, 97, 32), np.arange(0, 129, 32)
    given = gpu.asarray(image)
    want = tiles(image, *cells, 32)
    np.testing.assert_array_equal(host(tiles(given, *cells, 32)), want)
    out = gpu.empty(want.shape, np.uint8)
    assert tiles(given, *cells, 32, out=out) is out
    np.testing.assert_array_equal(host(out), want)


def test_writes_into_out_on_a_stream(gpu: ModuleType, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    cells = edges(300, 300)
    want = tiles(image, *cells, 64)
    stream = gpu.cuda.Stream(non_blocking=True)
    with stream:  # so that the copy comes before the kernel
        given, out = gpu.asarray(image), gpu.empty(want.shape, np.uint8)
    assert tiles(given, *cells, 64, out=out, stream=stream) is out
    stream.synchronize()
    np.testing.assert_array_equal(host(out), want)
