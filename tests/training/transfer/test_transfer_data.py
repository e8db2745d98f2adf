from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'train'")
pytest.importorskip("torch", reason="training needs the extra 'train'")

from lithostream.engine.config import load_toml
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.training.transfer.alike import ALIKE, alike, fingerprints
from lithostream.training.transfer.blocks import draw, groups
from lithostream.training.transfer.config import Blocks, TransferConfig
from lithostream.training.transfer.data import Study, read_study
from lithostream.training.transfer.features import Logarithms, fit_inputs
from lithostream.training.transfer.tables import read_columns


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return read_study(load_toml(folder / "study.toml", TransferConfig), folder)


def test_columns_are_read_by_name_whatever_their_order_and_separator(folder: Path, study: Study) -> None:
    reversed_columns = read_columns(folder / "unlabelled.csv", ("PC1", "PC7"))
    first = (folder / "unlabelled.csv").read_text().splitlines()[1].split(",")
    np.testing.assert_array_equal(reversed_columns[0], [float(first[6]), float(first[0])])
    assert study.experiments["most"].tolist() == list(range(110))
    assert study.experiments["fewest"].tolist() == list(range(20, 120))


def test_components_are_turned_back_into_predictors(study: Study) -> None:
    np.testing.assert_allclose(study.unlabelled[0], study.raw[5], rtol=1e-3, atol=1e-3)
    assert not study.fresh[0] and study.fresh[1:].all()


def test_what_is_unusual_is_said(study: Study) -> None:
    text = " ".join(study.notes)
    assert "2 of 120 rows occur more than once" in text
    assert "1 rows (1 positive) have no place" in text
    assert "1 unlabelled rows are labelled rows too" in text
    assert not study.located[2] and study.located.sum() == 119


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("most.csv", "DEP;", "LABEL;", "'DEP'"),
        ("components.csv", "1.00000,", "0.00000,", "does not have the rows"),
        ("pretext.csv", "0.00000,", "n.d.,", "line 8, column ETIQUETA: 'n.d.' is not a finite number"),
        ("pretext.csv", "2.00000,", "2.5,", "2.5 is no label"),
        ("predictors.csv", "0.00000,", "nan,", "column ESTE: 'nan' is not a finite number"),
        ("components.csv", "\n1.00000,", "\n1.00000,1.5,", "line 2: 9 cells, the header has 8"),
        ("unlabelled.csv", "PC3", "PC2", "several"),
        ("unlabelled.csv", "PC3", "PC 3", "no column is called 'PC3'; there are PC7, PC6"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    folder: Path, tmp_path: Path, table: str, old: str, new: str, message: str
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    text = (folder / table).read_text()
    assert old in text
    (tmp_path / table).write_text(text.replace(old, new, 1))
    with pytest.raises(SourceError, match=message):
        read_study(load_toml(folder / "study.toml", TransferConfig), tmp_path)


def test_components_of_other_predictors_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    lines = (folder / "components.csv").read_text().splitlines()
    cells = lines[7].split(",")
    lines[7] = ",".join([*cells[:3], "9.5", *cells[4:]])
    (tmp_path / "components.csv").write_text("\n".join(lines))
    with pytest.raises(SourceError, match="no invertible linear function"):
        read_study(load_toml(folder / "study.toml", TransferConfig), tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (None, None, "holds no rows"),
        (0, "1", "column DEP: all 120 rows have one label"),
        (0, "2", "2 is no label: it is 0, or 1 for a deposit"),
        (5, "3.5", "column X7: has one value in every row"),
    ],
)
def test_tables_that_teach_nothing_are_refused(
    folder: Path, tmp_path: Path, column: int | None, value: str | None, message: str
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    for name in ("predictors.csv", "components.csv"):
        header, *lines = (folder / name).read_text().splitlines()
        kept = [] if column is None else [line.split(",") for line in lines]
        for cells in kept:
            if column == 0 or name == "predictors.csv":
                cells[column or 0] = str(value)
        (tmp_path / name).write_text("\n".join([header, *map(",".join, kept), "", ""]))
    with pytest.raises(SourceError, match=message):
        read_study(load_toml(folder / "study.toml", TransferConfig), tmp_path)


def test_rows_that_are_alike_share_a_fingerprint_and_others_none() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([1e-3, 1.0, 40.0, 7e5])
    rows = rng.normal(size=(300, 4)) * spread
    known = {one for row in fingerprints(rows, spread) for one in row}
    near = rows + rng.uniform(-0.99, 0.99, rows.shape) * ALIKE * spread
    assert alike(near, rows, spread).all()
    assert all(not known.isdisjoint(row) for row in fingerprints(near, spread))
    fresh = rng.normal(size=(300, 4)) * spread
    away = (np.abs((fresh[:, None] - rows[None]) / spread).max(axis=2) > 5 * ALIKE).all(axis=1)
    assert away.sum() > 200 and not alike(fresh[away], rows, spread).any()
    assert all(known.isdisjoint(row) for row in fingerprints(fresh[away], spread))


def test_a_row_that_is_in_no_table_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    with (tmp_path / "fewest.csv").open("a") as file:
        file.write("1;9;9;9;9;9;9;9\n")
    with pytest.raises(SourceError, match="row 101"):
        read_study(load_toml(folder / "study.toml", TransferConfig), tmp_path)


def test_folds_hold_a_buffer_and_keep_twins_together() -> None:
    rng = np.random.default_rng(3)
    place, components = rng.uniform(0, 100_000, (200, 2)), rng.normal(size=(200, 3))
    components[10], place[20] = components[90], place[150]
    labels = (rng.random(200) < 0.2).astype(np.int64)
    group = groups(place, components)
    assert group[10] == group[90] and group[20] == group[150] and len(np.unique(group)) == 198
    blocks = Blocks(edge_m=20_000, buffer_m=5_000, folds=4, repeats=2)
    seen = set()
    for seed in range(4):
        repeat = draw(place, components, labels, blocks, seed)
        assert repeat.fold[10] == repeat.fold[90] and repeat.fold[20] == repeat.fold[150]
        assert (repeat.held.sum(axis=0) == 1).all()
        apart = np.linalg.norm(place[:, None] - place[None], axis=2)
        for k in range(4):
            assert apart[repeat.held[k]][:, repeat.outer[k]].min() > 5_000
            for j in set(range(4)) - {k}:
                both = repeat.held[k] | repeat.held[j]
                assert apart[both][:, repeat.inner[k, j]].min() > 5_000
        share = np.bincount(repeat.fold, labels, 4) / labels.sum()
        assert share.max() < 0.4 and share.min() > 0.1
        seen.add(tuple(repeat.fold))
    assert len(seen) == 4
    again = draw(place, components, labels, blocks, 0)
    np.testing.assert_array_equal(again.fold, draw(place, components, labels, blocks, 0).fold)


def test_inputs_are_fitted_on_the_rows_of_a_mask_alone(study: Study) -> None:
    logs = Logarithms((5, 6), (10.0, 10.0))
    extended = logs.extend(study.raw)
    np.testing.assert_allclose(extended[:, 7], np.log1p(study.raw[:, 5] / 10))
    mask = np.arange(120) < 60
    for view in ("components", "whitened", "logarithmic", "both"):
        inputs = fit_inputs(extended, mask, view, logs)
        changed = extended.copy()
        changed[60:] *= 100
        other = fit_inputs(changed, mask, view, logs)
        np.testing.assert_array_equal(inputs.matrix, other.matrix)
        seen = inputs(extended[mask])
        np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-9)
        if view != "components":
            np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-6)
    components = fit_inputs(extended, mask, "components", logs)(extended[mask])
    covariance = np.cov(components.T)
    np.testing.assert_allclose(covariance - np.diag(covariance.diagonal()), 0, atol=1e-9)
    assert (np.diff(covariance.diagonal()) < 0).all()
    clipped = fit_inputs(extended, mask, "both", logs, 1.5)(extended)
    assert np.abs(clipped).max() == 1.5


