"""The core region on a GPU: the same bits as on the host."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from lithostream.kernels.roi import RULES, core_boxes, core_roi
from lithostream.kernels.roi.rules import CORE, DARK, FOREIGN

Bytes = npt.NDArray[np.uint8]


def scene(rng: np.random.Generator, height: int, width: int) -> Bytes:
    """Mud, speckled, with blocks of cracks, foam, liner and wood."""
    image = np.full((height, width, 3), (110, 105, 80), np.uint8)
    image += rng.integers(0, 12, image.shape, dtype=np.uint8)
    colours = np.array([(10, 9, 8), (255, 255, 255), (114, 200, 2), (170, 130, 90)], np.uint8)
    for _ in range(30 if height * width else 0):
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[y : y + rng.integers(1, 60), x : x + rng.integers(1, width)] = rng.choice(colours)
    image[rng.random((height, width)) < 0.001] = 255
    return image


def host(array: Any) -> npt.NDArray[Any]:
    """Bring a result from the device."""
    brought: npt.NDArray[Any] = array.get()
    return brought


def same(got: Any, want: Any) -> None:
    np.testing.assert_array_equal(host(got.mask), want.mask)
    np.testing.assert_array_equal(host(got.rows), want.rows)
    assert got.box == want.box


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("shape", [(1, 1), (7, 64), (333, 129), (1200, 1000), (0, 9), (9, 0)])
@pytest.mark.parametrize("crack_px", [1, 7, 120])
def test_equals_the_host(
    gpu: ModuleType, rng: np.random.Generator, rule: str, shape: tuple[int, int], crack_px: int
) -> None:
    image, alpha = scene(rng, *shape), rng.random(shape) < 0.99
    given = {"rule": rule, "crack_px": crack_px, "min_row_fraction": 0.2, "min_piece_px": 9}
    got = core_roi(gpu.asarray(image), alpha=gpu.asarray(alpha), **given)  # type: ignore[arg-type]
    same(got, core_roi(image, alpha=alpha, **given))  # type: ignore[arg-type]


def test_an_own_rule(gpu: ModuleType, rng: np.random.Generator) -> None:
    @njit  # type: ignore[untyped-decorator]
    def redder(r: int, g: int, b: int) -> int:
        return DARK if r + g + b < 60 else (CORE if b - r < 0 else FOREIGN + 7)

    image = scene(rng, 200, 300)
    same(core_roi(gpu.asarray(image), rule=redder, crack_px=5), core_roi(image, rule=redder, crack_px=5))


def test_strides_an_own_output_and_a_stream(gpu: ModuleType, rng: np.random.Generator) -> None:
    image = scene(rng, 300, 500)
    view = image.transpose(1, 0, 2)[::-1]
    out, stream = gpu.empty(view.shape[:2], np.bool_), gpu.cuda.Stream(non_blocking=True)
    with stream:  # so that the copy comes before the kernels
        given = gpu.asarray(image).transpose(1, 0, 2)[::-1]
    got = core_roi(given, crack_px=6, out=out, stream=stream)
    stream.synchronize()
    assert got.mask is out
    same(got, core_roi(view, crack_px=6))


@pytest.mark.parametrize("fraction", [0.0, 0.6])
@pytest.mark.parametrize("gap_px", [None, 1, 20])
def test_boxes(gpu: ModuleType, rng: np.random.Generator, fraction: float, gap_px: int | None) -> None:
    image = scene(rng, 900, 700)
    image[200:230] = image[500:505] = 255
    got = core_boxes(gpu.asarray(image), min_row_fraction=fraction, min_gap_px=gap_px)
    want = core_boxes(image, min_row_fraction=fraction, min_gap_px=gap_px)
    assert got.boxes == want.boxes
    np.testing.assert_array_equal(host(got.rows), want.rows)
