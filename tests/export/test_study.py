"""The study and the evaluation around a bundle; here because both need a checkpoint."""

import io
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")

from rich.console import Console

from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import ConfigError
from lithostream.training.checkpoint import load_checkpoint
from lithostream.training.config import SyntheticConfig
from lithostream.training.demo_data import write_cores
from lithostream.training.evaluate import evaluate
from lithostream.training.report import MODEL
from lithostream.training.study import train_properties


def test_a_checkpoint_records_what_it_was_made_of(checkpoint: Path) -> None:
    _, record = load_checkpoint(checkpoint)
    assert {path.name for path in checkpoint.iterdir()} == {
        "weights.safetensors",
        "training.json",
        "calibration.safetensors",
    }
    assert record.scanners == ("lithostream synthetic",)
    assert [file.name for file in record.data] == sorted(file.name for file in record.data)
    for report in record.metrics.values():
        assert set(report.scores) == {MODEL, "ridge", "random_forest"}
        assert all(len(values) == 2 for values in report.r2_per_seed.values())
        gap = [a - b for a, b in zip(report.r2_per_seed[MODEL], report.r2_per_seed["ridge"], strict=True)]
        assert report.r2_gain["ridge"].mean == pytest.approx(sum(gap) / 2)
        assert report.half_width_90 > 0 and 0.5 < report.coverage_90 <= 1


def test_training_twice_gives_equal_checkpoints(checkpoint: Path, config_path: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "again", io.StringIO()
    summary = train_properties(config_path, out, console=Console(file=text))
    assert json.dumps(summary)
    for path in checkpoint.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert "random forest" in text.getvalue()


def test_an_existing_checkpoint_is_not_overwritten(checkpoint: Path, config_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        train_properties(config_path, checkpoint)


def test_evaluation_of_unseen_cores(bundle_path: Path, tmp_path: Path) -> None:
    write(generate(2102, length_cm=120.0, width_cm=6.0, px_per_cm=18.0), tmp_path)
    text = io.StringIO()
    result = evaluate(bundle_path, tmp_path, Console(file=text, width=100))
    assert result.seen_in_training == ()
    assert "seen in training" not in text.getvalue()
    assert result.rows > 60
    assert set(result.targets) == {"density", "magnetic_susceptibility"}
    assert set(result.targets["density"].scores) == {MODEL, "ridge", "random_forest"}
    assert result.out_of_domain_share < 0.2


def test_evaluation_says_when_the_data_were_trained_on(bundle_path: Path, tmp_path: Path) -> None:
    config = SyntheticConfig(cores=3, first_seed=1900, length_cm=(40, 50), width_cm=6, px_per_cm=(16.0, 20.0))
    write_cores(config, tmp_path)
    text = io.StringIO()
    result = evaluate(bundle_path, tmp_path, Console(file=text, width=100))
    assert len(result.seen_in_training) == 6
    assert "seen in training: not an honest score" in text.getvalue()


def test_evaluation_flags_data_of_another_scale(bundle_path: Path, tmp_path: Path) -> None:
    write(generate(2103, length_cm=120.0, width_cm=6.0, px_per_cm=30.0), tmp_path)
    assert evaluate(bundle_path, tmp_path, Console(file=io.StringIO())).out_of_domain_share == 1.0


def test_evaluation_scores_what_the_log_measured(bundle_path: Path, tmp_path: Path) -> None:
    image = write(generate(2104, length_cm=120.0, width_cm=6.0, px_per_cm=18.0), tmp_path)
    log = image.with_name(f"{image.stem}_mscl.csv")
    log.write_text("\n".join(",".join(line.split(",")[:2]) for line in log.read_text().splitlines()) + "\n")
    assert set(evaluate(bundle_path, tmp_path, Console(file=io.StringIO())).targets) == {"density"}
