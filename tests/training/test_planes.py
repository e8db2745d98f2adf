"""CT beside colour, from the manifest to a run: generated cores whose CT tells the density."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from lithostream.engine.bundle import load_bundle
from lithostream.engine.config import RunSettings, load_toml
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.inference import open_session
from lithostream.engine.io.discover import discover
from lithostream.engine.manifest import PlaneInput, TileInput
from lithostream.engine.stream.runner import run
from lithostream.export.bundle import export_bundle
from lithostream.export.golden import golden_tiles
from lithostream.training.baselines import predict_baseline
from lithostream.training.checkpoint import load_checkpoint
from lithostream.training.config import TrainConfig
from lithostream.training.data.cache import cache_key
from lithostream.training.data.sources import data_hashes
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.fit import predict
from lithostream.training.study import train_properties

CT_PX_PER_CM, CT_TOP_CM = 7.0, -2.5  # the CT scan begins above the section
LOW, HIGH = 500.0, 4000.0
CT = PlaneInput(name="ct", low=LOW, high=HIGH)

CONFIG = f"""
name = "with-ct"
licence = "CC0-1.0"
description = "Generated cores with CT, for tests."
data = ["."]
targets = ["density"]
minerals = ["quartz", "pore_water"]
[tile]
size_px = 16
planes = [{{ name = "ct", low = {LOW}, high = {HIGH} }}]
[fit]
width = 2
epochs = 1
[split]
folds = 2
block_cm = 10
buffer_cm = 3
seeds = [0]
"""


def write_with_ct(seed: int, length_cm: float, folder: Path, ct_base_cm: float | None = None) -> Path:
    """Write a generated core and its CT: 1000 x density in 16 bit, air elsewhere, with noise."""
    core = generate(seed, length_cm=length_cm, width_cm=6.0, px_per_cm=18.0)
    image = write(core, folder)
    rng, base_cm = np.random.default_rng(seed), ct_base_cm or length_cm + 1.0
    rows = round((base_cm - CT_TOP_CM) * CT_PX_PER_CM)
    edges = CT_TOP_CM + np.arange(rows + 1) / CT_PX_PER_CM
    inside = (edges[:-1] >= 0) & (edges[1:] <= length_cm)
    density = np.zeros(rows)
    density[inside] = np.nan_to_num(core.truth_at(edges[:-1][inside], edges[1:][inside])["density"])
    samples = 1000 * density[:, None] + rng.normal(0, 30, (rows, round(6.4 * CT_PX_PER_CM)))
    ct = folder / f"{core.name}_ct.tif"
    tifffile.imwrite(ct, np.clip(samples, 0, 65535).astype(np.uint16), compression="deflate", metadata=None)
    return image


def entry(image: Path, *, ct: bool = True) -> str:
    text = f'[[section]]\nfile = "{image.name}"\nlog = "{image.stem}_mscl.csv"\n'
    plane = f'[[section.plane]]\nname = "ct"\nfile = "{image.stem}_ct.tif"\npx_per_cm = {CT_PX_PER_CM}\n'
    return text + (f"{plane}top_cm = {CT_TOP_CM}\n" if ct else "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("ct")
    images = [write_with_ct(seed, 45.0, found) for seed in (1950, 1951)]
    (found / "manifest.toml").write_text("\n".join(map(entry, images)), encoding="utf-8")
    (found / "train.toml").write_text(CONFIG, encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def sections(folder: Path) -> list[Section]:
    found, errors = discover([folder])
    assert errors == []
    return found


def tiles_of(sections: list[Section], *planes: PlaneInput) -> TileSet:
    tile = TileInput(tile_cm=1.0, size_px=16, planes=planes)
    return build_tiles(sections, ("density",), tile, RunSettings(), {})


@pytest.fixture(scope="module")
def bundle_path(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train_properties(folder / "train.toml", out / "checkpoint")
    return export_bundle(out / "checkpoint", out / "bundle")


def test_tiles_hold_the_plane_beside_the_same_colour(sections: list[Section]) -> None:
    plain, beside = tiles_of(sections), tiles_of(sections, CT)
    assert beside.pixels.shape[1:] == (16, 16, 4) and beside.moments.shape[1:] == (2, 4)
    assert np.array_equal(beside.pixels[..., :3], plain.pixels)
    assert np.array_equal(beside.moments[..., :3], plain.moments)
    exact = beside.pixels[..., 3].astype(np.float64).mean(axis=(1, 2))
    assert np.allclose(beside.moments[:, 0, 3], exact, rtol=1e-12)
    assert np.array_equal(beside.labels, plain.labels) and np.array_equal(beside.row, plain.row)


def test_the_plane_lies_at_its_depth(sections: list[Section]) -> None:
    tiles = tiles_of(sections, CT)
    level = tiles.mean_colour()[:, 3]
    expected = (1000 * tiles.measured[:, 0] - LOW) / (HIGH - LOW) * 255
    assert np.nanmedian(np.abs(level - expected)) < 2.0  # the sensor reads 1 cm with a noise of 0.01 g/cm3


def test_baselines_see_the_plane(sections: list[Section]) -> None:
    errors = {}
    for planes in ((), (CT,)):
        tiles = tiles_of(sections, *planes)
        train = tiles.section == 0
        found = predict_baseline("ridge", tiles, train, 0, np.array([False]))
        errors[planes] = np.nanmean(np.abs(found - tiles.measured)[~train])
    assert errors[(CT,)] < 0.5 * errors[()]


def test_the_cache_key_follows_planes(sections: list[Section], tmp_path: Path) -> None:
    def key(section: Section) -> str:
        return cache_key([section])

    section = sections[0]
    (plane,) = section.planes
    moved = tmp_path / "moved.tif"
    moved.write_bytes(plane.image.read_bytes())
    assert key(replace(section, planes=(replace(plane, image=moved),))) == key(section)
    moved.write_bytes(plane.image.read_bytes() + b"\0")
    changed = replace(plane, image=moved)
    others = [
        replace(plane, top_cm=0.0),
        replace(plane, name="x"),
        changed,
    ]
    keys = {key(replace(section, planes=(other,))) for other in others} | {key(section)}
    assert len(keys) == 4 and key(replace(section, planes=())) not in keys
    ranges: list[tuple[PlaneInput, ...]] = [(), (CT,), (PlaneInput(name="ct", low=LOW, high=HIGH + 1),)]
    wanted = [TileInput(tile_cm=1.0, size_px=16, planes=planes).model_dump() for planes in ranges]
    assert len({cache_key([section], tile=tile) for tile in wanted}) == 3


def test_stored_tiles_are_those_of_the_range(sections: list[Section]) -> None:
    wide, narrow = (
        tiles_of(sections, PlaneInput(name="ct", low=low, high=high))
        for low, high in ((LOW, HIGH), (1500.0, 2000.0))
    )
    assert np.array_equal(wide.pixels[..., :3], narrow.pixels[..., :3])
    samples = LOW + wide.pixels[..., 3] / 255 * (HIGH - LOW)
    expected = (np.clip(samples, 1500, 2000) - 1500) / 500 * 255
    # The mean of clamped samples is not the mean clamped, which shows only near the ends of the range.
    inner = (samples > 1650) & (samples < 1850)
    assert inner.any() and np.abs(narrow.pixels[..., 3] - expected)[inner].max() <= 0.5 + 0.5 * HIGH / 500


@pytest.mark.parametrize(
    ("planes", "told", "fix"),
    [
        ('[{ name = "ct", low = 9, high = 3 }]', "low 9 must be below high 3", ""),
        ('[{ name = "ct", low = 0, high = 3, hihg = 4 }]', "Extra inputs", "'high'"),
        ('[{ name = "ct", low = 0, high = inf }]', "finite", ""),
        ('[{ name = "ct", low = 0, high = 3 }, { name = "ct", low = 0, high = 4 }]', "once", ""),
    ],
)
def test_a_study_that_states_planes_badly_is_refused(
    folder: Path, tmp_path: Path, planes: str, told: str, fix: str
) -> None:
    lines = (folder / "train.toml").read_text(encoding="utf-8").splitlines()
    changed = [f"planes = {planes}" if line.startswith("planes") else line for line in lines]
    (tmp_path / "train.toml").write_text("\n".join(changed), encoding="utf-8")
    with pytest.raises(ConfigError, match=told) as caught:
        load_toml(tmp_path / "train.toml", TrainConfig)
    assert caught.value.place.startswith("tile.planes") and fix in caught.value.fix


def test_planes_are_recorded_as_training_data(sections: list[Section], bundle_path: Path) -> None:
    hashes = data_hashes(sections)
    assert len(hashes) == 6 and sum(name.startswith("ct/") for name in hashes) == 2
    data = load_bundle(bundle_path).manifest.training["data"]
    assert isinstance(data, list) and {one["sha256"] for one in data} == set(hashes.values())


def test_a_bundle_names_its_planes_and_gives_what_torch_gives(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    assert bundle.manifest.input.planes == (CT,)
    assert bundle.golden_tiles.shape[1:] == (16, 16, 4)
    session = open_session(bundle, batch=8, threads=1)  # holds it to the golden cases
    model, _ = load_checkpoint(bundle_path.parent / "checkpoint")
    tiles = np.random.default_rng(3).integers(0, 256, (21, 16, 16, 4), np.uint8)
    found, wanted = session.infer(tiles), predict(model, tiles)
    np.testing.assert_allclose(found[0], wanted.properties, rtol=1e-4, atol=1e-4)
    other = tiles.copy()
    other[..., 3] = 255 - other[..., 3]
    assert np.abs(session.infer(other)[0] - found[0]).min() > 1e-3


def test_golden_tiles_keep_their_colour() -> None:
    plain, beside = (
        golden_tiles(TileInput(tile_cm=1.0, size_px=16, planes=p))
        for p in ((), (CT, PlaneInput(name="radiograph", low=0.0, high=1.0)))
    )
    assert plain.shape == (25, 16, 16, 3) and beside.shape == (25, 16, 16, 5)
    assert np.array_equal(beside[..., :3], plain)
    assert len(np.unique(beside[:16, ..., 3].mean(axis=(1, 2)).round())) > 8
    assert np.array_equal(beside[16:21], np.broadcast_to(plain[16:21, ..., :1], (5, 16, 16, 5)))


def test_a_run_uses_the_plane_and_quarantines_sections_without(
    bundle_path: Path, folder: Path, tmp_path: Path
) -> None:
    images = [
        write_with_ct(seed, 40.0, tmp_path / "in", base)
        for seed, base in ((52, None), (53, 20.5), (54, None))
    ]
    entries = [entry(image, ct=image != images[2]) for image in images]
    (tmp_path / "in" / "manifest.toml").write_text("\n".join(entries), encoding="utf-8")
    record = run([tmp_path / "in"], bundle_path, tmp_path / "out", RunSettings(), lambda *_: None)
    assert record.exit_code == 3 and [one["name"] for one in record.sections] == [i.stem for i in images[:2]]
    (failure,) = record.quarantined
    assert failure["name"] == images[2].stem and "has no plane 'ct'" in str(failure["reason"])
    assert "[[section.plane]]" in str(failure["fix"])
    assert json.loads((tmp_path / "out" / "quarantine" / f"{images[2].stem}.json").read_text()) == failure
    whole, short = record.sections
    assert not any("not predicted" in note for note in whole["notes"])  # type: ignore[attr-defined]
    assert any("tiles of core not predicted" in note for note in short["notes"])  # type: ignore[attr-defined]
    assert any(one["file"].endswith("_ct.tif") for one in whole["inputs"])  # type: ignore[attr-defined]
    tiles = [pq.read_table(tmp_path / "out" / i.stem / "tiles.parquet").to_pydict() for i in images[:2]]
    assert max(tiles[0]["base_cm"]) > 30 and 18 < max(tiles[1]["base_cm"]) < 20.6
    assert np.isfinite(tiles[1]["density"]).all()


def test_training_stops_where_a_plane_is_missing(sections: list[Section]) -> None:
    bare = replace(sections[1], planes=())
    with pytest.raises(SourceError, match=f"section {bare.name} has no plane 'ct'"):
        tiles_of([sections[0], bare], CT)
