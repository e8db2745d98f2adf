"""The core region in Numba CUDA against its oracle, thread by thread."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from lithostream.kernels.roi import RULES, core_boxes, core_roi, reference
from lithostream.kernels.roi.rules import CORE, FOREIGN

Bytes = npt.NDArray[np.uint8]

COLOURS = {
    "mud": (110, 105, 80),
    "crack": (10, 9, 8),
    "foam": (255, 255, 255),
    "pin": (205, 220, 235),
    "cap": (176, 111, 51),
    "liner": (114, 200, 2),
    "wood": (170, 130, 90),
}


def scene(seed: int, height: int = 20, width: int = 12) -> Bytes:
    """Mud with blocks of other things, and a few pixels of any colour."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), COLOURS["mud"], np.uint8)
    for colour in rng.permutation(sorted(COLOURS))[:3]:
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[y : y + rng.integers(1, 6), x : x + rng.integers(1, width)] = COLOURS[str(colour)]
    image[rng.random((height, width)) < 0.02] = rng.integers(0, 256, 3)
    return image


def host(array: Any) -> npt.NDArray[Any]:
    """Bring a result from the device."""
    brought: npt.NDArray[Any] = array.get()
    return brought


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize(("crack_px", "piece_px", "fraction"), [(1, 1, 0.5), (2, 6, 0.3), (5, 2, 0.0)])
def test_equals_the_reference(
    cupy: ModuleType, rule: str, crack_px: int, piece_px: int, fraction: float
) -> None:
    image = scene(crack_px)
    alpha = np.random.default_rng(piece_px).random(image.shape[:2]) < 0.95
    given = {"crack_px": crack_px, "min_piece_px": piece_px, "min_row_fraction": fraction}
    got = core_roi(cupy.asarray(image), rule=rule, alpha=cupy.asarray(alpha), **given)  # type: ignore[arg-type]
    want = reference.core_roi(image, rule=RULES[rule], alpha=alpha, **given)  # type: ignore[arg-type]
    np.testing.assert_array_equal(host(got.mask), want.mask)
    np.testing.assert_array_equal(host(got.rows), want.rows)
    assert got.box == want.box


@pytest.mark.parametrize(("height", "width", "crack_px"), [(4, 64, 3), (3, 130, 2), (2, 190, 90)])
def test_words_and_their_borders(cupy: ModuleType, height: int, width: int, crack_px: int) -> None:
    image = np.full((height, width, 3), COLOURS["mud"], np.uint8)
    image[:, 62:66] = COLOURS["foam"]
    image[1:, 150:153] = COLOURS["crack"]
    got = core_roi(cupy.asarray(image), crack_px=crack_px, min_row_fraction=0.1)
    want = reference.core_roi(image, rule=RULES["sediment"], crack_px=crack_px, min_row_fraction=0.1)
    assert want.box is not None
    np.testing.assert_array_equal(host(got.mask), want.mask)
    assert got.box == want.box


def test_short_pieces_go_and_pieces_at_the_edges_stay(cupy: ModuleType) -> None:
    image = np.full((22, 12, 3), COLOURS["mud"], np.uint8)
    image[2:6] = image[9:13] = image[17:20] = COLOURS["crack"]
    rows = host(core_roi(cupy.asarray(image), crack_px=1, min_piece_px=4).rows)
    np.testing.assert_array_equal(np.flatnonzero(rows), [0, 1, 13, 14, 15, 16, 20, 21])


@pytest.mark.parametrize(("foam_px", "found"), [(2, True), (3, False)])
def test_a_stretch_ends_at_a_body_wider_than_a_crack(cupy: ModuleType, foam_px: int, found: bool) -> None:
    image = np.full((5, 40, 3), COLOURS["mud"], np.uint8)
    image[:, 18 : 18 + foam_px] = COLOURS["foam"]  # and a rim of 1 on both sides
    roi = core_roi(cupy.asarray(image), crack_px=4, min_row_fraction=0.6)
    assert roi.box == ((0, 1, 5, 39) if found else None)


@pytest.mark.parametrize(("mud_px", "found"), [(12, True), (11, False)])
def test_a_row_holds_its_share_of_half_the_picture(cupy: ModuleType, mud_px: int, found: bool) -> None:
    image = np.full((5, 40, 3), COLOURS["crack"], np.uint8)
    image[:, 20 : 20 + mud_px] = COLOURS["mud"]
    roi = core_roi(cupy.asarray(image), crack_px=4, min_row_fraction=0.5)
    assert roi.box == ((0, 21, 5, 19 + mud_px) if found else None)


def test_an_own_rule_sees_signed_values_and_unknown_codes_are_foreign(cupy: ModuleType) -> None:
    @njit  # type: ignore[untyped-decorator]
    def redder(r: int, g: int, b: int) -> int:
        return CORE if g - r < 0 else FOREIGN + 7  # with uint8 100 - 101 would be 255

    image = np.full((8, 12, 3), (101, 100, 0), np.uint8)
    image[5:] = (100, 101, 0)
    assert core_roi(cupy.asarray(image), rule=redder, crack_px=1).box == (0, 1, 4, 11)


def test_strides_an_own_output_and_a_stream(cupy: ModuleType) -> None:
    image = scene(3)
    view = cupy.asarray(np.ascontiguousarray(image[::-1].transpose(1, 0, 2)))
    view = view.transpose(1, 0, 2)[::-1]
    assert not view.flags.c_contiguous
    out, stream = cupy.empty(image.shape[:2], np.bool_), cupy.cuda.Stream()
    got = core_roi(view, crack_px=2, out=out, stream=stream)
    assert got.mask is out and stream.entered
    np.testing.assert_array_equal(host(out), core_roi(image, crack_px=2).mask)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 4)])
def test_too_small_for_any_core(cupy: ModuleType, shape: tuple[int, int]) -> None:
    image = cupy.asarray(np.full((*shape, 3), 100, np.uint8))
    roi = core_roi(image, crack_px=5)
    assert roi.box is None and not host(roi.mask).any()
    assert host(roi.rows).tolist() == [False] * shape[0]


@pytest.mark.parametrize("shape", [(20, 12), (5, 130), (0, 5), (5, 0)])
@pytest.mark.parametrize(("fraction", "gap_px"), [(0.0, None), (0.7, 1), (0.9, 3)])
def test_boxes(cupy: ModuleType, shape: tuple[int, int], fraction: float, gap_px: int | None) -> None:
    image = scene(7, *shape) if 0 not in shape else np.zeros((*shape, 3), np.uint8)
    image[2:5] = COLOURS["foam"]
    image[13:] = COLOURS["crack"]
    got = core_boxes(cupy.asarray(image), min_row_fraction=fraction, min_gap_px=gap_px)
    want = core_boxes(image, min_row_fraction=fraction, min_gap_px=gap_px)
    assert got.boxes == want.boxes
    np.testing.assert_array_equal(host(got.rows), want.rows)
