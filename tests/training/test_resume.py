"""A training that is killed and started again gives what it would have given."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from rich.console import Console
from safetensors.torch import save

from lithostream.engine.errors import ConfigError
from lithostream.training import state
from lithostream.training.config import FitConfig
from lithostream.training.data.splits import depth_blocks, validation_splits
from lithostream.training.data.tiles import TileSet
from lithostream.training.fit import fit
from lithostream.training.state import Epoch, Journal, Page, Saved
from lithostream.training.study import train_properties
from lithostream.training.watch import Watch

STUDY = """
name = "tiny"
licence = "CC0-1.0"
description = "Generated cores, for tests."
targets = ["density", "magnetic_susceptibility"]
minerals = ["quartz", "pore_water", "magnetite"]
[synthetic]
cores = 2
first_seed = 1900
length_cm = [30, 40]
width_cm = 4
px_per_cm = [16]
[tile]
size_px = 8
[fit]
width = 1
epochs = 2
learning_rate = 0.01
ema = 0.5
loss = "gaussian"
[split]
folds = 2
block_cm = 5
buffer_cm = 1
seeds = [0]
"""


class KilledError(Exception):
    pass


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state of each epoch, however short and however long it takes to write."""
    monkeypatch.setattr(state, "EVERY_S", 0.0)
    monkeypatch.setattr(state, "SHARE", 0.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "tiny"
    train_properties(study, out, console=Console(file=io.StringIO()))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def killing(at: int, seen: list[tuple[str, Epoch]]) -> Callable[[str, Epoch], None]:
    def on_epoch(name: str, epoch: Epoch) -> None:
        seen.append((name, epoch))
        if len(seen) == at:
            raise KilledError

    return on_epoch


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("options", [{}, {"ema": 0.8, "loss": "gaussian", "accumulate": 2, "amp": True}])
def test_a_fit_goes_on_from_any_epoch_to_the_same_weights(
    core_tiles: TileSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    few = core_tiles.of_rows(np.arange(len(core_tiles.labels)) < 36)
    config = FitConfig(width=2, epochs=3, patience=3, batch_rows=8, validations=2, learning_rate=1e-2)
    config = config.model_copy(update=options)
    rows = np.ones(36, np.bool_)
    splits = validation_splits(few, rows, depth_blocks(few, 8.0), 1.0, 2, 0)
    # Whatever the validation rows say, the second half trains too.
    monkeypatch.setattr(
        "lithostream.training.fit._validation_loss", lambda runs, _: -float(runs[0].schedule.last_epoch)
    )

    def trained(page: Page) -> tuple[bytes, int]:
        model, best = fit(few, rows, splits, config, 7, page)
        return save(model.state_dict()), best

    seen: list[tuple[str, Epoch]] = []
    wanted = trained(Page("whole", on_epoch=killing(0, seen)))
    assert wanted[1] == 3
    assert [(epoch.phase, epoch.number) for _, epoch in seen] == [
        (phase, number) for phase in ("search", "final") for number in (1, 2, 3)
    ]
    for at in (1, 3, 4, 6):
        path = tmp_path / f"{at}.safetensors"
        with pytest.raises(KilledError):
            trained(Page("killed", path, "key", killing(at, [])))
        assert path.exists() == (at > 1)
        again: list[tuple[str, Epoch]] = []
        assert trained(Page("again", path, "key", killing(0, again))) == wanted
        assert [epoch for _, epoch in again] == [epoch for _, epoch in seen[at - 1 :]]


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("at", [2, 5, 7])
def test_a_study_goes_on_from_where_it_was_killed(
    study: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out, seen = tmp_path / "tiny", []  # type: tuple[Path, list[tuple[str, Epoch]]]
    epoch = Watch.epoch

    def watched(stop: int) -> Callable[[Watch, str, Epoch], None]:
        kill = killing(stop, seen)

        def both(watch: Watch, name: str, one: Epoch) -> None:
            epoch(watch, name, one)
            kill(name, one)

        return both

    monkeypatch.setattr(Watch, "epoch", watched(at))
    text = io.StringIO()
    with pytest.raises(KilledError):
        train_properties(study, out, console=Console(file=text))
    partial = tmp_path / ".tiny.partial"
    assert not out.exists() and (partial / "key.json").exists()
    assert "going on" not in text.getvalue()
    first = [(name, one.phase, one.number) for name, one in seen]
    seen.clear()
    monkeypatch.setattr(Watch, "epoch", watched(0))
    train_properties(study, out, console=Console(file=text, width=500))
    assert f"{partial}: going on from here" in text.getvalue()
    assert contents(out) == contents(whole)
    assert list(tmp_path.iterdir()) == [out]
    second = [(name, one.phase, one.number) for name, one in seen]
    assert second[0] == first[-1] and set(first) & set(second) == {first[-1]}


KILLED = """
import os, signal, sys
from pathlib import Path
from lithostream.training import state
from lithostream.training.study import train_properties
from lithostream.training.watch import Watch

state.EVERY_S = state.SHARE = 0.0
seen = []

def epoch(watch, name, one):
    seen.append(name)
    if len(seen) == 7:
        os.kill(os.getpid(), signal.SIGKILL)

Watch.epoch = epoch
train_properties(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_process_leaves_what_a_new_one_goes_on_from(
    study: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tiny"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(study), str(out)],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    kept = {path.name for path in (tmp_path / ".tiny.partial").iterdir()}
    assert {"key.json", "seed0-fold0.safetensors", "seed0-fold1.safetensors"} <= kept
    train_properties(study, out, console=Console(file=io.StringIO()))
    assert contents(out) == contents(whole)


@pytest.mark.usefixtures("every_epoch")
def test_another_study_starts_over_and_says_so(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen, text = tmp_path / "tiny", [], io.StringIO()  # type: tuple[Path, list[Any], io.StringIO]
    monkeypatch.setattr(Watch, "epoch", lambda _watch, *one: killing(5, seen)(*one))
    with pytest.raises(KilledError):
        train_properties(study, out, console=Console(file=text))
    other = tmp_path / "other.toml"
    other.write_text(study.read_text().replace("learning_rate = 0.01", "learning_rate = 0.02"))
    seen.clear()
    with pytest.raises(KilledError):
        train_properties(other, out, console=Console(file=text, width=500))
    assert seen[0][0] == "seed0-fold0" and seen[0][1].number == 1
    assert "left by another configuration, data or version; starting over" in text.getvalue()


def test_a_page_is_read_under_its_own_key_and_phase_only(tmp_path: Path) -> None:
    saved = Saved("final", {"a": torch.arange(3.0)}, {"x": 0.1, "rng": 1 << 100})
    path = tmp_path / "page.safetensors"
    Page("n", path, "key").write(saved)
    found = Page("n", path, "key").load("final")
    assert found is not None and found.facts == saved.facts
    assert torch.equal(found.tensors["a"], saved.tensors["a"])
    assert Page("n", path, "key").load("search") is None
    assert Page("n", path, "other").load("final") is None
    path.write_bytes(path.read_bytes()[:-4])
    assert Page("n", path, "key").load("final") is None
    assert Page("n", tmp_path / "none", "key").load("final") is None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_states_are_written_once_a_while_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("lithostream.training.state.time.monotonic", lambda: clock[0])
    page, written = Page("n", tmp_path / "page", "key"), []  # type: tuple[Page, list[float]]
    epoch = Epoch("final", 1, 9, 0.0, None, 0.0)

    def costly() -> Saved:
        written.append(clock[0])
        return Saved("final", {}, {})

    def write(*_: object) -> None:
        clock[0] += 3.0

    monkeypatch.setattr(state, "_replace", write)
    for clock[0] in np.arange(0.0, 500.0, 20.0):
        page.keep(epoch, costly)
    assert written == [60.0, 220.0, 380.0]  # 60 s after the start, then 50 times the 3 s that a state takes


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another --out"):
        Journal(tmp_path / "file" / ".x.partial", "key")


def test_scalars_go_into_the_checkpoint_and_change_nothing(study: Path, whole: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="training needs the extra 'train'"
    )
    config = tmp_path / "tiny.toml"
    config.write_text(study.read_text().replace("[fit]", "[fit]\ntensorboard = true"))
    out = tmp_path / "out"
    train_properties(config, out, console=Console(file=io.StringIO()))
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    records = [json.loads((folder / "training.json").read_text()) for folder in (out, whole)]
    assert records[0].pop("config") != records[1].pop("config") and records[0] == records[1]
    networks = out / "tensorboard"
    assert {path.name for path in networks.iterdir()} == {"seed0-fold0", "seed0-fold1", "final"}
    events = accumulator.EventAccumulator(str(networks / "seed0-fold1")).Reload()
    for name in ("training_loss", "validation_loss", "learning_rate"):
        found = events.Scalars(f"search/{name}")
        assert [one.step for one in found] == [1, 2] and all(
            one.value > 0 or name == "learning_rate" for one in found
        )
    rates = [one.value for one in events.Scalars("search/learning_rate")]
    assert rates == pytest.approx([0.005, 0.0], abs=1e-8)  # cosine, half way and at its end
