"""Core boxes: against the oracle and OpenCV's definition, whatever the layout, on generated and on real cores."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from PIL import Image

from lithostream.engine.core.synthetic import generate
from lithostream.kernels import core_boxes, core_roi
from lithostream.kernels.errors import ContractError
from lithostream.kernels.roi import RULES, reference
from lithostream.kernels.roi.rules import CORE, DARK

Bytes = npt.NDArray[np.uint8]
DataDir = Callable[[str], Path]

MUD, BLACK, WHITE = (110, 105, 80), (10, 9, 8), (255, 255, 255)


@njit  # type: ignore[untyped-decorator]
def reddish(r: int, g: int, b: int) -> int:
    return CORE if r > g else DARK


@st.composite
def pictures(draw: st.DrawFn) -> Bytes:
    """Blocks of core on a frame, with specks, in shapes around the size of a chunk and in several layouts."""
    height, width = draw(st.integers(0, 30)), draw(st.sampled_from([0, 1, 2, 5, 63, 64, 65, 127, 130]))
    image = np.full((height, width, 3), draw(st.sampled_from([MUD, BLACK, WHITE])), np.uint8)
    for _ in range(draw(st.integers(0, 5))):
        y, x = draw(st.integers(0, 39)), draw(st.integers(0, 199))
        size = draw(st.tuples(st.integers(1, 20), st.integers(1, 120)))
        image[y : y + size[0], x : x + size[1]] = draw(st.sampled_from([MUD, BLACK, WHITE]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    speck = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.001, 0.01, 0.5]))
    image[speck] = rng.integers(0, 256, (int(speck.sum()), 3))
    layout = draw(st.sampled_from(["whole", "crop", "flipped", "transposed", "every other", "read-only"]))
    if layout == "crop":
        return image[2:-1, 3:-2] if height > 3 and width > 5 else image
    if layout == "read-only":
        image.flags.writeable = False
    views = {
        "flipped": image[::-1, ::-1],
        "transposed": image.transpose(1, 0, 2),
        "every other": image[:, ::2],
    }
    return views.get(layout, image)


@settings(max_examples=120, deadline=None)
@given(
    pictures(),
    st.sampled_from(["sediment", "box", reddish]),
    st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0]),
    st.sampled_from([None, 1, 2, 5, 100]),
)
def test_equals_the_reference(
    image: Bytes, rule: str | Callable[[int, int, int], int], fraction: float, gap_px: int | None
) -> None:
    got = core_boxes(image, rule=rule, min_row_fraction=fraction, min_gap_px=gap_px)
    code = RULES[rule] if isinstance(rule, str) else rule
    want = reference.core_boxes(image, rule=code, min_row_fraction=fraction, min_gap_px=gap_px)
    assert got.boxes == want.boxes
    assert np.array_equal(got.rows, want.rows)


@pytest.mark.parametrize("shape", [(0, 30), (30, 0), (0, 0)])
def test_no_pixels_hold_no_core(shape: tuple[int, int]) -> None:
    got = core_boxes(np.zeros((*shape, 3), np.uint8))
    assert got.boxes == [] and got.rows.shape == shape[:1] and not got.rows.any()


def test_one_pixel_in_the_last_corner_is_found() -> None:
    image = np.full((70, 300, 3), BLACK, np.uint8)
    image[69, 299] = MUD
    assert core_boxes(image).boxes == [(69, 299, 70, 300)]
    image[3, 0] = MUD
    assert core_boxes(image).boxes == [(3, 0, 70, 300)]


def test_rows_of_core_are_parted_where_the_gap_is_wide_enough() -> None:
    image = np.full((60, 100, 3), BLACK, np.uint8)
    image[5:15, 10:90] = image[20:30, 12:80] = image[40:50, 30:70] = MUD
    assert core_boxes(image, min_gap_px=5).boxes == [(5, 10, 15, 90), (20, 12, 30, 80), (40, 30, 50, 70)]
    assert core_boxes(image, min_gap_px=6).boxes == [(5, 10, 30, 90), (40, 30, 50, 70)]
    assert core_boxes(image).boxes == [(5, 10, 50, 90)]
    wide = core_boxes(image, min_row_fraction=0.5, min_gap_px=5)
    assert wide.boxes == [(5, 10, 15, 90), (20, 12, 30, 80)]
    assert np.array_equal(np.flatnonzero(wide.rows), [*range(5, 15), *range(20, 30)])


def test_core_beside_the_valid_rows_does_not_widen_their_box() -> None:
    image = np.full((10, 100, 3), BLACK, np.uint8)
    image[3:6, 40:60] = MUD
    image[7, 0] = MUD
    assert core_boxes(image, min_row_fraction=0.2).boxes == [(3, 40, 6, 60)]


def test_eight_threads_get_the_same(rng: np.random.Generator) -> None:
    image = generate(3, length_cm=20, width_cm=8, px_per_cm=40).image
    image[rng.random(image.shape[:2]) < 0.01] = BLACK
    boxes = core_boxes(image, min_row_fraction=0.5, min_gap_px=3)
    roi = core_roi(image, crack_px=12)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(core_boxes, image, min_row_fraction=0.5, min_gap_px=3) for _ in range(8)]
        masks = [pool.submit(core_roi, image, crack_px=12) for _ in range(8)]
    assert len(boxes.boxes) > 0 and roi.box is not None
    for future in found:
        assert future.result().boxes == boxes.boxes
        assert future.result().rows.tobytes() == boxes.rows.tobytes()
    assert all(future.result().mask.tobytes() == roi.mask.tobytes() for future in masks)


def test_core_roi_fills_what_it_is_given() -> None:
    image = generate(3, length_cm=20, width_cm=8, px_per_cm=20).image
    out = np.ones(image.shape[:2], np.bool_)
    assert core_roi(image, crack_px=6, out=out).mask is out
    assert np.array_equal(out, core_roi(image, crack_px=6).mask) and 0 < out.mean() < 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"image": np.zeros((4, 4, 3), np.float32)}, "image"),
        ({"image": np.zeros((4, 4), np.uint8)}, "image"),
        ({"image": [[[0, 0, 0]]]}, "image"),
        ({"min_row_fraction": 1.5}, "min_row_fraction"),
        ({"min_row_fraction": float("nan")}, "min_row_fraction"),
        ({"min_gap_px": 0}, "min_gap_px"),
        ({"rule": "mud"}, "rule"),
        ({"rule": lambda r, g, b: 0}, "rule"),
        ({"stream": object()}, "stream"),
    ],
)
def test_contract(changes: dict[str, object], name: str) -> None:
    arguments: dict[str, object] = {"image": np.zeros((4, 4, 3), np.uint8), **changes}
    with pytest.raises(ContractError, match=f"^{name}: expected .* got"):
        core_boxes(arguments.pop("image"), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "out", [np.zeros((4, 5), np.bool_), np.zeros((4, 4), np.uint8), np.zeros((4, 8), np.bool_)[:, ::2]]
)
def test_core_roi_refuses_an_out_that_does_not_fit(out: npt.NDArray[np.bool_]) -> None:
    with pytest.raises(ContractError, match=r"^out: expected .* got"):
        core_roi(np.zeros((4, 4, 3), np.uint8), crack_px=1, out=out)


@pytest.mark.realdata
@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_real_cores(data_dir: DataDir, fraction: float) -> None:
    photos = data_dir("bgs-corescore") / "images"
    images = [np.asarray(Image.open(photos / f"{name}.jpg")) for name in ("S00128769.Cropped_Top_1",)]
    images.append(
        np.asarray(Image.open(data_dir("m9907-cascadia") / "M9907-11PC_RGB_crop.png").convert("RGB"))
    )
    scans = [data_dir("itrax-cd166-19") / "S1" / "optical_lowres.tif"]
    scans.append(data_dir("itrax-ardley-yanou") / "YAN8A2_2mm" / "optical.tif")
    images += [tifffile.imread(scan).transpose(1, 0, 2) for scan in scans]
    for picture in images:
        core = picture.max(axis=2) >= 50  # what `box` says
        for gap_px in (None, 3):
            got = core_boxes(picture, rule="box", min_row_fraction=fraction, min_gap_px=gap_px)
            want = reference.boxes_of(core, fraction, gap_px)
            assert got.boxes == want.boxes and len(got.boxes) > 0
            assert np.array_equal(got.rows, want.rows)
