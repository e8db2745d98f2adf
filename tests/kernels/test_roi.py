"""Core region: against the oracle, on degenerate input, and against what was marked by hand on real cores."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from PIL import Image, ImageDraw

from lithostream.kernels.errors import ContractError
from lithostream.kernels.roi import RULES, core_roi, reference
from lithostream.kernels.roi.rules import CORE, FOREIGN

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
DataDir = Callable[[str], Path]

MUD = (110, 105, 80)
FOAM = (255, 255, 255)
CRACK = (10, 9, 8)
PIN = (205, 220, 235)
CAP = (176, 111, 51)
BORDER = (114, 200, 2)
CHALK = (220, 215, 200)


def sheet(height: int, width: int, colour: tuple[int, int, int] = MUD) -> Bytes:
    return np.full((height, width, 3), colour, np.uint8)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Bytes, Mask | None]:
    height, width = draw(st.integers(0, 24)), draw(st.integers(0, 24))
    image = sheet(height, width, draw(st.sampled_from([MUD, FOAM, CRACK])))
    for _ in range(draw(st.integers(0, 7))):
        y, x = draw(st.integers(0, 23)), draw(st.integers(0, 23))
        size = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
        image[y : y + size[0], x : x + size[1]] = draw(st.sampled_from([MUD, FOAM, CRACK, PIN, CAP, BORDER]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    speckle = noise.random((height, width)) < draw(st.sampled_from([0.0, 0.05, 0.5]))
    image[speckle] = noise.integers(0, 256, (int(speckle.sum()), 3))
    return image, noise.random((height, width)) < 0.9 if draw(st.booleans()) else None


@settings(max_examples=150, deadline=None)
@given(
    blocks(),
    st.sampled_from(sorted(RULES)),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(1, 9),
)
def test_equals_the_reference(
    picture: tuple[Bytes, Mask | None], rule: str, crack_px: int, fraction: float, piece_px: int
) -> None:
    image, alpha = picture
    got = core_roi(
        image, rule=rule, crack_px=crack_px, min_row_fraction=fraction, min_piece_px=piece_px, alpha=alpha
    )
    want = reference.core_roi(
        image,
        rule=RULES[rule],
        crack_px=crack_px,
        min_row_fraction=fraction,
        min_piece_px=piece_px,
        alpha=alpha,
    )
    assert np.array_equal(got.mask, want.mask)
    assert np.array_equal(got.rows, got.mask.any(axis=1))
    assert got.box == want.box
    if alpha is not None:
        assert not (got.mask & ~alpha).any()


@settings(max_examples=60, deadline=None)
@given(blocks(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 23), st.integers(1, 12))
def test_a_window_with_halo_sees_what_the_whole_image_sees(
    picture: tuple[Bytes, Mask | None], crack_px: int, piece_px: int, first: int, rows: int
) -> None:
    image, _ = picture
    whole = core_roi(image, crack_px=crack_px, min_piece_px=piece_px).mask
    halo = 2 * crack_px + 1 + piece_px
    top = max(0, first - halo)
    window = core_roi(image[top : first + rows + halo], crack_px=crack_px, min_piece_px=piece_px).mask
    assert np.array_equal(window[first - top : first - top + rows], whole[first : first + rows])


def test_strides_do_not_matter(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    view = image.transpose(1, 0, 2)[:, ::-1]
    assert not view.flags.c_contiguous
    assert np.array_equal(core_roi(view, crack_px=2).mask, core_roi(view.copy(), crack_px=2).mask)


@pytest.mark.parametrize("shape", [(0, 30), (30, 0), (0, 0), (1, 4), (30, 1), (1, 1)])
def test_too_small_for_any_core(shape: tuple[int, int]) -> None:
    roi = core_roi(sheet(*shape), crack_px=5)
    assert roi.mask.shape == shape
    assert not roi.mask.any() and not roi.rows.any() and roi.box is None


def test_one_row_of_core() -> None:
    assert core_roi(sheet(1, 30), crack_px=5).box == (0, 2, 1, 28)  # a rim of 2 on both sides


@pytest.mark.parametrize("colour", [FOAM, CRACK, (0, 0, 0), PIN, CAP, BORDER])
def test_no_core_at_all(colour: tuple[int, int, int]) -> None:
    roi = core_roi(sheet(50, 40, colour), crack_px=4)
    assert not roi.mask.any() and not roi.rows.any() and roi.box is None


@pytest.mark.parametrize("colour", [MUD, CHALK, (65, 55, 55), (107, 85, 67), (181, 146, 89), (110, 125, 120)])
def test_whole_core(colour: tuple[int, int, int]) -> None:
    roi = core_roi(sheet(50, 40, colour), crack_px=4)
    assert roi.mask[:, 1:39].all() and roi.rows.all() and roi.box == (0, 1, 50, 39)


def test_cracks_are_core_and_voids_and_frame_are_not() -> None:
    image = sheet(60, 60)
    image[:, :8] = image[:, 52:] = CRACK  # dark frame on both sides
    image[20:23] = CRACK  # a crack right across
    image[:, 30:33] = CRACK  # and one along
    image[40:50, 36:46] = CRACK  # a hole wider than a crack
    want = np.zeros((60, 60), bool)
    want[:, 9:51] = True  # the frame and a rim of 1
    want[40:50, 36:46] = False
    roi = core_roi(image, crack_px=4)
    assert np.array_equal(roi.mask, want)
    assert roi.box == (0, 9, 60, 51)


def test_a_gap_wider_than_a_crack_has_no_core_rows() -> None:
    image = sheet(60, 40)
    image[20:30] = CRACK
    rows = core_roi(image, crack_px=4).rows
    assert np.array_equal(np.flatnonzero(~rows), np.arange(20, 30))


def test_a_pin_goes_with_its_ink_and_rim() -> None:
    image = sheet(60, 60)
    image[20:30, 5:15] = PIN
    image[24:26, 7:13] = (40, 30, 90)  # ink
    mask = core_roi(image, crack_px=4).mask
    want = np.zeros((60, 60), bool)
    want[:, 1:59] = True
    want[19:31, 4:16] = False  # rim of 1
    assert np.array_equal(mask, want)


def test_core_beside_a_foam_block_does_not_make_a_row() -> None:
    image = sheet(60, 60)
    image[20:40, 22:38] = FOAM  # 16 of 60: what is left, 44, lies in two pieces of 22
    image[50, 30] = FOAM  # a glint does not split its row
    roi = core_roi(image, crack_px=4)
    assert np.array_equal(np.flatnonzero(~roi.rows), np.arange(19, 41))
    assert roi.mask[50, 1:29].all() and roi.mask[50, 32:59].all() and not roi.mask[50, 29:32].any()


def test_a_scrap_in_a_dark_frame_is_no_row() -> None:
    image = sheet(60, 60, CRACK)
    image[20:40, 30:42] = MUD
    assert core_roi(image, crack_px=4).box is None


def test_a_grey_row_between_voids_is_no_piece_of_core() -> None:
    image = sheet(60, 40)
    image[20:30] = image[36:46] = CRACK  # voids with 6 rows of grey between them
    rows = core_roi(image, crack_px=4, min_piece_px=7).rows
    assert np.array_equal(np.flatnonzero(~rows), np.arange(20, 46))
    assert core_roi(image, crack_px=4, min_piece_px=6).rows[30:36].all()


def test_an_own_rule_sees_signed_values_and_unknown_codes_are_foreign() -> None:
    @njit  # type: ignore[untyped-decorator]
    def redder(r: int, g: int, b: int) -> int:
        return CORE if g - r < 0 else FOREIGN + 7  # with uint8 100 - 101 would be 255

    image = sheet(20, 20, (101, 100, 0))
    image[10:] = (100, 101, 0)
    assert core_roi(image, rule=redder, crack_px=1).box == (0, 1, 9, 19)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"image": np.zeros((4, 4, 3), np.float32)}, "image"),
        ({"image": np.zeros((4, 4), np.uint8)}, "image"),
        ({"crack_px": 0}, "crack_px"),
        ({"min_piece_px": 0}, "min_piece_px"),
        ({"min_row_fraction": 1.5}, "min_row_fraction"),
        ({"min_row_fraction": float("nan")}, "min_row_fraction"),
        ({"alpha": np.ones((4, 5), bool)}, "alpha"),
        ({"alpha": np.ones((4, 4), np.uint8)}, "alpha"),
        ({"rule": "mud"}, "rule"),
        ({"rule": lambda r, g, b: 0}, "rule"),
    ],
)
def test_contract(changes: dict[str, object], name: str) -> None:
    arguments: dict[str, object] = {"image": sheet(4, 4), "crack_px": 1, **changes}
    with pytest.raises(ContractError, match=f"^{name}: expected"):
        core_roi(arguments.pop("image"), **arguments)  # type: ignore[arg-type]


def windowed(image: Bytes, px_per_cm: float, rule: str = "sediment") -> Mask:
    """Mask put together from windows of 8 cm with a halo of 2 cm."""
    height, halo = len(image), int(2 * px_per_cm)
    edges = np.floor(np.arange(height / (8 * px_per_cm)) * 8 * px_per_cm + 0.5).astype(int)
    parts = []
    for start, stop in zip(edges, [*edges[1:], height], strict=True):
        top = max(0, start - halo)
        mask = core_roi(
            image[top : stop + halo],
            rule=rule,
            crack_px=round(0.3 * px_per_cm),
            min_piece_px=round(px_per_cm),
        ).mask
        parts.append(mask[start - top : stop - top])
    return np.concatenate(parts)


@pytest.mark.realdata
def test_cascadia_against_marks_by_hand(data_dir: DataDir) -> None:
    folder = data_dir("m9907-cascadia")
    with Image.open(folder / "M9907-11PC_RGB_crop.png") as picture:
        image = np.asarray(picture.convert("RGB"))
    marks = json.loads((folder / "11PC_not_core.json").read_text())
    truth = np.zeros(image.shape[:2], bool)
    truth[slice(*marks["frame"]["y_core"]), slice(*marks["frame"]["x_core"])] = True
    for y0, x0, y1, x1 in [*marks["pins"], *([y0, 0, y1, image.shape[1]] for y0, y1 in marks["gap_rows"])]:
        truth[y0:y1, x0:x1] = False
    mask = windowed(image, 15.3)
    assert (mask & truth).sum() / (mask | truth).sum() >= 0.97
    for first, last in marks["gap_rows"]:
        assert (~mask[first + 4 : last - 4].any(axis=1)).mean() >= 0.9


@pytest.mark.realdata
def test_itrax_colour_card_goes_and_sediment_stays(data_dir: DataDir) -> None:
    scan = tifffile.imread(data_dir("itrax-cd166-19") / "S1" / "optical_lowres.tif")
    mask = windowed(scan.transpose(1, 0, 2), 1919 / 140.08)
    assert mask[130:1880].mean() >= 0.9
    assert not mask[40:105].any()  # colour card on black
    assert mask[:105].any(axis=1).mean() < 0.5  # with the wooden block beside it, brown as mud
    assert mask[1895:].mean() < 0.1  # dark machine behind the end of the core


@pytest.mark.realdata
@pytest.mark.parametrize(
    "section", ["ARD1B", "ARD1C", "ARD1D", "ARD1E", "YAN8A2_2mm", "YAN8B2_2mm", "YAN9B1_2mm"]
)
def test_dark_lake_mud_is_core(data_dir: DataDir, section: str) -> None:
    folder = data_dir("itrax-ardley-yanou") / section
    scan = tifffile.imread(next(folder.glob("*optical.tif")))
    mask = windowed(scan.transpose(1, 0, 2), 1 / 0.049)
    tenth = len(mask) // 10
    assert mask[tenth:-tenth, 2:-2].mean() >= 0.9  # without the rim
    if section.startswith("YAN"):
        assert not mask[5:25].any()  # orange card


@pytest.mark.realdata
def test_core_box_keeps_fragments_and_drops_plug_holes(data_dir: DataDir) -> None:
    folder = data_dir("bgs-corescore")
    with Image.open(folder / "images" / "S00128907.Cropped_Top_2.jpg") as picture:
        image = np.asarray(picture)
    labels = json.loads((folder / "labels" / "S00128907.Cropped_Top_2.json").read_text())["label"]
    drawing = Image.new("1", (image.shape[1], image.shape[0]))
    for fragment in labels["Rock_Fragment"]:
        ImageDraw.Draw(drawing).polygon([(p["x"], p["y"]) for p in fragment["geometry"]], fill=1)
    fragments = np.asarray(drawing)
    mask = core_roi(image.transpose(1, 0, 2), rule="box", crack_px=18).mask.T
    assert mask[fragments].mean() >= 0.85
    with Image.open(folder / "images" / "S00128816.Cropped_Top_2.jpg") as picture:
        image = np.asarray(picture)
    mask = core_roi(image.transpose(1, 0, 2), rule="box", crack_px=18).mask.T
    assert not mask[370:500, 1970:2110].any()  # inside the left plug hole
    assert mask[300:480, 1000:1300].mean() > 0.99  # rock beside it
    with Image.open(folder / "images" / "S00128769.Cropped_Top_1.jpg") as picture:
        image = np.asarray(picture)
    rows = core_roi(image.transpose(1, 0, 2), rule="box", crack_px=18).rows
    assert rows[300:5800].all()  # a conglomerate with white grains, whose fragments touch
