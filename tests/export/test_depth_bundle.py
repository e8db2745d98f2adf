"""A bundle with a depth model: from training to the tables of a run."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")

from pyarrow.parquet import read_table
from rich.console import Console

from lithostream.engine.bundle import DEPTH, load_bundle
from lithostream.engine.config import RunSettings, load_toml
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.core.tables import flags_of, floats_of
from lithostream.engine.errors import BundleError
from lithostream.engine.stream.runner import run
from lithostream.export.bundle import export_bundle
from lithostream.training.checkpoint import load_depth_model
from lithostream.training.config import TrainConfig
from lithostream.training.crossval import NETWORK
from lithostream.training.data.profile import in_profile
from lithostream.training.data.sources import labelled_sections
from lithostream.training.data.tiles import build_tiles
from lithostream.training.depth import predict_profile
from lithostream.training.evaluate import evaluate
from lithostream.training.report import MODEL
from lithostream.training.study import train_properties

TARGETS = ("density", "magnetic_susceptibility")


@pytest.fixture(scope="module")
def deep_config(tmp_path_factory: pytest.TempPathFactory, config_path: Path) -> Path:
    path = tmp_path_factory.mktemp("deep") / "deep.toml"
    text = 'depth_model = true\nlogarithmic = ["magnetic_susceptibility"]\n' + config_path.read_text()
    path.write_text(text.replace("epochs = 1", "epochs = 0"))
    return path


@pytest.fixture(scope="module")
def deep_checkpoint(deep_config: Path) -> Path:
    out = deep_config.parent / "checkpoint"
    train_properties(deep_config, out, console=Console(file=io.StringIO()))
    return out


@pytest.fixture(scope="module")
def deep_bundle(deep_checkpoint: Path) -> Path:
    return export_bundle(deep_checkpoint, deep_checkpoint.parent / "bundle")


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unseen")
    write(generate(2105, length_cm=90.0, width_cm=6.0, px_per_cm=18.0), folder)
    return folder


def test_training_reports_the_network_beside_the_depth_model(
    deep_checkpoint: Path, deep_config: Path
) -> None:
    record = json.loads((deep_checkpoint / "training.json").read_text())
    for name in TARGETS:
        report = record["metrics"][name]
        assert set(report["scores"]) == {MODEL, NETWORK, "ridge", "random_forest"}
        assert report["logarithmic"] is (name == "magnetic_susceptibility")
        assert len(report["cores"]) == 3
        assert 0.5 < report["coverage_90"] <= 1
    config = load_toml(deep_config, TrainConfig)
    assert config.fit.epochs == 0 and record["best_epoch"] == 0


def test_a_run_gives_the_rows_of_the_depth_model(deep_bundle: Path, unseen: Path, tmp_path: Path) -> None:
    bundle = load_bundle(deep_bundle)
    assert bundle.depth_model is not None
    done = run([unseen], deep_bundle, tmp_path / "out", RunSettings(), lambda *_: None)
    assert done.exit_code == 0
    (section,) = labelled_sections([unseen])
    table = read_table(next((tmp_path / "out").glob("*/intervals.parquet")))
    tiles = build_tiles([section], TARGETS, bundle.manifest.input, RunSettings(), {})
    wanted = predict_profile(bundle.depth_model, tiles.profile)
    at = in_profile(tiles)
    rows = np.searchsorted(floats_of(table, "top_cm"), tiles.top_cm + 1e-6, side="right") - 1
    for column, name in enumerate(TARGETS):
        for suffix, part in (("", wanted.value), ("_low", wanted.low), ("_high", wanted.high)):
            found = floats_of(table, name + suffix)[rows]
            np.testing.assert_allclose(found, part[at, column], rtol=1e-6, err_msg=name + suffix)
        assert np.all(floats_of(table, f"{name}_low")[rows] < floats_of(table, name)[rows])
    widths = floats_of(table, "density_high") - floats_of(table, "density_low")
    assert np.nanstd(widths) > 0  # each row has its own
    flagged = flags_of(table, "out_of_domain")[rows]
    np.testing.assert_array_equal(flagged[wanted.distance[at] > bundle.depth_model.distance_limit], True)


def test_evaluation_scores_what_a_run_gives(deep_bundle: Path, unseen: Path) -> None:
    text = io.StringIO()
    result = evaluate(deep_bundle, unseen, Console(file=text, width=120))
    susceptibility = result.targets["magnetic_susceptibility"]
    assert susceptibility.logarithmic and "ln magnetic susceptibility" in text.getvalue()
    assert susceptibility.scores[MODEL].r2 > 0.2
    assert 0.6 < susceptibility.intervals[MODEL].coverage <= 1


def test_an_altered_depth_model_is_refused(deep_bundle: Path, deep_checkpoint: Path, tmp_path: Path) -> None:
    content = bytearray((deep_bundle / DEPTH).read_bytes())
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in deep_bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content[-1] ^= 1
    (copy / DEPTH).write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
    (copy / DEPTH).unlink()
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(copy)
    from lithostream.training.checkpoint import load_checkpoint

    _, record = load_checkpoint(deep_checkpoint)
    wider = record.model_copy(update={"config": record.config.model_copy(update={"targets": ("density",)})})
    with pytest.raises(BundleError, match="2 targets"):
        load_depth_model(deep_checkpoint, wider)
    with pytest.raises(BundleError, match="cannot be read"):
        load_depth_model(tmp_path, record)
