import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'train'")
pytest.importorskip("imblearn", reason="training needs the extra 'train'")
pytest.importorskip("torch", reason="training needs the extra 'train'")
pytest.importorskip("onnxruntime", reason="the gate of an export is ONNX Runtime")

from rich.console import Console

from lithostream.engine.config import load_toml
from lithostream.engine.errors import BundleError, ConfigError
from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.session import MapSession
from lithostream.export.transfer import export_map
from lithostream.training.transfer.checkpoint import TABLE, load_model, load_record
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import read_study
from lithostream.training.transfer.evaluate import evaluate_map
from lithostream.training.transfer.protocol import parts, score_model
from lithostream.training.transfer.study import train_transfer
from lithostream.training.transfer.table import Table
from lithostream.training.transfer.tables import read_columns

MODELS = (
    *("random_forest", "svm", "logistic", "gradient_boosting"),
    *("deep", "scratch", "pretext_probe", "autoencoder_fine", "ensemble"),
)


@pytest.fixture(scope="module")
def checkpoint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "checkpoint"
    summary = train_transfer(folder / "validated.toml", out, Console(file=io.StringIO()))
    assert set(summary) == {"winner", "deep_holds", "seconds", "auc", "average_precision"}
    return out


@pytest.fixture(scope="module")
def table(checkpoint: Path) -> Table:
    return Table.model_validate_json((checkpoint / TABLE).read_text())


def test_the_table_holds_every_model_and_metric(table: Table, checkpoint: Path) -> None:
    assert list(table.experiments) == ["most", "fewest"]
    for experiment in table.experiments.values():
        assert set(experiment.models) == set(MODELS)
        for metrics in experiment.models.values():
            assert len(metrics) == 6
            assert all(low <= mean <= high for mean, low, high in metrics.values())
        assert experiment.models["logistic"]["auc"][0] > 0.65
        assert experiment.models["deep"]["auc"][0] > 0.65
    first = table.experiments["most"]
    assert (first.deposits, first.deposits_with_place, first.rows, first.rows_with_place) == (
        40,
        39,
        110,
        109,
    )
    assert table.winner in MODELS
    rivals = {name: first.models[name]["auc"][0] for name in ("random_forest", "svm", "logistic")}
    against = first.deep_against_best["auc"]
    assert against.rival == max(rivals, key=lambda name: rivals[name])
    assert against.gain[0] == pytest.approx(first.models["deep"]["auc"][0] - max(rivals.values()))
    text = (checkpoint / "table.md").read_text()
    assert f"Bundle by default: **{table.winner}**" in text and "3 folds of square blocks of 10 km" in text


def test_leaked_validation_rows_are_found_and_left_out(table: Table) -> None:
    assert any("3 of 15 validation rows (1 deposits) are training rows too" in note for note in table.notes)
    found = table.published["from scratch"]
    assert found["accuracy"].published == 0.9 and found["accuracy"].agrees is not None
    assert set(found) == {"accuracy", "auc", "validation_accuracy", "validation_auc"}
    assert "autoencoder, fine-tuned, fewest" in table.published


def test_importance_finds_what_the_deposits_were_made_of(table: Table) -> None:
    losses = table.importance["deep"]["predictors"]
    assert set(sorted(losses, key=lambda name: losses[name])[-2:]) == {"X9", "X3"}
    shared = table.importance["deep"]["predictors_from_components"]
    assert sum(shared.values()) == pytest.approx(sum(table.importance["deep"]["components"].values()))


def test_unlabelled_rows_are_mapped_in_their_order(folder: Path, checkpoint: Path) -> None:
    lines = (checkpoint / "unlabelled.csv").read_text().splitlines()
    assert len(lines) == 81 and lines[0].startswith("PC1,PC2") and lines[0].endswith("known_ground")
    wanted = (folder / "unlabelled.csv").read_text().splitlines()[7].split(",")[::-1]
    assert lines[7].split(",")[:7] == wanted
    values = np.array([[float(one) for one in line.split(",")[7:]] for line in lines[1:]])
    assert ((values[:, 0] > 0) & (values[:, 0] < 1)).all() and (values[:, 1] > 0).all()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_exports_and_gives_the_same_numbers(
    checkpoint: Path, folder: Path, tmp_path: Path, model: str
) -> None:
    bundle = load_map_bundle(export_map(checkpoint, tmp_path / "bundle", model))
    assert bundle.manifest.name == f"made-up-{model}"
    loaded = load_model(checkpoint, load_record(checkpoint), model)
    np.testing.assert_allclose(bundle.golden_probability, loaded.golden_probability, atol=1e-4)
    found = MapSession(bundle).infer(loaded.golden_rows)
    mean, matrix = (np.asarray(one, np.float64) for one in loaded.distance)
    away = np.linalg.norm((loaded.golden_rows - mean) @ matrix, axis=1)
    np.testing.assert_allclose(found.distance, away, rtol=1e-4)
    # A model that ranks unseen rows no better than chance gives every row one probability.
    assert (
        (found.uncertainty > 0).any() == (np.ptp(found.probability) > 0) == (loaded.stored.calibration[0] > 0)
    )
    trees = {node.op_type for node in onnx.load_model_from_string(bundle.model).graph.node if node.domain}
    wanted = (
        {"TreeEnsembleRegressor"} if model in {"random_forest", "gradient_boosting", "ensemble"} else set()
    )
    assert trees == wanted


