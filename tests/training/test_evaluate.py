import io
import json
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra 'train'")

from rich.console import Console

from lithostream.engine.core.synthetic import generate, write
from lithostream.training.evaluate import Evaluation, evaluate
from lithostream.training.plots import _broken
from lithostream.training.report import MODEL


def evaluated(folder: Path, seeds: tuple[int, ...]) -> tuple[Evaluation, str]:
    for seed in seeds:
        write(generate(seed, length_cm=50.0, width_cm=5.0, px_per_cm=36.0), folder / "data")
    text = io.StringIO()
    with as_file(files("lithostream.engine") / "demo_bundle") as bundle:
        return evaluate(
            bundle, folder / "data", Console(file=text, width=140), folder / "out"
        ), text.getvalue()


def test_evaluation_of_two_cores_writes_plots_and_scores(tmp_path: Path) -> None:
    result, text = evaluated(tmp_path, (3101, 3102))
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert stored == json.loads(result.model_dump_json())
    plots = sorted((tmp_path / "out").glob("*.png"))
    assert len(plots) == 2
    for path in plots:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5
    density = result.targets["density"]
    assert set(density.splits) == {"block", "core", "random"}
    assert [density.splits[kind].leaky for kind in ("block", "core", "random")] == [False, False, True]
    assert "leaky" in text and "interval score" in text
    assert sum(one.rows for one in density.cores.values()) == density.scores[MODEL].rows
    assert len(density.cores) == 2
    for one in density.intervals.values():
        assert one.score >= 2 * one.half_width and 0.4 < one.coverage <= 1
    assert density.intervals[MODEL].half_width > 0


def test_one_core_has_no_core_split(tmp_path: Path) -> None:
    result, _ = evaluated(tmp_path, (3103,))
    assert set(result.targets["density"].splits) == {"block", "random"}


def test_a_gap_between_rows_stays_blank() -> None:
    top = np.array([0.0, 1.0, 5.0])
    depth, value = _broken(top, top + 1.0, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(depth, [0.5, 1.5, np.nan, 5.5])
    np.testing.assert_array_equal(value, [1.0, 2.0, np.nan, 3.0])
