"""Stacks of rasters: bands by name on one grid, what is missing, and what is refused with its reason."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.errors import ConfigError, DecodeError, SourceError
from lithostream.engine.io.raster import open_stack, window_size
from lithostream.engine.io.raster_reader import StackReader
from lithostream.engine.maps.manifest import Predictor
from lithostream.engine.maps.windows import Box

rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio: [geo]")

SHAPE = (20, 30)
GRID = rasterio.Affine(500.0, 0, 200_000.0, 0, -500.0, 980_000.0)
CU, MAG = Predictor(name="Cu", unit="ppm", non_negative=True), Predictor(name="MAG", unit="nT")
BOTH = (CU, MAG)
ALL = Box(0, 0, *SHAPE)


def write(
    path: Path,
    bands: Sequence[npt.NDArray[Any]],
    names: Sequence[str | None] = (),
    units: Sequence[str] = (),
    **given: Any,
) -> Path:
    profile: dict[str, Any] = {"driver": "GTiff", "height": bands[0].shape[0], "width": bands[0].shape[1]}
    profile |= {"count": len(bands), "dtype": bands[0].dtype, "crs": "EPSG:3578", "transform": GRID} | given
    with rasterio.open(path, "w", **profile) as raster:
        for number, band in enumerate(bands, 1):
            raster.write(band, number)
        if names:
            raster.descriptions = tuple(names)
        if units:
            raster.units = tuple(units)
    return path


@pytest.fixture
def cu(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.uniform(1, 9, SHAPE).astype(np.float32)


@pytest.fixture
def mag(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.normal(0, 100, SHAPE).astype(np.float32)


def read(path: Path, predictors: Sequence[Predictor] = BOTH, box: Box = ALL) -> tuple[Any, Any]:
    with StackReader(open_stack(path, predictors)) as reader:
        return reader.read(box)


def test_bands_come_in_the_order_of_the_predictors(
    cu: npt.NDArray[np.float32], mag: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    path = write(tmp_path / "s.tif", [mag, mag * 2, cu], ["MAG", "other", "Cu"], ["nT", "", "mg/kg"])
    stack = open_stack(path, BOTH)
    assert [(band.number, band.predictor.name) for band in stack.bands] == [(3, "Cu"), (1, "MAG")]
    assert stack.notes == ("band other is no predictor and is not read",)
    assert stack.grid.shape == SHAPE and stack.grid.transform == tuple(GRID)[:6] and stack.grid.metres == 1
    values, valid = read(path)
    np.testing.assert_array_equal(values, [cu, mag])
    assert valid.all()
    part, _ = read(path, box=Box(3, 4, 10, 30))
    np.testing.assert_array_equal(part, values[:, 3:10, 4:30])


def test_a_folder_and_a_list_are_stacks_too(
    cu: npt.NDArray[np.float32], mag: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "Cu.tif", [cu])
    write(folder / "MAG.tif", [mag])
    (folder / "notes.txt").write_text("no raster")
    write(tmp_path / "both.tif", [cu, mag])
    listed = tmp_path / "stack.toml"
    listed.write_text('[bands]\nCu = "folder/Cu.tif"\nMAG = { file = "both.tif", band = 2 }\n')
    for path in (folder, listed):
        np.testing.assert_array_equal(read(path)[0], [cu, mag])
    assert {file.name for file in open_stack(listed, BOTH).files} == {"Cu.tif", "both.tif"}


def test_what_is_missing_in_any_band_is_missing(
    cu: npt.NDArray[np.float32], mag: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    cu[0, :5] = -9999
    cu[1, :4] = -0.5  # no concentration
    mag[2, :3] = np.nan
    mag[3, :2] = np.inf
    mag[4, :6] = -9999  # a value: only the file's nodata is none
    write(tmp_path / "Cu.tif", [cu], nodata=-9999.0)
    write(tmp_path / "MAG.tif", [mag])
    _, valid = read(tmp_path)
    expected = np.ones(SHAPE, np.bool_)
    for row, count in enumerate((5, 4, 3, 2)):
        expected[row, :count] = False
    np.testing.assert_array_equal(valid, expected)


def test_whole_numbers_with_scale_nodata_and_mask(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(1, 1000, SHAPE, np.int16)
    stored[0, 0] = -32768
    path = write(tmp_path / "Cu.tif", [stored], nodata=-32768)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.01,), (2.0,)
    values, valid = read(path, [CU])
    np.testing.assert_allclose(values[0][valid], stored[valid] * 0.01 + 2, rtol=1e-6)
    assert not valid[0, 0] and valid.sum() == stored.size - 1
    masked = write(tmp_path / "m.tif", [stored.astype(np.uint16)], ["Cu"])
    with rasterio.open(masked, "r+") as raster:
        raster.write_mask(np.arange(stored.size).reshape(SHAPE) % 7 > 0)
    np.testing.assert_array_equal(read(masked, [CU])[1], np.arange(stored.size).reshape(SHAPE) % 7 > 0)


def test_a_folder_holds_one_band_of_a_name(cu: npt.NDArray[np.float32], tmp_path: Path) -> None:
    write(tmp_path / "Cu.tif", [cu, cu])
    with pytest.raises(SourceError, match="the file has 2 bands, in a folder it stands for one"):
        open_stack(tmp_path, [CU])
    write(tmp_path / "Cu.tif", [cu.astype(np.uint8)] * 2, photometric="minisblack", alpha="yes")
    assert [band.number for band in open_stack(tmp_path, [CU]).bands] == [1]
    write(tmp_path / "Cu.tiff", [cu])
    with pytest.raises(SourceError, match=r"Cu\.tif and Cu\.tiff are both Cu"):
        open_stack(tmp_path, [CU])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"transform": GRID * rasterio.Affine.translation(0.5, 0)}, "corners are up to 0.5 pixels apart"),
        ({"crs": "EPSG:32608"}, "coordinate reference system EPSG:32608, not EPSG:3578"),
        ({"crs": None}, "coordinate reference system none, not EPSG:3578"),
        ({"shape": (20, 31)}, "size 31 x 20, not 30 x 20"),
    ],
)
def test_bands_on_another_grid_are_not_resampled_in_silence(
    given: dict[str, Any], reason: str, cu: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    write(tmp_path / "Cu.tif", [cu])
    write(tmp_path / "MAG.tif", [np.zeros(given.pop("shape", SHAPE), np.float32)], **given)
    with pytest.raises(SourceError) as caught:
        open_stack(tmp_path, BOTH)
    assert reason in str(caught.value) and "MAG.tif" in str(caught.value.file)
    assert "gdalwarp -t_srs 'EPSG:3578' -te 200000.0 970000.0 215000.0 980000.0 -ts 30 20" in caught.value.fix


def test_corners_that_decimals_round_are_one_grid(cu: npt.NDArray[np.float32], tmp_path: Path) -> None:
    write(tmp_path / "Cu.tif", [cu])
    write(tmp_path / "MAG.tif", [cu], transform=GRID * rasterio.Affine.translation(1e-5, 0))
    assert len(open_stack(tmp_path, BOTH).bands) == 2


@pytest.mark.parametrize(
    ("names", "units", "given", "reason"),
    [
        (["Cu", "x"], [], {}, "no band for MAG; there are Cu, x"),
        (["Cu", "Cu"], [], {}, "several bands are called Cu"),
        ([], [], {}, "no band for Cu, MAG; there are none"),
        (["Cu", "MAG"], ["ppb", "nT"], {}, "Cu is in 'ppb', the model takes 'ppm'"),
        (["Cu", "MAG"], [], {"crs": None}, "states no coordinate reference system"),
        (["Cu", "MAG"], [], {"transform": rasterio.Affine.identity()}, "no position on the ground"),
        (["Cu", "MAG"], [], {"dtype": "complex64"}, "values of type complex64"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_does_not_fit_the_model_is_refused(
    names: list[str | None], units: list[str], given: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "s.tif", [np.ones(SHAPE, np.float32)] * 2, names, units, **given)
    with pytest.raises(SourceError) as caught:
        open_stack(path, BOTH)
    assert reason in str(caught.value)


def test_a_system_can_be_named(cu: npt.NDArray[np.float32], tmp_path: Path) -> None:
    path = write(tmp_path / "Cu.tif", [cu], crs=None)
    assert "Yukon" in open_stack(path, [CU], "EPSG:3578").grid.crs
    with pytest.raises(ConfigError, match="no coordinate reference system"):
        open_stack(path, [CU], "EPSG:nonsense")


def test_files_that_are_no_rasters_are_refused(cu: npt.NDArray[np.float32], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_stack(tmp_path / "absent.tif", [CU])
    (tmp_path / "Cu.tif").write_bytes(b"no raster at all")
    with pytest.raises(DecodeError, match="raster cannot be read or written"):
        open_stack(tmp_path / "Cu.tif", [CU])
    (tmp_path / "s.toml").write_text('[bands]\nCu = { file = "Cu.tif", colour = 2 }\n')
    with pytest.raises(ConfigError, match="no list of bands"):
        open_stack(tmp_path / "s.toml", [CU])
    whole = write(tmp_path / "cut.tif", [np.random.default_rng(0).random((400, 400), np.float32)], ["Cu"])
    shutil.copy(whole, tmp_path / "half.tif")
    with (tmp_path / "half.tif").open("rb+") as file:
        file.truncate(whole.stat().st_size // 2)
    with pytest.raises(DecodeError):
        read(tmp_path / "half.tif", [CU], Box(0, 0, 400, 400))


def test_windows_suit_the_blocks() -> None:
    assert window_size((20_000, 20_000), [(256, 256), (512, 512)]) == (512, 512)
    assert window_size((110, 118), [(17, 118)]) == (512, 512)
    assert window_size((20_000, 20_000), [(256, 256), (1, 20_000)]) == (64, 20_032)
    assert window_size((20_000, 1_000), [(1, 1_000)]) == (256, 1_024)
