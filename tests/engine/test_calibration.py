"""Calibration on generated scans whose truth is exact, and on the chart of a real scan."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageCms

from lithostream.engine.core.calibration import MOST_DRIFT, Calibrated, calibrate
from lithostream.engine.core.calibration.card import CLASSIC, measure, read_patches
from lithostream.engine.core.calibration.fit import fit_card
from lithostream.engine.core.calibration.transfer import linear_light, linear_srgb
from lithostream.engine.core.section import CalibrationPlan, Card, Section
from lithostream.engine.core.windows import open_section
from lithostream.engine.errors import ConfigError, LithostreamError, SourceError
from lithostream.engine.io.card_table import read_columns
from lithostream.engine.io.describe import describe_image
from lithostream.engine.io.icc import tone_curves
from lithostream.engine.io.manifest import ManifestSection, read_manifest
from lithostream.kernels.errors import ContractError

Floats = npt.NDArray[np.float64]
PX_PER_CM = 10.0
WIDTH = 80
# Middles of dark skin, bluish green, black and white in `chart_reflectance`.
CORNERS = ((1.0, 1.0), (1.0, 6.0), (4.0, 6.0), (4.0, 1.0))
GREYS = Card(corners_cm=CORNERS)
MIX = np.array(
    [[0.85, 0.1, 0.05], [0.08, 0.8, 0.12], [0.02, 0.18, 0.8]]
)  # what the scanner does; rows sum to one
CHART = linear_srgb(read_columns(CLASSIC, ("srgb_r", "srgb_g", "srgb_b")) / 255.0)


def srgb(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def chart_reflectance(rows: int = 80) -> Floats:
    """Mid grey with the 24 patches at 1 cm steps, float64 [rows, WIDTH, 3]."""
    scene = np.full((rows, WIDTH, 3), 0.2)
    for index, colour in enumerate(CHART):
        top, left = 5 + 10 * (index // 6), 5 + 10 * (index % 6)
        scene[top : top + 10, left : left + 10] = colour
    return scene


def save(path: Path, light: Floats, encode: Callable[[Floats], Floats] = lambda light: light) -> Path:
    tifffile.imwrite(path, np.rint(255 * np.clip(encode(light), 0, 1)).astype(np.uint8), photometric="rgb")
    return path


def section(image: Path, plan: CalibrationPlan | None, **known: str) -> Section:
    return Section("s", image, PX_PER_CM, "manifest", calibration=plan)


def calibrated(image: Path, plan: CalibrationPlan | None) -> Calibrated:
    one = section(image, plan)
    return calibrate(one, open_section(one).width_px)


def reflect(image: Path, plan: CalibrationPlan) -> Floats:
    found = calibrated(image, plan).calibration
    assert found is not None
    value = found.reflectance(tifffile.imread(image))
    assert value.dtype == np.float32
    return value.astype(np.float64)


@pytest.mark.parametrize(
    ("transfer", "encode"),
    [
        ("linear", lambda light: light),
        ("srgb", srgb),
        (2.2, lambda light: np.clip(light, 0, None) ** (1 / 2.2)),
    ],
    ids=["linear", "srgb", "gamma"],
)
def test_reflectance_of_a_known_scanner_is_recovered(
    tmp_path: Path, transfer: str | float, encode: Callable[[Floats], Floats]
) -> None:
    truth = chart_reflectance()
    gains, black = np.array([0.9, 0.8, 0.7]), 0.01
    image = save(tmp_path / "a.tif", truth @ MIX.T * gains + black, encode)
    value = reflect(image, CalibrationPlan(transfer, own_card=GREYS))
    # A step of a sample is 1/255 of white at most (1.9 of it near white in sRGB), over the smallest gain, times
    # the inverse mixing's largest row sum of 1.7.
    assert np.abs(value - truth).max() < 0.5 / 255 / 0.7 * 1.7 * 2.3
    assert np.abs(value - truth).mean() < 0.003


def test_residual_of_a_perfect_card_is_quantisation_and_of_a_wrong_transfer_is_refused(
    tmp_path: Path,
) -> None:
    image = save(tmp_path / "a.tif", 0.9 * chart_reflectance())
    told = calibrated(image, CalibrationPlan("linear", own_card=GREYS))
    assert told.notes[0].startswith("colours calibrated on the card in a.tif: 6 greys (residual 0.00")
    with pytest.raises(SourceError, match=r"the card is missed by .* with transfer srgb"):
        calibrated(image, CalibrationPlan("srgb", own_card=GREYS))


def test_left_out_residual_is_that_of_fits_without_the_patch(rng: np.random.Generator) -> None:
    known = CHART[6:13]  # no greys
    light = known @ MIX.T * 0.5 + rng.uniform(0, 0.02, (7, 3))
    fit = fit_card(light, known)
    assert fit is not None
    errors = []
    for left in range(7):
        rest = np.arange(7) != left
        solved = np.linalg.lstsq(light[rest], known[rest], rcond=None)[0]
        errors.append(known[left] - light[left] @ solved)
    assert fit.colour_residual == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-9)
    np.testing.assert_allclose(fit.matrix.T, np.linalg.lstsq(light, known, rcond=None)[0], rtol=1e-9)


def test_greys_stay_grey_whatever_the_colours_say(rng: np.random.Generator) -> None:
    light = CHART @ MIX.T + np.where(np.arange(24)[:, None] < 18, rng.normal(0, 0.02, (24, 3)), 0.0)
    fit = fit_card(light, CHART)
    assert fit is not None
    assert (fit.greys, fit.colours) == (6, 18)
    np.testing.assert_allclose(fit.matrix.sum(axis=1), 1.0, atol=1e-12)
    balanced = light[18:] * fit.gain + fit.offset
    np.testing.assert_allclose(balanced @ fit.matrix.T, CHART[18:], atol=2e-3)


def test_one_grey_gives_a_gain_and_no_residual() -> None:
    fit = fit_card(np.array([[0.2, 0.1, 0.05]]), np.array([[0.4, 0.4, 0.4]]))
    assert fit is not None
    np.testing.assert_allclose(fit.gain, [2, 4, 8])
    assert not fit.offset.any() and not fit.has_matrix and fit.accepted
    assert np.isnan(fit.grey_residual)


@pytest.mark.parametrize("colours", [3, 6])
def test_cards_that_do_not_decide_are_refused(colours: int) -> None:
    one_colour = np.tile([0.4, 0.2, 0.1], (colours, 1))
    assert fit_card(one_colour, one_colour) is None


def test_clipped_pixels_are_unknown_and_clipped_patches_unused(tmp_path: Path) -> None:
    truth = chart_reflectance()
    image = save(tmp_path / "a.tif", truth * np.array([1.3, 1.0, 1.0]))
    told = calibrated(image, CalibrationPlan("linear", own_card=GREYS))
    assert told.calibration is not None
    assert told.calibration.fit.greys == 5  # white is clipped in red
    value = told.calibration.reflectance(tifffile.imread(image))
    assert np.isnan(value[40, 10]).all()
    assert np.isfinite(value[40, 20]).all()
    black = told.calibration.reflectance(np.zeros((1, 1, 3), np.uint8))
    assert np.isnan(black).all()


def test_without_a_matrix_channels_are_clipped_alone(tmp_path: Path) -> None:
    plate = save(tmp_path / "plate.tif", np.full((9, WIDTH, 3), 0.8))
    image = save(tmp_path / "a.tif", np.full((9, WIDTH, 3), 0.4))
    found = calibrated(image, CalibrationPlan("linear", plate, 0.9)).calibration
    assert found is not None
    value = found.reflectance(np.array([[[255, 102, 0]]], np.uint8))[0, 0]
    assert np.isnan(value[[0, 2]]).all()
    assert value[1] == pytest.approx(0.4 / 0.8 * 0.9, abs=1e-6)


def test_flat_field_and_plate_as_reference(tmp_path: Path) -> None:
    fall_off = np.linspace(0.6, 1.0, WIDTH)[None, :, None] * np.array([0.9, 1.0, 0.8])
    truth = chart_reflectance()
    image = save(tmp_path / "a.tif", truth * fall_off)
    plate = save(tmp_path / "plate.tif", np.full((7, WIDTH, 3), 0.95) * fall_off)
    value = reflect(image, CalibrationPlan("linear", plate, 0.95))
    assert np.isnan(value[..., 1:]).sum() == 0  # but cyan is black in red, here and there
    assert np.nanmax(np.abs(value - truth)) < 1.7 / 255 / 0.48
    carded = reflect(image, CalibrationPlan("linear", plate, own_card=GREYS))
    assert np.nanmax(np.abs(carded - truth)) < 3 / 255 / 0.48
    rows = "\n".join(f"{r:.6f},{g:.6f},{b:.6f}" for r, g, b in 0.95 * fall_off[0])
    (tmp_path / "plate.csv").write_text(f"r,g,b\n{rows}\n")
    exact = reflect(image, CalibrationPlan("linear", tmp_path / "plate.csv", 0.95))
    assert np.nanmax(np.abs(exact - truth)) < 0.51 / 255 / 0.48


def test_part_of_the_width_takes_its_own_gains(tmp_path: Path) -> None:
    fall_off = np.linspace(0.6, 0.9, WIDTH)[None, :, None] * np.ones(3)
    image = save(tmp_path / "a.tif", 0.5 * np.ones((4, 1, 1)) * fall_off)
    plate = save(tmp_path / "plate.tif", np.ones((4, 1, 1)) * fall_off)
    found = calibrated(image, CalibrationPlan("linear", plate, 1.0)).calibration
    assert found is not None
    rgb = tifffile.imread(image)
    np.testing.assert_array_equal(found.reflectance(rgb[:, 20:40], 20), found.reflectance(rgb)[:, 20:40])
    with pytest.raises(ContractError, match="first_col 70"):
        found.reflectance(rgb[:, 20:40], 70)


@pytest.mark.parametrize(
    ("light", "reason"),
    [
        (np.full((4, WIDTH - 1, 3), 0.5), "79 columns; a.tif has 80"),
        (
            np.where(np.arange(WIDTH)[None, :, None] == 7, 0.0, np.full((4, WIDTH, 3), 0.5)),
            "column 7 is black",
        ),
        (
            np.where(np.arange(WIDTH)[None, :, None] == 3, 1.0, np.full((4, WIDTH, 3), 0.5)),
            "column 3 is black, or",
        ),
        (np.linspace(0.2, 0.9, WIDTH)[None, :, None] * np.ones((4, 1, 3)), "factor of 4.5"),
    ],
    ids=["width", "zero", "clipped", "range"],
)
def test_flats_that_would_mislead_are_refused(tmp_path: Path, light: Floats, reason: str) -> None:
    image = save(tmp_path / "a.tif", chart_reflectance())
    plate = save(tmp_path / "plate.tif", light)
    with pytest.raises(SourceError, match=reason):
        calibrated(image, CalibrationPlan("linear", plate, 0.9))


@pytest.mark.parametrize(
    ("factor", "state"), [(1.0, "still"), (0.95, "noted"), (1.08, "noted"), (0.8, "refused")]
)
def test_a_card_that_drifts(tmp_path: Path, factor: float, state: str) -> None:
    card = save(tmp_path / "card.tif", 0.8 * chart_reflectance())
    image = save(tmp_path / "a.tif", 0.8 * chart_reflectance() * np.array([1.0, factor, 1.0]))
    found = calibrated(image, CalibrationPlan("linear", card=GREYS, card_image=card, own_card=GREYS))
    assert found.drift == pytest.approx(factor - 1.0, abs=0.01)
    assert found.drifted == (state != "still")
    assert (found.calibration is None) == (state == "refused")
    assert (abs(factor - 1.0) > MOST_DRIFT) == (state == "refused")
    assert any("off the reference" in note for note in found.notes)


def test_a_clipped_card_leaves_a_section_uncalibrated(tmp_path: Path) -> None:
    card = save(tmp_path / "card.tif", 0.8 * chart_reflectance())
    image = save(tmp_path / "a.tif", np.ones((80, WIDTH, 3)))
    found = calibrated(image, CalibrationPlan("linear", card=GREYS, card_image=card, own_card=GREYS))
    assert found.calibration is None
    assert found.notes == ("colours not calibrated: the section's card is clipped; no reflectance",)


def test_a_card_tells_when_a_plate_is_out_of_date(tmp_path: Path) -> None:
    plate = save(tmp_path / "plate.tif", np.full((7, WIDTH, 3), 0.8 * 0.95))
    image = save(tmp_path / "a.tif", 0.76 * chart_reflectance() @ MIX.T)
    found = calibrated(image, CalibrationPlan("linear", plate, 0.95, own_card=GREYS))
    assert found.drift == pytest.approx(-0.05, abs=0.01)
    assert found.drifted and found.calibration is not None
    table = tmp_path / "card.csv"
    table.write_text("name,top_cm,base_cm,left_cm,right_cm,srgb_r,srgb_g,srgb_b\nred,1,2,1,2,99,9,9\n")
    with pytest.raises(SourceError, match="no patch of its card"):
        calibrated(image, CalibrationPlan("linear", plate, 0.95, own_card=Card(patches=table)))


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_card_placed_wrongly_is_refused(tmp_path: Path, turn: int) -> None:
    image = save(tmp_path / "a.tif", 0.8 * chart_reflectance())
    turned = Card((*CORNERS[turn:], *CORNERS[:turn]))
    with pytest.raises(SourceError, match="card"):
        calibrated(image, CalibrationPlan("linear", own_card=turned))


def test_two_greys_the_wrong_way_round_are_refused(tmp_path: Path) -> None:
    truth = np.full((60, WIDTH, 3), 0.3)
    truth[10:20], truth[30:40] = 0.1, 0.8
    image = save(tmp_path / "a.tif", truth)
    table = tmp_path / "card.csv"
    known = "reflectance_r,reflectance_g,reflectance_b"
    table.write_text(
        f"name,top_cm,base_cm,left_cm,right_cm,{known}\nl,1,2,1,2,.8,.8,.8\nd,3,4,1,2,.1,.1,.1\n"
    )
    with pytest.raises(SourceError, match="should be brighter are darker"):
        calibrated(image, CalibrationPlan("linear", own_card=Card(patches=table)))


def test_reflectance_of_a_pixel_does_not_depend_on_its_neighbours(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    image = save(tmp_path / "a.tif", 0.8 * chart_reflectance() @ MIX.T)
    found = calibrated(image, CalibrationPlan("linear", own_card=GREYS)).calibration
    assert found is not None and found.fit.has_matrix
    rgb = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    whole = found.reflectance(rgb)
    rows = np.concatenate([found.reflectance(rgb[row : row + 1]) for row in range(37)])
    assert whole.tobytes() == rows.tobytes()


def test_one_card_serves_other_sections(tmp_path: Path) -> None:
    gains = np.array([0.9, 0.8, 0.7])
    card = save(tmp_path / "card.tif", chart_reflectance() @ MIX.T * gains)
    truth = np.full((30, WIDTH, 3), [0.2, 0.15, 0.1])
    image = save(tmp_path / "a.tif", truth @ MIX.T * gains)
    value = reflect(image, CalibrationPlan("linear", card=GREYS, card_image=card))
    np.testing.assert_allclose(value, truth, atol=0.006)


def test_patches_from_a_table_in_reflectance(tmp_path: Path) -> None:
    truth = np.full((60, WIDTH, 3), 0.3)
    truth[10:20, 10:20] = 0.1
    truth[30:40, 10:20] = 0.8
    image = save(tmp_path / "a.tif", truth * np.array([0.5, 0.6, 0.7]) + 0.02)
    table = tmp_path / "card.csv"
    known = "reflectance_r,reflectance_g,reflectance_b"
    table.write_text(
        f"name,top_cm,base_cm,left_cm,right_cm,{known}\nd,1,2,1,2,.1,.1,.1\nl,3,4,1,2,.8,.8,.8\n"
    )
    value = reflect(image, CalibrationPlan("linear", own_card=Card(patches=table)))
    assert np.abs(value - truth).max() < 0.01
    told = calibrated(image, CalibrationPlan("linear", own_card=Card(patches=table))).notes[0]
    assert "2 greys (residual untold)" in told


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("d,1,2,1,2,300,0,0", "above 255"),
        ("d,2,1,1,2,30,0,0", "ends before it starts"),
        ("d,1,2,1,2,x,0,0", "line 2, column srgb_r"),
        ("d,1,2,1,2,9,9,9\nd,1,2,1,2,9,9,9", "name of their own"),
        ("d,99,100,1,2,9,9,9", "outside of the image"),
        ("d,1,1.2,1,1.2,9,9,9", "4 px, of at least 9"),
    ],
)
def test_tables_that_would_mislead_are_refused(tmp_path: Path, rows: str, reason: str) -> None:
    image = save(tmp_path / "a.tif", chart_reflectance())
    table = tmp_path / "card.csv"
    table.write_text(f"name,top_cm,base_cm,left_cm,right_cm,srgb_r,srgb_g,srgb_b\n{rows}\n")
    with pytest.raises(SourceError, match=reason):
        calibrated(image, CalibrationPlan("linear", own_card=Card(patches=table)))


def test_uncalibrated_says_so(tmp_path: Path) -> None:
    image = save(tmp_path / "a.tif", chart_reflectance())
    for plan, why in ((None, "no plan"), (CalibrationPlan("srgb"), "neither a card nor a plate")):
        found = calibrated(image, plan)
        assert found.calibration is None
        assert why in found.notes[0]


def test_transfer_from_a_table(tmp_path: Path) -> None:
    rows = "\n".join(f"{(v / 255) ** 2:.9f},{v},{v / 255:.9f}" for v in range(256))
    (tmp_path / "t.csv").write_text(f"r,g,b\n{rows}\n")
    curve = linear_light(CalibrationPlan(tmp_path / "t.csv"), section(tmp_path / "a.tif", None))
    np.testing.assert_allclose(curve[100], [(100 / 255) ** 2, 100, 100 / 255], atol=1e-8)
    assert np.isnan(curve[[0, 255]]).all()
    (tmp_path / "t.csv").write_text("r,g,b\n1,1,1\n")
    with pytest.raises(SourceError, match="1 rows"):
        linear_light(CalibrationPlan(tmp_path / "t.csv"), section(tmp_path / "a.tif", None))


def test_falling_tables_and_unknown_names_are_refused(tmp_path: Path) -> None:
    rows = "\n".join(f"{255 - v},{v},{v}" for v in range(256))
    (tmp_path / "t.csv").write_text(f"r,g,b\n{rows}\n")
    with pytest.raises(SourceError, match="do not rise"):
        linear_light(CalibrationPlan(tmp_path / "t.csv"), section(tmp_path / "a.tif", None))
    with pytest.raises(ConfigError, match="'rec709' is no transfer"):
        linear_light(CalibrationPlan("rec709"), section(tmp_path / "a.tif", None))


def icc(curve: bytes) -> bytes:
    """Three equal curves in the smallest profile that holds them."""
    table = b"".join(
        struct.pack(">4sII", name, 128 + 4 + 36, len(curve)) for name in (b"rTRC", b"gTRC", b"bTRC")
    )
    return bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(88) + struct.pack(">I", 3) + table + curve


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


X = np.arange(256) / 255.0


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (b"curv" + bytes(8), X),
        (b"curv" + bytes(4) + struct.pack(">IH", 1, 0x0200), X**2),
        (b"curv" + bytes(4) + struct.pack(">I3H", 3, 0, 0, 65535), np.clip(2 * X - 1, 0, None)),
        (b"para" + bytes(4) + struct.pack(">HH", 0, 0) + fixed(1.5), X**1.5),
        (b"para" + bytes(4) + struct.pack(">HH", 1, 0) + fixed(2, 2, -1), np.clip(2 * X - 1, 0, None) ** 2),
        (
            b"para" + bytes(4) + struct.pack(">HH", 2, 0) + fixed(2, 2, -1, 0.25),
            np.clip(2 * X - 1, 0, None) ** 2 + 0.25,
        ),
        (
            b"para"
            + bytes(4)
            + struct.pack(">HH", 3, 0)
            + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
            linear_srgb(X),
        ),
    ],
    ids=["identity", "exponent", "points", "para0", "para1", "para2", "srgb"],
)
def test_tone_curves_of_profiles(curve: bytes, expected: Floats) -> None:
    np.testing.assert_allclose(tone_curves(icc(curve), Path("p.icc"))[:, 1], expected, atol=2e-4)


def test_profile_of_another_writer(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_allclose(tone_curves(profile, tmp_path)[:, 0], linear_srgb(X), atol=2e-4)
    image = tmp_path / "a.tif"
    eight = np.full((4, 4, 3), 128, np.uint8)
    Image.fromarray(eight).save(image, icc_profile=profile)
    curve = linear_light(CalibrationPlan("embedded"), section(image, None))
    np.testing.assert_allclose(curve[128], linear_srgb(np.array([128 / 255])).item(), atol=2e-4)


@pytest.mark.parametrize(
    "profile",
    [b"", bytes(200), icc(b"mft2" + bytes(20)), icc(b"curv" + bytes(4) + struct.pack(">I", 99))],
    ids=["empty", "zeros", "table", "cut"],
)
def test_profiles_that_say_nothing_are_refused(profile: bytes) -> None:
    with pytest.raises(SourceError, match="ICC profile"):
        tone_curves(profile, Path("p.icc"))


def read_one(folder: Path, text: str) -> ManifestSection:
    (folder / "manifest.toml").write_text(text)
    (item,) = read_manifest(folder / "manifest.toml")
    assert isinstance(item, ManifestSection), item
    return item


CORNERS_TOML = "corners_cm = [[1, 1], [1, 6], [4, 6], [4, 1]]"


def test_manifest_names_card_flat_and_transfer(tmp_path: Path) -> None:
    for name in ("a.tif", "card.tif", "plate.tif", "scanner.icc"):
        (tmp_path / name).touch()
    item = read_one(
        tmp_path,
        f"""
        [calibration]
        transfer = "scanner.icc"
        flat = "plate.tif"
        [calibration.card]
        file = "card.tif"
        top_cm = 2
        {CORNERS_TOML}
        [defaults.card]
        {CORNERS_TOML}
        [[section]]
        file = "a.tif"
        """,
    )
    assert item.calibration == CalibrationPlan(
        tmp_path / "scanner.icc", tmp_path / "plate.tif", None, GREYS, tmp_path / "card.tif", 2.0, GREYS
    )
    assert [path.name for path in item.calibration.files] == ["scanner.icc", "plate.tif", "card.tif"]
    plain = read_one(tmp_path, '[calibration]\ntransfer = 1.8\n[[section]]\nfile = "a.tif"')
    assert plain.calibration == CalibrationPlan(1.8)
    assert read_one(tmp_path, '[[section]]\nfile = "a.tif"').calibration is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"[section.card]\n{CORNERS_TOML}", "nothing says how samples follow light"),
        ('[calibration]\ntransfor = "srgb"', "did you mean 'transfer'"),
        ("[calibration]\nflat_reflectance = 0.9", "makes the plate"),
        ('[calibration]\nflat = "no.tif"', "no file"),
        ("[calibration.card]\nfile = 'a.tif'", "placed by corners_cm or by patches"),
        ("[calibration]\ntransfer = 9", "less than 5"),
        ("[calibration]\n[section.card]\ncorners_cm = [[1, 1]]", "at least 4"),
    ],
)
def test_manifests_that_do_not_hold_together(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.tif").touch()
    with pytest.raises(LithostreamError, match=reason):
        read_one(tmp_path, f'[[section]]\nfile = "a.tif"\n{text}')


# Middles of the corner patches of the chart in the scan of CD166-19 S1, found by eye: dark skin, bluish green,
# black, white.
CD166_CORNERS = ((136.76, 7.83), (136.76, 1.56), (133.21, 1.56), (133.21, 7.83))


@pytest.fixture(scope="module")
def scan(data_dir: Callable[[str], Path]) -> Section:
    found = describe_image(data_dir("itrax-cd166-19") / "S1" / "optical_lowres.tif")
    return replace(found, calibration=CalibrationPlan("linear", own_card=Card(corners_cm=CD166_CORNERS)))


def seen_on_scan(scan: Section) -> Floats:
    card = read_patches(Card(corners_cm=CD166_CORNERS))
    assert scan.calibration is not None
    return measure(scan.image, card, linear_light(scan.calibration, scan), None, scan, scan.top_cm)


def test_chart_of_a_real_scan_tells_of_a_linear_camera(scan: Section) -> None:
    found = calibrate(scan, 135)
    assert found.calibration is not None and found.drift is None
    fit = found.calibration.fit
    assert (fit.greys, fit.colours) == (5, 13)  # white, and red of five warm colours, are clipped
    # Of five greys from 3 to 58 %, each predicted by the others; the camera's colours are not those of sRGB.
    assert 0.005 < fit.grey_residual < 0.016
    assert 0.05 < fit.colour_residual < 0.075
    assert (fit.offset < 0).all()  # stray light
    for wrong in ("srgb", 1.8, 2.2):
        with pytest.raises(SourceError, match="the card is missed by"):
            calibrate(replace(scan, calibration=CalibrationPlan(wrong, own_card=Card(CD166_CORNERS))), 135)


def test_half_of_a_real_chart_predicts_the_other_half(scan: Section) -> None:
    light = seen_on_scan(scan)
    fitted = light.copy()
    fitted[1:18:2], fitted[[20, 22]] = np.nan, np.nan
    fit = fit_card(fitted, CHART)
    assert fit is not None
    error = (light * fit.gain + fit.offset) @ fit.matrix.T - CHART
    assert np.abs(error[20]).max() < 0.03  # neutral 6.5, 35 %
    assert np.abs(error[22]).max() < 0.013  # neutral 3.5, 9 %: as dark as mud
    assert np.sqrt(np.nanmean(error[1:18:2] ** 2)) < 0.08


def test_drift_on_a_real_chart_is_what_was_done_to_it(scan: Section, tmp_path: Path) -> None:
    samples = tifffile.imread(scan.image).astype(np.float64)
    moved = Card(tuple((depth + 0.1, across - 0.1) for depth, across in CD166_CORNERS))
    for factor, least, most in ((1.0, -0.01, 0.01), (0.95, -0.065, -0.045), (0.8, -0.22, -0.19)):
        image = tmp_path / f"{factor}.tif"
        tifffile.imwrite(image, np.rint(samples * factor).astype(np.uint8), photometric="rgb")
        plan = CalibrationPlan("linear", None, None, Card(CD166_CORNERS), scan.image, scan.top_cm, moved)
        found = calibrate(replace(scan, image=image, calibration=plan), 135)
        assert found.drift is not None and least < found.drift < most
        assert found.drifted == (factor < 1.0)
        assert (found.calibration is None) == (factor == 0.8)
