import io
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'train'")

from rich.console import Console

from lithostream.engine.config import load_toml
from lithostream.engine.core.depth_model import filtered
from lithostream.engine.errors import ConfigError, LogError
from lithostream.training.config import LogsConfig
from lithostream.training.data.core_logs import read_rows
from lithostream.training.logs_study import train_logs
from lithostream.training.report import MODEL

CONFIG = """
name = "three"
description = "Made up."
targets = ["density", "magnetic_susceptibility"]
logarithmic = ["magnetic_susceptibility"]
qc = { density = { low = 1.2, high = 2.5 } }
[split]
folds = 3
block_cm = 10
buffer_cm = 2
seeds = [0, 1]
"""


def core(name: str) -> str:
    colour = f'{{ file = "{name}_colour.csv", depth = "depth_cm", columns = ["red", "blue"] }}'
    ct = f'{{ file = "{name}_ct.csv", depth = "depth_cm", columns = ["ct"] }}'
    return f'[[cores]]\nname = "{name}"\nlog = "{name}_mscl.csv"\ninputs = [{colour}, {ct}]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cores: colour every 2 mm, CT every 5 mm, a sensor log every cm; a gap in the colour of one."""
    rng, folder = np.random.default_rng(4), tmp_path_factory.mktemp("cores")
    for number, name in enumerate("abc"):
        bed = np.cumsum(rng.normal(size=90))
        smooth = filtered(bed[:, None], np.ones(90, np.bool_), np.array([2.0]))[:, 0]
        fine, half = np.arange(0.1, 90, 0.2), np.arange(0.25, 90, 0.5)
        red = 100 + 5 * bed[fine.astype(int)] + rng.normal(0, 2, len(fine))
        rows = [f"{d:.2f},{r:.3f},{200 - r:.3f}" for d, r in zip(fine, red, strict=True)]
        if name == "a":
            rows = [f"{row.split(',')[0]},," if 30 <= float(row.split(",")[0]) < 34 else row for row in rows]
        (folder / f"{name}_colour.csv").write_text("\n".join(["depth_cm,red,blue", *rows]) + "\n")
        ct = 800 + 40 * bed[half.astype(int)]
        (folder / f"{name}_ct.csv").write_text(
            "\n".join(["depth_cm,ct", *(f"{d},{c:.3f}" for d, c in zip(half, ct, strict=True))]) + "\n"
        )
        density = 1.8 + 0.02 * smooth + 0.01 * number
        log = [
            f"{d + 0.5},{g:.4f},{np.exp(3 + 0.1 * s):.3f}"
            for d, (g, s) in enumerate(zip(density, smooth, strict=True))
        ]
        (folder / f"{name}_mscl.csv").write_text(
            "\n".join(["depth (cm),density (g/cm3),magsus (1e-5 SI)", *log]) + "\n"
        )
    (folder / "study.toml").write_text(CONFIG + "".join(core(name) for name in "abc"))
    return folder


def test_rows_are_means_of_the_readings_in_them(folder: Path) -> None:
    rows = read_rows(load_toml(folder / "study.toml", LogsConfig), folder)
    first = rows.profile.section == 0
    assert not np.isin([30, 31, 32, 33], rows.profile.place[first]).any()
    assert len(rows.profile.place[first]) == 86 and len(rows.profile.place) == 266
    table = np.genfromtxt(folder / "b_colour.csv", delimiter=",", names=True)
    here = (table["depth_cm"] >= 40) & (table["depth_cm"] < 41)
    at = (rows.profile.section == 1) & (rows.profile.place == 40)
    np.testing.assert_allclose(
        rows.profile.colour[at][0, :2], [table["red"][here].mean(), table["blue"][here].mean()]
    )
    # 3 cm at each end of a log are near the caps; susceptibility is seen over 6 cm, density over 1.
    labelled = rows.place[rows.section == 1]
    assert labelled.min() == 3 and labelled.max() == 86
    assert rows.measured is rows.labels and rows.top_cm[0] == rows.place[0]


def test_the_study_scores_blocks_and_cores(folder: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    result = train_logs(folder / "study.toml", tmp_path / "out", Console(file=text, width=140))
    stored = json.loads((tmp_path / "out" / "logs.json").read_text())
    assert stored == json.loads(result.model_dump_json())
    assert set(result.splits) == {"block", "core"}
    for reports in result.splits.values():
        density = reports["density"]
        assert set(density.cores) == {"a", "b", "c"}
        assert density.scores[MODEL].r2 > density.scores["ridge"].r2
        assert density.better_baseline in density.r2_gain
        assert 0.7 < density.coverage_90 <= 1
    assert "3 folds of whole cores" in text.getvalue() and "flagged" in text.getvalue()
    again = train_logs(folder / "study.toml", tmp_path / "again", Console(file=io.StringIO()))
    assert again == result
    with pytest.raises(ConfigError, match="exists already"):
        train_logs(folder / "study.toml", tmp_path / "out", Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('columns = ["ct"]', 'columns = ["xray"]', LogError, "no header"),
        ('"b_ct.csv"', '"absent.csv"', LogError, "absent.csv"),
        (
            'columns = ["red", "blue"] }, { file = "c_ct',
            'columns = ["red"] }, { file = "c_ct',
            ConfigError,
            "differ",
        ),
        ("low = 1.2", "low = 2.4", ConfigError, "reading of density"),
        ('logarithmic = ["mag', 'logarithmic = ["xrf', ConfigError, "not targets"),
    ],
)
def test_what_cannot_be_studied_is_refused(
    folder: Path, tmp_path: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    text = (folder / "study.toml").read_text()
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(f'root = "{folder}"\n' + text.replace(old, new))
    with pytest.raises(error, match=message):
        train_logs(path, tmp_path / "out", Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()
