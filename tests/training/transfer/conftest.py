"""Tables of a made-up study: two hills of deposits in seven predictors, and what the real study has to trip over."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

PREDICTORS = [f"X{number}" for number in range(9, 2, -1)]
COMPONENTS = [f"PC{number}" for number in range(1, 8)]
ROWS, DEPOSITS, PRETEXT, UNLABELLED = 120, 40, 60, 80

CONFIG = """
name = "made-up"
licence = "made up"
description = "Made up."
deep = "deep"
workers = 1
baselines = {{ random_forest = {{ trees = 30 }}, gradient_boosting = {{ trees = 30 }} }}
logarithmic = {{ X4 = 10, X3 = 10 }}
[tables]
predictors = "predictors.csv"
components = "components.csv"
pretext = "pretext.csv"
unlabelled = "unlabelled.csv"
{validation}
[tables.experiments]
most = "most.csv"
fewest = "fewest.csv"
[columns]
label = "DEP"
place = ["ESTE", "NORTE"]
predictors = ["X9", "X8", "X7", "X6", "X5", "X4", "X3"]
components = ["PC1", "PC2", "PC3", "PC4", "PC5", "PC6", "PC7"]
pretext_label = "ETIQUETA"
pretext_place = ["E", "N"]
[blocks]
edge_m = 10000
buffer_m = 1000
folds = 3
repeats = 2
repeats_between = 2
[nets.deep]
hidden = [16, 8]
views = ["logarithmic", "both"]
seeds = 1
steps = 60
learning_rate = 1e-2
[nets.scratch]
seeds = 1
steps = 5
[nets.pretext_probe]
start = "pretext"
probe = true
seeds = 1
steps = 5
[nets.autoencoder_fine]
start = "autoencoder"
loss = "focal"
seeds = 1
steps = 5
[published]
seeds = 2
pretrain_epochs = 3
reference = {{ "from scratch" = {{ accuracy = 0.9 }} }}
[published.nets."logistic regression"]
hidden = []
epochs = 3
[published.nets."from scratch"]
epochs = 3
[published.nets."pretext, linear probe"]
start = "pretext"
probe = true
epochs = 3
[published.nets."autoencoder, fine-tuned"]
start = "autoencoder"
epochs = 3
experiments = true
"""


def write_csv(path: Path, names: list[str], values: np.ndarray, separator: str = ",") -> None:
    lines = [separator.join(f"{value:.5f}" for value in row) for row in values]
    path.write_text("\n".join([separator.join(names), *lines]) + "\n")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the study: on a busy machine the threads of small products would wait for each other."""
    torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deposits where X9 and X3 are high. Row 1 repeats row 0, row 2 has no place, columns come in any order."""
    rng, folder = np.random.default_rng(8), tmp_path_factory.mktemp("made-up")
    labels = (np.arange(ROWS) < DEPOSITS).astype(float)

    def draw(count: int) -> np.ndarray:
        raw = rng.normal(size=(count, 7))
        raw[:, 5:] = np.exp(1.5 * raw[:, 5:] + 3)
        return raw

    raw = draw(ROWS)
    raw[:DEPOSITS, 0] += 1.2
    raw[:DEPOSITS, 6] *= 8
    place = rng.uniform(100_000, 160_000, (ROWS, 2))
    raw[1], place[1] = raw[0], place[0]
    place[2] = 0
    raw = raw.round(5)
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    axes = np.linalg.eigh(np.corrcoef(raw.T))[1]

    def components(rows: np.ndarray) -> np.ndarray:
        return np.asarray((rows - mean) / spread @ axes)

    write_csv(folder / "predictors.csv", ["DEP", "ESTE", "NORTE", *PREDICTORS], np.c_[labels, place, raw])
    published = np.c_[labels, components(raw)]
    write_csv(folder / "components.csv", ["DEP", *COMPONENTS], published)
    pretext = draw(PRETEXT)
    kinds = (pretext[:, 0] > 0) + 2 * (pretext[:, 1] > 0)
    north_east = rng.uniform(100_000, 160_000, (PRETEXT, 2))
    write_csv(
        folder / "pretext.csv",
        ["ETIQUETA", "N", "E", *COMPONENTS],
        np.c_[kinds, north_east, components(pretext)],
    )
    unlabelled = components(np.concatenate([raw[5:6], draw(UNLABELLED - 1)]))
    write_csv(folder / "unlabelled.csv", COMPONENTS[::-1], unlabelled[:, ::-1])
    write_csv(folder / "most.csv", ["DEP", *COMPONENTS], published[:110], ";")
    write_csv(folder / "fewest.csv", ["DEP", *COMPONENTS], np.delete(published, np.arange(20), 0), ";")
    fresh = draw(12)
    fresh[:6, 0] += 1.2
    seen_too = np.concatenate([raw[[3, 50, 51]], fresh])
    validation = np.c_[[1, 0, 0, *[1] * 6, *[0] * 6], components(seen_too)]
    validation[2, 1:] += 0.002 * rng.choice([-1, 1], 7)  # a row of training, measured a little differently
    write_csv(folder / "validation.csv", ["DEP", *COMPONENTS], validation)
    (folder / "study.toml").write_text(CONFIG.format(validation=""))
    (folder / "validated.toml").write_text(CONFIG.format(validation='validation = "validation.csv"'))
    return folder
