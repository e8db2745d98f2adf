"""Maps of rasters: equal to one pass over the whole, for any threads and any kills; read by others as what they are."""

import csv
import errno
import json
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from apart import start
from map_scene import PREDICTORS, run_map, write_bundle, write_stack
from scipy import ndimage

from lithostream.engine.errors import ConfigError
from lithostream.engine.io.raster import open_stack
from lithostream.engine.io.raster_reader import StackReader
from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.overlap import answers
from lithostream.engine.maps.predict import NODATA, OUT_OF_DOMAIN, Answer, predict_window
from lithostream.engine.maps.record import MapRecord, MapSettings
from lithostream.engine.maps.run import map_stack
from lithostream.engine.maps.session import MapSession
from lithostream.engine.maps.spool import Spool
from lithostream.engine.maps.windows import Box, windows

rasterio = pytest.importorskip("rasterio", reason="rasters need rasterio: [geo]")
pyogrio = pytest.importorskip("pyogrio", reason="GeoPackages need pyogrio: [geo]")

SHAPE, LARGE = (110, 118), (530, 1030)
SITES = "lon,lat\n-138.0,63.0\n-137.6,63.3\n0,0\n"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose map has targets, a small stack and one of several windows."""
    folder = tmp_path_factory.mktemp("scene")
    write_bundle(folder / "bundle", threshold=0.45)
    write_stack(folder / "small.tif", SHAPE)
    write_stack(folder / "large.tif", LARGE)
    (folder / "sites.csv").write_text(SITES)
    return folder


@pytest.fixture(scope="module")
def wanted(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("wanted") / "MAP.tif"
    map_of(scene, "large.tif", out)
    return files(out)


def map_of(scene: Path, stack: str, out: Path, threads: int = 1, sites: bool = False) -> MapRecord:
    settings = MapSettings(threads=threads, crs="EPSG:4326" if sites else None)
    return map_stack(
        scene / stack,
        scene / "bundle",
        out,
        settings,
        lambda *_: None,
        scene / "sites.csv" if sites else None,
    )


def files(out: Path) -> dict[str, bytes]:
    assert not list(out.parent.glob(".*"))
    return {path.name: path.read_bytes() for path in out.parent.iterdir()}


def test_a_map_of_110_by_118_is_one_pass_over_the_whole(scene: Path, tmp_path: Path) -> None:
    record = map_of(scene, "small.tif", tmp_path / "MAP.tif", sites=True)
    bundle = load_map_bundle(scene / "bundle")
    stack = open_stack(scene / "small.tif", PREDICTORS)
    with StackReader(stack) as reader:
        answer = predict_window(
            *reader.read(Box(0, 0, *SHAPE)), MapSession(bundle), bundle.manifest.distance_limit
        )
    with rasterio.open(tmp_path / "MAP.tif") as raster, rasterio.open(scene / "small.tif") as given:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.descriptions == ("probability", "uncertainty") and np.isnan(raster.nodata)
        assert raster.crs == given.crs and raster.transform == given.transform and raster.shape == SHAPE
        assert raster.read(1).tobytes() == answer.probability.tobytes()
        assert raster.read(2).tobytes() == answer.uncertainty.tobytes()
    with rasterio.open(tmp_path / "MAP_flags.tif") as raster:
        flags = raster.read(1)
        assert raster.tags()["OUT_OF_DOMAIN"] == "2" and raster.nodata is None
    np.testing.assert_array_equal(flags, answer.flags)
    assert (flags[: 110 // 4, : 118 // 3] == NODATA).all() and (flags == OUT_OF_DOMAIN).any()
    assert record.counts["missing"] == (flags == NODATA).sum() == 27 * 39
    assert record.counts["out_of_domain"] == (flags == OUT_OF_DOMAIN).sum()
    mask = (flags == 0) & (answer.probability >= np.float32(0.45))
    assert record.counts["targets"] == ndimage.label(mask)[1] > 3


def test_targets_and_report_lie_beside_the_map(scene: Path, tmp_path: Path) -> None:
    record = map_of(scene, "small.tif", tmp_path / "MAP.tif", sites=True)
    with (tmp_path / "MAP_targets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    meta, _, geometry, values = pyogrio.raw.read(tmp_path / "MAP_targets.gpkg")
    assert meta["crs"] == "EPSG:3578" and len(geometry) == len(rows) == min(record.counts["targets"], 100)
    expected = [float(row["expected_km2"]) for row in rows]
    assert expected == sorted(expected, reverse=True)
    np.testing.assert_allclose(values[list(meta["fields"]).index("expected_km2")], expected, rtol=1e-8)
    page = (tmp_path / "MAP.html").read_text()
    assert "Known sites" in page and "http" not in page.replace("http-equiv", "").replace(
        "http://www.w3.org", ""
    )
    assert "<script" not in page and "default-src 'none'" in page
    assert "places were brought from EPSG:4326" in page
    held = json.loads((tmp_path / "MAP.json").read_text())
    assert held["files"] == record.files and held["counts"]["known_sites"] == 3
    assert set(held["inputs"]) == {"small.tif", "sites.csv"}


def test_threads_and_another_run_make_the_same_bytes(
    scene: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "MAP.tif"
    map_of(scene, "large.tif", out, threads=3)
    assert files(out) == wanted
    assert map_of(scene, "large.tif", out).unchanged
    assert files(out) == wanted


def test_strips_and_tiles_answer_alike(scene: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    with rasterio.open(scene / "large.tif") as tiled:
        profile = {**tiled.profile, "tiled": False, "interleave": "pixel", "compress": "deflate"}
        for name in ("blockxsize", "blockysize"):
            profile.pop(name)
        with rasterio.open(tmp_path / "strips.tif", "w", **profile) as strips:
            strips.descriptions = tiled.descriptions
            strips.write(tiled.read())
    assert open_stack(tmp_path / "strips.tif", PREDICTORS).window == (192, 1088)
    map_stack(
        tmp_path / "strips.tif",
        scene / "bundle",
        tmp_path / "out" / "MAP.tif",
        MapSettings(),
        lambda *_: None,
    )
    found = files(tmp_path / "out" / "MAP.tif")
    for name in ("MAP.tif", "MAP_flags.tif", "MAP_targets.gpkg", "MAP_targets.csv"):
        assert found[name] == wanted[name], name


@pytest.mark.parametrize(("halo", "rows"), [(64, 192), (192, 384)])
def test_windows_that_overlap_are_blended_and_a_local_model_is_not_changed(
    halo: int, rows: int, scene: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "bundle", threshold=0.45, halo_px=halo)
    with rasterio.open(scene / "large.tif") as tiled:  # strips, so that windows are less high than wide
        profile = {**tiled.profile, "tiled": False, "blockxsize": None, "blockysize": 1}
        with rasterio.open(tmp_path / "large.tif", "w", **profile) as strips:
            strips.descriptions = tiled.descriptions
            strips.write(tiled.read())
    out, done = tmp_path / "out" / "MAP.tif", []
    map_stack(tmp_path / "large.tif", bundle, out, MapSettings(), lambda *one: done.append(one))
    assert [one for one in done if one[0] == "written"] == [
        ("written", n + 1, 530 // rows + 1) for n in range(530 // rows + 1)
    ]
    found = files(out)
    assert found["MAP_targets.csv"] == wanted["MAP_targets.csv"]
    (tmp_path / "wanted.tif").write_bytes(wanted["MAP.tif"])
    (tmp_path / "wanted_flags.tif").write_bytes(wanted["MAP_flags.tif"])
    for name in (".tif", "_flags.tif"):
        with (
            rasterio.open(out.with_name(f"MAP{name}")) as one,
            rasterio.open(tmp_path / f"wanted{name}") as other,
        ):
            assert one.read().tobytes() == other.read().tobytes()


def test_an_overlap_blends_what_windows_disagree_on(tmp_path: Path) -> None:
    shape, size, halo = (256, 384), (128, 128), 64
    with closing(Spool(tmp_path)) as spool:
        for window in windows(shape, size, halo):
            numbers = np.full(window.seen.shape, window.number % 3, np.float32)  # by column of windows
            flags = np.full(window.seen.shape, 1 << window.number, np.uint8)
            spool.add(window.number, Answer(numbers, numbers, flags))
        found = list(answers(spool, shape, size, halo))
    assert [one.own for one, _ in found] == [Box(0, 0, 64, 384), Box(64, 0, 256, 384)]
    probability = np.concatenate([answer.probability for _, answer in found])
    steps = np.diff(probability, axis=1)
    assert (
        steps.min() >= 0
        and steps.max() < 0.01
        and (probability[:, 0].max(), probability[:, -1].min()) == (0, 2)
    )
    flags = np.concatenate([answer.flags for _, answer in found])
    assert (flags[0, 0], flags[0, 70], flags[128, 70], flags[255, 383]) == (1, 3, 27, 32)


def test_killed_at_each_place_it_goes_on_to_the_same_bytes(
    scene: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    out, said = tmp_path / "out" / "MAP.tif", tmp_path / "said"
    for place in ("window-done@2", "files-written", "folder-renamed@3"):
        process = start(run_map, scene / "large.tif", scene / "bundle", out, said=said, failpoint=place)
        process.join()
        assert process.exitcode == -signal.SIGKILL, said.read_text()
    assert (out.parent / "MAP_targets.gpkg").is_file() and not (out.parent / "MAP.json").exists()
    answered: list[int] = []
    map_stack(
        scene / "large.tif",
        scene / "bundle",
        out,
        MapSettings(),
        lambda what, *_: answered.append(what == "answered"),
    )
    assert sum(answered) == 0  # all six windows were kept
    assert files(out) == wanted


def test_a_full_disk_stops_it_and_the_same_call_goes_on(
    scene: Path, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "MAP.tif"
    monkeypatch.setenv("LITHOSTREAM_FAILPOINT", "files-written=full")
    with pytest.raises(OSError, match="No space left"):
        map_of(scene, "large.tif", out)
    assert not out.exists()
    monkeypatch.delenv("LITHOSTREAM_FAILPOINT")
    map_of(scene, "large.tif", out)
    assert files(out) == wanted


@pytest.mark.parametrize(
    "size", ["2m", "8m", "13m"]
)  # full while answers are kept, while one writes, as one tiles
def test_a_disk_that_is_really_full(size: str, scene: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(OSError) as error:
            map_of(scene, "large.tif", disk / "MAP.tif")
        assert error.value.errno == errno.ENOSPC
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        map_of(scene, "large.tif", disk / "MAP.tif")
        assert files(disk / "MAP.tif") == wanted
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_another_map_in_its_place_is_not_overwritten(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "MAP.tif"
    map_of(scene, "small.tif", out)
    before = files(out)
    with pytest.raises(ConfigError, match="of other inputs"):
        map_of(scene, "large.tif", out)
    assert files(out) == before
    (tmp_path / "MAP_flags.tif").write_bytes(b"altered")
    assert not map_of(scene, "small.tif", out).unchanged  # made whole again
    assert files(out) == before
    (tmp_path / "foreign.tif").write_text("kept")
    with pytest.raises(ConfigError, match="exists already"):
        map_of(scene, "small.tif", tmp_path / "foreign.tif")
    with pytest.raises(ConfigError, match="GeoTIFF"):
        map_of(scene, "small.tif", tmp_path / "MAP.csv")


def test_a_map_without_any_data_is_a_map(scene: Path, tmp_path: Path) -> None:
    with rasterio.open(scene / "small.tif") as given:
        profile, names, shape = given.profile, given.descriptions, (7, *SHAPE)
    with rasterio.open(tmp_path / "empty.tif", "w", **profile) as raster:
        raster.descriptions = names
        raster.write(np.full(shape, profile["nodata"], np.float32))
    record = map_stack(
        tmp_path / "empty.tif", scene / "bundle", tmp_path / "out" / "MAP.tif", MapSettings(), lambda *_: None
    )
    assert record.counts == {"all": 12980, "missing": 12980, "answered": 0, "out_of_domain": 0, "targets": 0}
    assert len(pyogrio.raw.read(tmp_path / "out" / "MAP_targets.gpkg")[2]) == 0


def test_degrees_are_drawn_and_measured_on_the_ellipsoid(scene: Path, tmp_path: Path) -> None:
    place = rasterio.Affine(0.01, 0, -138.0, 0, -0.005, 63.0)
    write_stack(tmp_path / "degrees.tif", SHAPE, crs="EPSG:4326", transform=place)
    map_stack(
        tmp_path / "degrees.tif", scene / "bundle", tmp_path / "MAP.tif", MapSettings(), lambda *_: None
    )
    with (tmp_path / "MAP_targets.csv").open(newline="") as file:
        best = next(csv.DictReader(file))
    cell = 111.4 * 0.005 * 111.3 * 0.01 * np.cos(np.radians(float(best["y"])))  # km
    assert float(best["area_km2"]) == pytest.approx(int(best["pixels"]) * cell, rel=0.01)


@pytest.mark.filterwarnings("error")
def test_the_large_raster_has_several_windows_and_overviews(wanted: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "MAP.tif").write_bytes(wanted["MAP.tif"])
    with rasterio.open(tmp_path / "MAP.tif") as raster:
        assert raster.overviews(1) == [2, 4] and raster.block_shapes == [(512, 512)] * 2
