"""The study that trains a segmenter: what it writes, how it goes on, what it is configured by."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("segment_anything", reason="needs the extra [train]")

from safetensors.torch import load_file

from lithostream.engine.config import load_toml
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import ConfigError, LithostreamError
from lithostream.training.segmenter import study
from lithostream.training.segmenter.checkpoint import load_sam
from lithostream.training.segmenter.config import SegmenterConfig
from lithostream.training.segmenter.evaluate import score
from lithostream.training.segmenter.fit import Learner

TINY = """
warmup = 1
threads = 1
evaluate_scenes = 1
[[stages]]
steps = 3
size_px = 64
batch = 2
prompts = 2
"""


def test_a_study_writes_a_checkpoint_that_is_read_again(tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "out"
    file.write_text(TINY)
    record = study.train_segmenter(file, out)
    assert record["done"] and record["step"] == 3
    assert sorted(path.name for path in out.iterdir()) == ["segmenter.json", "segmenter.safetensors"]
    written = json.loads((out / "segmenter.json").read_text())
    assert written["architecture"] == "small" and written["score"] == record["score"]
    assert 0 <= written["score"]["chosen"] <= written["score"]["best_of_three"] <= 1
    assert 0.05 < written["score"]["superpixel"] < 1
    again = score(load_sam(out), 1)
    assert again.model_dump() == pytest.approx(record["score"], abs=1e-5)


def test_a_study_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(TINY)
    second.write_text(f'seed = 1\nstart = "out"\nlearning_rate = 1e-9\nweight_decay = 0\n{TINY}')
    study.train_segmenter(first, tmp_path / "out")
    study.train_segmenter(second, tmp_path / "again")
    before, after = (load_file(tmp_path / name / "segmenter.safetensors") for name in ("out", "again"))
    learned = [name for name, value in before.items() if value.is_floating_point() and "running" not in name]
    assert len(learned) > 100
    first_record, record = (
        json.loads((tmp_path / name / "segmenter.json").read_text()) for name in ("out", "again")
    )
    assert record["start"] == first_record and "start" not in first_record
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in learned)


@pytest.mark.parametrize("start", ["nowhere", "vit"])
def test_what_a_study_cannot_begin_with_is_refused(tmp_path: Path, start: str) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(f'start = "{start}"\n{TINY}')
    (tmp_path / "vit").mkdir()
    with pytest.raises(LithostreamError, match=f"{start}.*(is no folder|cannot be read)"):
        study.train_segmenter(file, tmp_path / "out")


def test_a_study_begins_with_no_other_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(f'start = "."\n{TINY}')
    larger = SimpleNamespace(image_encoder=SimpleNamespace(img_size=1024))
    monkeypatch.setattr(study, "load_sam", lambda _folder: larger)
    with pytest.raises(ConfigError, match="is not the small network"):
        study.train_segmenter(file, tmp_path / "out")


def test_photographs_are_trained_on_and_credited(tmp_path: Path) -> None:
    image = write(generate(3, length_cm=30.0, width_cm=6.0, px_per_cm=20.0), tmp_path)
    file, plain = tmp_path / "tiny.toml", tmp_path / "plain.toml"
    plain.write_text(TINY)
    file.write_text(f'textures = ["{image.name}"]\n{TINY}')
    with pytest.raises(ConfigError, match="licence"):
        study.train_segmenter(file, tmp_path / "out")
    file.write_text(f'textures = ["{image.name}"]\nlicence = "own"\n{TINY}')
    assert study.train_segmenter(file, tmp_path / "out")["config"]["licence"] == "own"
    study.train_segmenter(plain, tmp_path / "other")
    one, other = (load_file(tmp_path / name / "segmenter.safetensors") for name in ("out", "other"))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_killed_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    study.train_segmenter(file, whole)
    learn = Learner.learn
    steps: list[int] = []

    def dying(self: Learner, examples: list[object]) -> float:
        if self.step == 2 and not steps:
            steps.append(self.step)
            raise KeyboardInterrupt
        return learn(self, examples)  # type: ignore[arg-type]

    monkeypatch.setattr(study, "EVERY_S", 0.0)
    monkeypatch.setattr(Learner, "learn", dying)
    with pytest.raises(KeyboardInterrupt):
        study.train_segmenter(file, killed)
    assert load_sam(killed) is not None  # usable in between
    assert not json.loads((killed / "segmenter.json").read_text())["done"]
    study.train_segmenter(file, killed)
    ends = [load_file(folder / "segmenter.safetensors") for folder in (whole, killed)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_the_shipped_configuration_is_valid() -> None:
    config = load_toml(Path(study.__file__).parents[1] / "configs" / "segmenter.toml", SegmenterConfig)
    assert config.steps == sum(stage.steps for stage in config.stages)
    assert config.stage_of(0) == config.stages[0] and config.stage_of(config.steps - 1) == config.stages[-1]
    assert config.stages[-1].size_px == 512


def test_a_bad_configuration_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(TINY.replace("size_px = 64", "size_px = 65"))
    with pytest.raises(ConfigError, match="65"):
        study.train_segmenter(file, tmp_path / "out")
