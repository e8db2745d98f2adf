"""Planes beside colour: read as stored, laid on the colour image by depth and middle, never invented."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from pydantic import ValidationError

from lithostream.engine.config import RunSettings
from lithostream.engine.core.planes import levels, open_planes, plane_tiles
from lithostream.engine.core.section import Plane, Section
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.core.windows import (
    open_section,
    section_grid,
    window_tiles,
    windows,
)
from lithostream.engine.errors import ConfigError, DecodeError, ScaleError, SourceError
from lithostream.engine.io.discover import discover
from lithostream.engine.io.manifest import ManifestSection, read_manifest
from lithostream.engine.io.planes import PlaneImage, read_plane
from lithostream.engine.manifest import PlaneInput, TileInput

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Edit = Callable[[Path], None]

COLOUR = TileInput(tile_cm=1.0, size_px=16)
CT = PlaneInput(name="ct", low=0.0, high=255.0)
HALVED = CT.model_copy(update={"high": 1020.0})  # of sums over 2 x 2 pixels, see `with_plane`
WITH_CT = TileInput(tile_cm=1.0, size_px=16, planes=(HALVED,))


def plane_of(image: Path, **changes: object) -> Plane:
    plain = Plane("ct", image, 7.0, 0.0, "y", False)
    return replace(plain, **changes)  # type: ignore[arg-type]


def in_memory(samples: npt.NDArray[np.floating] | npt.NDArray[np.integer], **changes: object) -> PlaneImage:
    return PlaneImage(plane_of(Path("ct.tif"), **changes), samples, ())


def oracle(levels: Floats, top: float, base: float, left: float, right: float) -> float:
    """Mean over a rectangle in pixels, from the overlap of every pixel with it."""
    rows, cols = (np.arange(length) for length in levels.shape)
    down = np.clip(np.minimum(rows + 1, base) - np.maximum(rows, top), 0, None)
    across = np.clip(np.minimum(cols + 1, right) - np.maximum(cols, left), 0, None)
    weight = np.outer(down, across)
    return float((weight * levels).sum() / weight.sum())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "deflate", "rowsperstrip": 3}, {"tile": (16, 16)}, {"byteorder": ">"}],
    ids=str,
)
def test_tiff_samples_are_kept_as_stored(
    tmp_path: Path, rng: np.random.Generator, dtype: type[np.generic], options: dict[str, Any]
) -> None:
    stored = (rng.random((29, 17)) * 200).astype(dtype)
    tifffile.imwrite(tmp_path / "ct.tif", stored, photometric="minisblack", metadata=None, **options)
    image = read_plane(plane_of(tmp_path / "ct.tif"))
    assert image.samples.dtype == dtype and np.array_equal(image.samples, stored)
    assert image.notes == ()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_differenced_rows_are_undone(
    tmp_path: Path, rng: np.random.Generator, dtype: type[np.generic]
) -> None:
    stored = rng.integers(0, 30000, (9, 31)).astype(dtype)
    tifffile.imwrite(tmp_path / "ct.tif", stored, compression="deflate", predictor=2, metadata=None)
    assert np.array_equal(read_plane(plane_of(tmp_path / "ct.tif")).samples, stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_samples_are_kept_as_stored(
    tmp_path: Path, rng: np.random.Generator, dtype: type[np.generic]
) -> None:
    stored = rng.integers(0, np.iinfo(dtype).max, (29, 17)).astype(dtype)  # type: ignore[type-var]
    (tmp_path / "ct.png").write_bytes(imagecodecs.png_encode(stored))
    assert np.array_equal(read_plane(plane_of(tmp_path / "ct.png")).samples, stored)


def test_a_plane_is_turned_down_core(tmp_path: Path) -> None:
    stored = np.arange(6, dtype=np.uint16).reshape(2, 3)
    tifffile.imwrite(tmp_path / "ct.tif", stored, metadata=None)
    image = read_plane(plane_of(tmp_path / "ct.tif", depth_axis="x", depth_reversed=True))
    assert image.samples.tolist() == [[2, 5], [1, 4], [0, 3]]
    assert image.notes == ("plane ct: depth along x: transposed", "plane ct: depth reversed: rows flipped")


def test_samples_outside_are_clamped_and_counted(section: Section, tmp_path: Path) -> None:
    stored = np.array([[-50, 0, 100], [200, 250, np.inf], [np.nan, 150, 150]], np.float32)
    tifffile.imwrite(tmp_path / "ct.tif", stored, metadata=None)
    wanted = PlaneInput(name="ct", low=0.0, high=200.0)
    expected = [[0, 0, 127.5], [255, 255, 255], [np.nan, 191.25, 191.25]]
    assert np.array_equal(levels(stored, wanted), np.array(expected, np.float64), equal_nan=True)
    section = replace(section, planes=(plane_of(tmp_path / "ct.tif"),))
    (image,) = open_planes(section, TileInput(tile_cm=1.0, size_px=16, planes=(wanted,)))
    assert np.array_equal(image.samples, stored, equal_nan=True)
    assert image.notes == (
        "plane ct: 1 of 9 samples below 0 taken as 0",
        "plane ct: 2 of 9 samples above 200 taken as 200",
        "plane ct: 1 of 9 samples not a number: tiles on them are left out",
    )


def _rgb(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((4, 4, 3), np.uint8), photometric="rgb")


def _long(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((4, 4), np.uint32))


def _cut_short(path: Path) -> None:
    tifffile.imwrite(path, np.ones((40, 40), np.float32), metadata=None)
    path.write_bytes(path.read_bytes()[:-100])


def _two_pages(path: Path) -> None:
    tifffile.imwrite(path, np.ones((2, 40, 40), np.uint16), photometric="minisblack")


@pytest.mark.parametrize(
    ("make", "reason"),
    [(_rgb, "3 samples"), (_long, "32-bit"), (_cut_short, "cut short"), (_two_pages, "second full-size")],
)
def test_bad_tiffs_are_refused(tmp_path: Path, make: Edit, reason: str) -> None:
    make(tmp_path / "ct.tif")
    with pytest.raises(DecodeError, match=reason):
        read_plane(plane_of(tmp_path / "ct.tif"))


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4, 2)])
def test_a_png_of_more_than_grey_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "ct.png").write_bytes(imagecodecs.png_encode(np.zeros(shape, np.uint8)))
    with pytest.raises(DecodeError, match="colour type"):
        read_plane(plane_of(tmp_path / "ct.png"))


def test_jpeg_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ct.jpg").write_bytes(imagecodecs.jpeg_encode(np.zeros((8, 8), np.uint8)))
    with pytest.raises(DecodeError, match="JPEG does not keep sample values"):
        read_plane(plane_of(tmp_path / "ct.jpg"))
    with pytest.raises(SourceError, match="cannot be read"):
        read_plane(plane_of(tmp_path / "none.tif"))


@pytest.mark.parametrize("px_per_cm", [1.3, 7.0, 41.7])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiles_are_means_over_their_area(
    rng: np.random.Generator, px_per_cm: float, dtype: type[np.generic]
) -> None:
    samples = (rng.random((round(9 * px_per_cm), round(5 * px_per_cm))) * 3000).astype(dtype)
    image = in_memory(samples, px_per_cm=px_per_cm, top_cm=1.9)
    row_cm, col_cm = np.array([2.5, 3.5, 4.47, 5.5]), np.array([-1.6, -0.63, 0.4])
    found = plane_tiles(image, PlaneInput(name="ct", low=500.0, high=2500.0), row_cm, col_cm, 8)
    assert found.pixels.shape == (3, 2, 8, 8) and found.covered.all()
    expected = (np.clip(samples.astype(np.float64), 500, 2500) - 500) / 2000 * 255
    for r, (top, base) in enumerate(pairwise((row_cm - 1.9) * px_per_cm)):
        for c, (left, right) in enumerate(pairwise(col_cm * px_per_cm + samples.shape[1] / 2)):
            down, across = np.linspace(top, base, 9), np.linspace(left, right, 9)
            wanted = [[oracle(expected, *y, *x) for x in pairwise(across)] for y in pairwise(down)]
            # Rounded half up; a level that is a tie to the last bit may be taken either way by the oracle.
            assert np.abs(found.pixels[r, c] - np.asarray(wanted)).max() <= 0.5 + 1e-5


def test_a_level_between_two_bytes_rounds_up_everywhere() -> None:
    image, wanted = in_memory(np.full((70, 40), 101, np.uint16)), PlaneInput(name="ct", low=0.0, high=510.0)
    row_cm = np.arange(10, dtype=np.float64) * 0.97
    found = plane_tiles(image, wanted, row_cm, np.array([-1.3, 0.2, 1.7]), 16)  # of level 50.5
    assert (found.pixels == 51).all()


def test_only_cells_on_the_plane_are_covered() -> None:
    image = in_memory(np.full((35, 28), 90, np.uint8), top_cm=3.0)  # 3 to 8 cm, 2 cm to both sides
    row_cm, col_cm = np.arange(11, dtype=np.float64), np.arange(-3, 4, dtype=np.float64)
    found = plane_tiles(image, CT, row_cm, col_cm, 4)
    assert np.flatnonzero(found.covered.any(axis=1)).tolist() == [3, 4, 5, 6, 7]
    assert np.flatnonzero(found.covered.any(axis=0)).tolist() == [1, 2, 3, 4]
    assert (found.pixels[found.covered] == 90).all()
    assert not plane_tiles(image, CT, row_cm + 20, col_cm, 4).covered.any()
    assert plane_tiles(image, CT, row_cm[:1], col_cm, 4).pixels.shape == (0, 6, 4, 4)


@pytest.mark.parametrize(("over_cm", "covered"), [(0.4 / 7, True), (0.6 / 7, False)])
def test_half_a_pixel_may_be_missing_at_the_edge(over_cm: float, covered: bool) -> None:
    samples = np.repeat(np.arange(35, dtype=np.uint8)[:, None], 28, axis=1)
    row_cm = np.array([4 + over_cm, 5 + over_cm])
    found = plane_tiles(in_memory(samples), CT, row_cm, np.array([-1.0, 1.0]), 16)
    assert bool(found.covered.all()) is covered
    if covered:
        assert found.pixels[0, 0, -1].tolist() == [34] * 16  # the last row goes on


def test_a_cell_on_unknown_samples_is_not_covered() -> None:
    samples = np.full((35, 35), 10.0, np.float32)
    samples[9, 17] = np.nan
    found = plane_tiles(
        in_memory(samples), CT, np.arange(6, dtype=np.float64), np.arange(6, dtype=np.float64) - 2.5, 4
    )
    assert np.argwhere(~found.covered).tolist() == [[1, 2]]
    assert (found.pixels[found.covered] == 10).all()


@pytest.fixture
def section(core_image: Path) -> Section:
    (found,), errors = discover([core_image])
    assert errors == []
    return found


def with_plane(section: Section, core: SyntheticCore, folder: Path, **changes: object) -> Section:
    """Return the section with its red channel, halved to 16 px/cm, as a plane."""
    red = core.image[..., 0].astype(np.uint16)
    half = red.reshape(len(red) // 2, 2, -1, 2).sum(axis=(1, 3)).astype(np.uint16)
    tifffile.imwrite(folder / "ct.tif", half, metadata=None)
    return replace(section, planes=(plane_of(folder / "ct.tif", px_per_cm=16.0, **changes),))


def test_a_plane_is_the_last_channel_and_colour_stays(
    section: Section, core: SyntheticCore, tmp_path: Path
) -> None:
    section = with_plane(section, core, tmp_path)
    source, settings = open_section(section), RunSettings()
    grid = section_grid(section, source, WITH_CT, settings)
    planes = open_planes(section, WITH_CT)
    for window in windows(source, grid, settings, None):
        plain = window_tiles(window, grid, COLOUR, settings)
        found = window_tiles(window, grid, WITH_CT, settings, planes)
        assert found.pixels.shape[1:] == (16, 16, 4)
        assert np.array_equal(found.pixels[..., :3], plain.pixels)
        assert np.array_equal(found.pixels[..., 3], plain.pixels[..., 0])  # both are means of 2 x 2 pixels
        assert np.array_equal(found.row, plain.row) and found.uncovered == 0


def test_tiles_beyond_the_plane_are_left_out_and_counted(
    section: Section, core: SyntheticCore, tmp_path: Path
) -> None:
    section = with_plane(section, core, tmp_path, top_cm=17.0)  # core from 0, plane from 17 cm
    source, settings = open_section(section), RunSettings()
    grid = section_grid(section, source, WITH_CT, settings)
    planes = open_planes(section, WITH_CT)
    lost = 0
    for window in windows(source, grid, settings, None):
        plain = window_tiles(window, grid, COLOUR, settings)
        found = window_tiles(window, grid, WITH_CT, settings, planes)
        kept = plain.row >= 17
        assert np.array_equal(found.row, plain.row[kept]) and np.array_equal(found.col, plain.col[kept])
        assert found.uncovered == np.count_nonzero(~kept)
        lost += int(np.count_nonzero(~kept))
    assert lost > 0


def test_each_model_maps_a_plane_by_its_own_range(
    section: Section, core: SyntheticCore, tmp_path: Path
) -> None:
    section = with_plane(section, core, tmp_path)
    source, settings = open_section(section), RunSettings()
    grid = section_grid(section, source, WITH_CT, settings)
    window = next(iter(windows(source, grid, settings, None)))
    models = [
        TileInput(tile_cm=1.0, size_px=16, planes=(PlaneInput(name="ct", low=low, high=high),))
        for low, high in ((0.0, 1020.0), (0.0, 2040.0), (300.0, 555.0))
    ]
    opened = [open_planes(section, tile) for tile in models]
    whole, half, narrow = (
        window_tiles(window, grid, tile, settings, planes).pixels
        for tile, planes in zip(models, opened, strict=True)
    )
    # 16 px a tile at 16 px/cm is a sample for each pixel, which 300 to 555 keeps exact but for the ends.
    inner = (narrow[..., 3] > 0) & (narrow[..., 3] < 255)
    sample = narrow[..., 3][inner].astype(np.float64) + 300
    assert np.mean(inner) > 0.1 and np.array_equal(narrow[..., :3], whole[..., :3])
    assert np.array_equal(whole[..., 3][inner], np.floor(sample / 4 + 0.5))
    assert np.array_equal(half[..., 3][inner], np.floor(sample / 8 + 0.5))
    samples = [planes[0].samples for planes in opened]
    assert np.array_equal(samples[0], samples[2])
    assert opened[0][0].notes == ()
    assert opened[2][0].notes == (
        f"plane ct: {np.sum(samples[2] < 300)} of {samples[2].size} samples below 300 taken as 300",
        f"plane ct: {np.sum(samples[2] > 555)} of {samples[2].size} samples above 555 taken as 555",
    )


def test_a_model_gets_the_planes_it_names(section: Section, core: SyntheticCore, tmp_path: Path) -> None:
    assert open_planes(section, COLOUR) == ()
    with pytest.raises(SourceError, match=rf"section {section.name} has no plane 'ct'") as caught:
        open_planes(section, WITH_CT)
    assert "[[section.plane]]" in caught.value.fix and 'name = "ct"' in caught.value.fix
    assert "low" not in caught.value.fix
    section = with_plane(section, core, tmp_path)
    other = replace(section.planes[0], name="radiograph")
    both = replace(section, planes=(*section.planes, other))
    radiograph = PlaneInput(name="radiograph", low=1.0, high=2.0)
    swapped = open_planes(both, TileInput(tile_cm=1.0, size_px=16, planes=(radiograph, CT)))
    assert [image.plane.name for image in swapped] == ["radiograph", "ct"]
    coarse = replace(section, planes=(replace(section.planes[0], px_per_cm=0.5),))
    with pytest.raises(ScaleError, match=r"0\.50 px of plane 'ct'"):
        open_planes(coarse, WITH_CT)


def test_a_bundle_without_planes_is_written_as_before() -> None:
    assert COLOUR.model_dump() == {"tile_cm": 1.0, "size_px": 16, "name": "tiles"}
    assert (COLOUR.channels, WITH_CT.channels) == (3, 4)
    text = WITH_CT.model_dump_json()
    assert '"planes":[{"name":"ct","low":0.0,"high":1020.0}]' in text
    assert (
        TileInput.model_validate_json(text) == WITH_CT
        and TileInput.model_validate(COLOUR.model_dump()) == COLOUR
    )


@pytest.mark.parametrize("names", [("rgb",), ("CT",), ("1ct",), ("",), ("ct", "ct")])
def test_names_of_planes(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="plane"):
        TileInput(
            tile_cm=1.0, size_px=16, planes=tuple(PlaneInput(name=name, low=0, high=1) for name in names)
        )


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (4000, 3000, "low 4000 must be below high 3000"),
        (3000, 3000, "must be below"),
        (float("nan"), 3000, "finite"),
        (0, float("inf"), "finite"),
        ("0", 3000, "number"),
        (False, 3000, "number"),
    ],
)
def test_a_range_that_is_none_is_refused(low: object, high: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PlaneInput.model_validate({"name": "ct", "low": low, "high": high})


PLANE = 'name = "ct"\nfile = "ct.tif"\npx_per_cm = 7\ntop_cm = -1.5\n'


def manifest(folder: Path, plane: str) -> Path:
    for name in ("a.tif", "ct.tif"):
        (folder / name).touch()
    path = folder / "manifest.toml"
    path.write_text(f'[[section]]\nfile = "a.tif"\npx_per_cm = 40\n[[section.plane]]\n{plane}')
    return path


def test_a_manifest_states_planes(tmp_path: Path) -> None:
    (found,) = read_manifest(manifest(tmp_path, PLANE + 'depth_axis = "x"\ndepth_reversed = true\n'))
    assert isinstance(found, ManifestSection)
    image = (tmp_path / "ct.tif").resolve()
    assert found.planes == (Plane("ct", image, 7.0, -1.5, "x", True),)


@pytest.mark.parametrize(
    ("plane", "told"),
    [
        (PLANE + "white = 3\n", "Extra inputs"),
        (PLANE + "low = 0\nhigh = 3000\n", "Extra inputs"),  # they belong to the model
        (PLANE.replace("top_cm = -1.5", "top_cm = nan"), "finite"),
        (PLANE.replace("px_per_cm = 7", "px_per_cm = 0"), "greater than 0"),
        (PLANE.replace("px_per_cm = 7", 'px_per_cm = "7"'), "number"),
        (PLANE.replace("top_cm = -1.5\n", ""), "required"),
        (PLANE.replace('"ct"', '"rgb"'), "'rgb' is the colour"),
        (PLANE + "[[section.plane]]\n" + PLANE, "name each plane once"),
    ],
)
def test_a_plane_that_is_not_stated_well_is_refused(tmp_path: Path, plane: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_manifest(manifest(tmp_path, plane))


def test_an_unknown_key_of_a_plane_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_manifest(manifest(tmp_path, PLANE.replace("px_per_cm", "px_pr_cm")))
    assert "px_per_cm" in str(caught.value) and caught.value.place.startswith("section 1, plane.0")


@pytest.mark.parametrize("file", ["none.tif", "../ct.tif", "/etc/passwd"])
def test_a_plane_lies_below_the_root(tmp_path: Path, file: str) -> None:
    (found,) = read_manifest(manifest(tmp_path, PLANE.replace("ct.tif", file)))
    assert isinstance(found, SourceError) and found.place == "section 1, plane ct, file"


def test_a_described_section_holds_its_planes(core_image: Path, tmp_path: Path) -> None:
    for path in core_image.parent.glob(f"{core_image.stem}*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tifffile.imwrite(tmp_path / "ct.tif", np.zeros((9, 9), np.uint16), metadata=None)
    (tmp_path / "manifest.toml").write_text(
        f'[[section]]\nfile = "{core_image.name}"\n[[section.plane]]\n{PLANE}', encoding="utf-8"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (section,), errors = discover([tmp_path])
    assert errors == [] and [plane.name for plane in section.planes] == ["ct"]
