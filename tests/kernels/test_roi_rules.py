"""Colour rules: against OpenCV's HSV on every colour there is, and on a small picture of each case."""

import colorsys
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from lithostream.kernels import core_boxes
from lithostream.kernels.roi import RULES
from lithostream.kernels.roi.boxes import pixels
from lithostream.kernels.roi.rules import CORE, DARK, FOREIGN, classify, with_rule

Bytes = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
DataDir = Callable[[str], Path]

WHITE = ((0, 0, 180), (179, 12, 255))
LINER = ((35, 78, 40), (140, 255, 255))
WOOD = ((8, 35, 100), (24, 255, 255))

BASALT, MUDSTONE, CHALK, GRANITE = (62, 60, 58), (92, 85, 72), (220, 215, 200), (176, 168, 160)


def codes(image: Bytes, rule: str) -> Bytes:
    classes = np.empty(image.shape[:2], np.uint8)
    with_rule(classify, RULES[rule])(*pixels(image), classes)
    return classes


@pytest.fixture(scope="module")
def every_colour() -> Bytes:
    levels = np.arange(2**24, dtype=np.uint32).reshape(4096, 4096)
    return np.stack([levels >> 16, levels >> 8 & 255, levels & 255], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("rule", "ranges", "dark"),
    [
        ("white_tray", [WHITE], 40),
        ("coloured_liner", [LINER], 40),
        ("divided_box", [WOOD, WHITE, LINER], 50),
    ],
)
def test_equals_opencv_on_every_colour(
    every_colour: Bytes, rule: str, ranges: list[tuple[Colour, Colour]], dark: int
) -> None:
    cv2 = pytest.importorskip("cv2", reason="oracle: pip install opencv-python-headless")
    hsv = cv2.cvtColor(every_colour, cv2.COLOR_RGB2HSV)
    foreign = np.logical_or.reduce([cv2.inRange(hsv, low, high) > 0 for low, high in ranges])
    want = np.where(hsv[:, :, 2] < dark, DARK, np.where(foreign, FOREIGN, CORE))
    off = np.argwhere(codes(every_colour, rule) != want)
    assert len(off) <= 0.0004 * want.size
    for y, x in off:  # only where the hue lies on the border between two steps
        hue = 180 * colorsys.rgb_to_hsv(*(every_colour[y, x] / 255))[0]
        assert abs(hue % 1 - 0.5) <= 5 * 255 * 0.5 / 4096  # numerator times the error of OpenCV's table


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_compiled_loop_says_what_the_rule_says(rule: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image[20:] = image[20:, :, :1] + rng.integers(0, 20, (20, 50, 3), dtype=np.uint8)  # greys
    python = getattr(RULES[rule], "py_func")  # noqa: B009
    want = [[python(*(int(v) for v in pixel)) for pixel in row] for row in image]
    assert np.array_equal(codes(image, rule), want)


@pytest.mark.parametrize(
    ("rule", "holder"),
    [
        ("sediment", [(0, 0, 0), (20, 22, 25), (39, 39, 39)]),
        ("white_tray", [(255, 255, 255), (238, 240, 242), (190, 188, 185)]),
        ("coloured_liner", [(30, 90, 180), (20, 60, 110), (40, 130, 70), (15, 55, 30), (10, 140, 150)]),
        ("divided_box", [(196, 164, 120), (158, 142, 112), (235, 235, 230), (30, 90, 180), (20, 20, 20)]),
    ],
)
@pytest.mark.parametrize("core", [BASALT, MUDSTONE, CHALK, GRANITE])
def test_two_rows_of_core_in_their_holder(
    rule: str, holder: list[Colour], core: Colour, rng: np.random.Generator
) -> None:
    image = np.empty((60, 120, 3), np.uint8)
    image[:] = np.array(holder, np.uint8)[np.arange(120) * len(holder) // 120]  # its colours side by side
    image[10:25, 12:100] = image[35:50, 20:110] = core
    grain = rng.integers(-2, 3, (60, 120, 1))
    image = np.clip(image + grain, 0, 255).astype(np.uint8)
    image[(image.max(axis=2) >= 40) & (image.max(axis=2) < 43)] = (
        39  # grain must not lift the frame over the limit
    )
    got = core_boxes(image, rule=rule, min_row_fraction=0.5, min_gap_px=5)
    assert got.boxes == [(10, 12, 25, 100), (35, 20, 50, 110)]
    assert np.array_equal(np.flatnonzero(got.rows), [*range(10, 25), *range(35, 50)])


@pytest.mark.realdata
def test_cardboard_goes_and_rock_stays(data_dir: DataDir) -> None:
    folder = data_dir("bgs-corescore")
    image = np.asarray(Image.open(folder / "images" / "S00128907.Cropped_Top_2.jpg"))
    labels = json.loads((folder / "labels" / "S00128907.Cropped_Top_2.json").read_text())["label"]
    drawing = Image.new("1", (image.shape[1], image.shape[0]))
    for fragment in labels["Rock_Fragment"]:
        ImageDraw.Draw(drawing).polygon([(p["x"], p["y"]) for p in fragment["geometry"]], fill=1)
    fragments = np.asarray(drawing)
    found = codes(image, "divided_box")
    assert (found[fragments] == CORE).mean() >= 0.9
    floor = found[610:740, 500:5500][~fragments[610:740, 500:5500]]
    assert (floor == FOREIGN).mean() >= 0.7
    assert (codes(image, "box")[610:740, 500:5500] == CORE).mean() >= 0.9  # the rule for when it may stay
