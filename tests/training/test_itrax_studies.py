"""Peak areas of elements as targets: the studies of real Itrax scans, and a small one from end to end."""

import re
from collections.abc import Callable
from pathlib import Path

import lasio
import numpy as np
import pyarrow.parquet as pq
import pytest

from lithostream.engine.config import RunSettings, load_toml
from lithostream.engine.core.synthetic import SyntheticCore, generate, write
from lithostream.engine.core.tables import floats_of
from lithostream.engine.report.run_report import write_report
from lithostream.engine.stream.runner import run
from lithostream.training.config import TrainConfig
from lithostream.training.data.sources import labelled_sections
from lithostream.training.data.splits import held_out_parts
from lithostream.training.data.tiles import TileSet, build_tiles

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
ELEMENTS = ("xrf_calcium", "xrf_iron", "xrf_manganese", "xrf_titanium")


def tiles_of(name: str, data: Path) -> tuple[TrainConfig, TileSet]:
    config = load_toml(CONFIGS / f"{name}.toml", TrainConfig)
    sections = labelled_sections([data])
    tile = config.tile.as_input()
    return config, build_tiles(sections, config.targets, tile, config.run_settings(), config.qc)


@pytest.mark.realdata
def test_the_marine_section_has_rows_and_blocks(data_dir: Callable[[str], Path]) -> None:
    config, tiles = tiles_of("itrax-cd166-19", data_dir("itrax-cd166-19") / "S1" / "optical_lowres.tif")
    assert config.data[0].parts[-3:] == ("itrax-cd166-19", "S1", "optical_lowres.tif")
    assert config.targets == ELEMENTS
    # 923 readings of 1 mm, of which 51 are not valid and 60 lie at the ends, make rows of 5 mm.
    assert 150 <= len(tiles.labels) <= (923 - 51 - 60) / 5 + 18
    assert np.isfinite(tiles.labels).all() and tiles.labels[:, 0].min() > 1e4
    parts = held_out_parts(tiles, config.split)
    assert len(np.unique(parts)) >= 4 * config.split.folds
    spans = [np.ptp(tiles.top_cm[parts == part]) for part in np.unique(parts)]
    assert max(spans) < config.split.block_cm


@pytest.mark.realdata
def test_the_lake_sections_are_held_out_one_by_one(data_dir: Callable[[str], Path]) -> None:
    config, tiles = tiles_of("itrax-ardley-yanou", data_dir("itrax-ardley-yanou"))
    assert config.targets == ELEMENTS
    # 4109 valid readings, 1920 of them of 0.5 mm and the others of 2 mm, make rows of 5 mm.
    assert 900 <= len(tiles.labels) <= 4109 - 1920 + 200
    parts = held_out_parts(tiles, config.split)
    assert len(np.unique(parts)) == len(tiles.sections) == config.split.folds == 7
    assert (np.bincount(parts) >= 30).all()


@pytest.fixture(scope="module")
def core() -> SyntheticCore:
    return generate(2301, length_cm=20.0, width_cm=3.0, px_per_cm=16.0)


@pytest.fixture(scope="module")
def scan(core: SyntheticCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a generated core whose counts of calcium follow its density, with an Itrax result file as log."""
    folder = tmp_path_factory.mktemp("scan")
    image = write(core, folder)
    position = np.arange(0.5, core.layout.length_cm * 10, 1.0)
    truth = core.truth_at(position / 10 - 0.05, position / 10 + 0.05)["density"]
    lines = ["C:\\Data\\XRF data", "peakarea", "filename\tposition (mm)\tvalidity\tCa\tTi\tMn\tFe\t"]
    for place, density in zip(position, truth, strict=True):
        valid, count = int(np.isfinite(density)), 0 if np.isnan(density) else round(20000 * density)
        lines.append(f"L.spe\t{place:.2f}\t{valid}\t{count}\t{count // 20}\t{count // 40}\t{count * 2}\t")
    (folder / "Results.txt").write_text("\n".join(lines) + "\n", encoding="latin-1")
    manifest = folder / "manifest.toml"
    manifest.write_text(f'[[section]]\nfile = "{image.name}"\nlog = "Results.txt"\n')
    return manifest


def test_labels_follow_the_counts(scan: Path, core: SyntheticCore) -> None:
    config = load_toml(CONFIGS / "itrax-cd166-19.toml", TrainConfig)
    tile = config.tile.as_input()
    tiles = build_tiles(labelled_sections([scan]), ELEMENTS, tile, config.run_settings(), {})
    truth = core.truth_at(tiles.top_cm, tiles.base_cm)
    whole = truth["core_share"] > 0.999
    assert whole.sum() > 12
    np.testing.assert_allclose(tiles.labels[whole, 0], 20000 * truth["density"][whole], rtol=1e-3)
    np.testing.assert_allclose(tiles.labels[whole, 1], 2 * tiles.labels[whole, 0], rtol=1e-3)


def test_elements_reach_tables_las_and_report_but_no_mineral(scan: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from lithostream.export.bundle import export_bundle
    from lithostream.training.study import train_properties

    text = (CONFIGS / "itrax-cd166-19.toml").read_text()
    for key, value in {
        "data": f'["{scan}"]',
        "epochs": "1",
        "folds": "2",
        "block_cm": "3",
        "buffer_cm": "0.5",
        "seeds": "[0]",
    }.items():
        text, count = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value} ", text)
        assert count == 1, key
    config = tmp_path / "study.toml"
    config.write_text(text)
    train_properties(config, tmp_path / "checkpoint")
    bundle = export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    record = run([scan], bundle, tmp_path / "run", RunSettings(), lambda *_: None)
    assert record.exit_code == 0
    (folder,) = (tmp_path / "run").glob("SYN_*")
    table = pq.read_table(folder / "intervals.parquet")
    calcium, measured = floats_of(table, "xrf_calcium"), floats_of(table, "xrf_calcium_measured")
    both = np.isfinite(calcium) & np.isfinite(measured)
    assert both.sum() > 6 and np.median(np.abs(calcium / measured - 1)[both]) < 0.2
    assert table.schema.field("xrf_iron").metadata[b"unit"] == b"counts"
    minerals = [name for name in table.column_names if name.endswith("_vol_pct")]
    assert minerals and not any(np.isfinite(floats_of(table, name)).any() for name in minerals)
    (las,) = folder.glob("*.las")
    curves = lasio.read(las).curves
    assert {"CA_XRF", "FE_XRF", "MN_XRF", "TI_XRF"} <= set(curves.keys())
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "calcium (XRF), counts" in page and "titanium (XRF)" in page