@pytest.mark.parametrize("model", ["deep", "svm", "ensemble"])
def test_a_bundle_of_components_answers_as_that_of_the_predictors(
    checkpoint: Path, folder: Path, tmp_path: Path, model: str
) -> None:
    plain = load_map_bundle(export_map(checkpoint, tmp_path / "plain", model))
    turned = load_map_bundle(export_map(checkpoint, tmp_path / "turned", model, components=True))
    assert [one.name for one in turned.manifest.predictors] == [f"PC{number}" for number in range(1, 8)]
    table = [read_columns(folder / f"{name}.csv", columns) for name, columns in (
        ("predictors", [one.name for one in plain.manifest.predictors]),
        ("components", [one.name for one in turned.manifest.predictors]),
    )]  # fmt: skip
    one, other = (
        MapSession(bundle).infer(rows.astype(np.float32))
        for bundle, rows in zip((plain, turned), table, strict=True)
    )
    close = (
        np.abs(one.probability - other.probability) < 2e-3
    )  # a row on a threshold of a tree may change its side
    assert close.mean() > 0.95
    np.testing.assert_allclose(one.distance, other.distance, atol=0.01)
    if model == "deep":
        found = [
            evaluate_map(tmp_path / which, folder / "validation.csv", Console(file=io.StringIO()))
            for which in ("plain", "turned")
        ]
        assert found[0].seen_in_training == found[1].seen_in_training == 3
        assert found[0].all_rows.metrics["auc"] == pytest.approx(found[1].all_rows.metrics["auc"], abs=0.05)


def test_the_winner_is_the_bundle_by_default(checkpoint: Path, table: Table, tmp_path: Path) -> None:
    bundle = load_map_bundle(export_map(checkpoint, tmp_path / "bundle"))
    assert bundle.manifest.training["model"] == table.winner
    with pytest.raises(BundleError, match="exists already"):
        export_map(checkpoint, tmp_path / "bundle")
    with pytest.raises(BundleError, match="no model 'oracle'"):
        export_map(checkpoint, tmp_path / "other", "oracle")


def test_evaluation_finds_the_rows_of_training(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    bundle = export_map(checkpoint, tmp_path / "bundle", "logistic")
    on_training = evaluate_map(bundle, folder / "predictors.csv", Console(file=io.StringIO()))
    assert on_training.seen_in_training == 120 and on_training.unseen_rows is None
    assert on_training.all_rows.metrics["auc"][0] > 0.8
    text = io.StringIO()
    found = evaluate_map(
        bundle, folder / "validation.csv", Console(file=text, width=120), tmp_path / "scores"
    )
    assert found.seen_in_training == 3 and found.unseen_rows is not None
    assert (found.all_rows.rows, found.unseen_rows.rows, found.unseen_rows.deposits) == (15, 12, 6)
    assert "3 rows were trained on" in text.getvalue()
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text()) == json.loads(
        found.model_dump_json()
    )


def test_a_fit_is_the_same_again_and_depends_on_no_other(folder: Path) -> None:
    config = load_toml(folder / "study.toml", TransferConfig)
    study = read_study(config, folder)
    part = parts(study, config)[0]
    found = score_model("deep", config, study, part)
    again = score_model("deep", config, study, part)
    np.testing.assert_array_equal(found.unseen, again.unseen)
    np.testing.assert_array_equal(found.inner, again.inner)
    alone = score_model("deep", config, study, part._replace(repeats=part.repeats[:1]))
    np.testing.assert_allclose(alone.unseen[0], found.unseen[0], atol=1e-5)
    held = np.stack([repeat.held for repeat in part.repeats])
    np.testing.assert_array_equal(np.isnan(found.inner), held)


def test_nothing_is_overwritten(folder: Path, checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        train_transfer(folder / "study.toml", checkpoint, Console(file=io.StringIO()))