def test_configurations_that_contradict_themselves_are_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "study.toml").read_text()
    for old, new, message in (
        ('deep = "deep"', 'deep = "wide"', "none of nets"),
        ("X4 = 10", "X1 = 10", "no predictors"),
        ("trees = 30", "trees = 0", "baselines.random_forest.trees"),
        (
            'start = "pretext"\nprobe = true\nepochs',
            "hidden = []\nprobe = true\nepochs",
            "nothing to carry over",
        ),
        ("[nets.scratch]", "[nets.svm]", "may not be called"),
    ):
        path = tmp_path / "bad.toml"
        path.write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=message):
            load_toml(path, TransferConfig)


def test_the_real_tables_are_joined(data_dir: Callable[[str], Path]) -> None:
    root = data_dir("yukon-porphyry")
    config = load_toml(
        Path(__file__).parents[3] / "training" / "configs" / "transfer-yukon.toml", TransferConfig
    )
    study = read_study(config, root)
    deposits = [int(study.labels[rows].sum()) for rows in study.experiments.values()]
    assert deposits == [62, 55, 50, 43, 35, 26, 17, 10]
    assert all(len(set(rows)) == len(rows) for rows in study.experiments.values())
    assert len(study.unlabelled) == 3000 and len(study.labels) == 235
    matrix, offset = study.to_components
    assert np.abs(study.raw @ matrix + offset - study.components).max() < 1e-4
    assert "26 of 235 rows occur more than once" in study.notes[0]
