"""The small Segment Anything: its losses, its training step by step, its checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("segment_anything", reason="needs the extra [train]")

from safetensors.torch import load_file, save_file
from segment_anything import SamAutomaticMaskGenerator

from lithostream.engine.config import load_toml
from lithostream.engine.errors import BundleError, ConfigError
from lithostream.training.device import deterministic
from lithostream.training.models.small_sam import small_sam
from lithostream.training.segmenter import study
from lithostream.training.segmenter.batch import answer, images
from lithostream.training.segmenter.checkpoint import load_sam, save
from lithostream.training.segmenter.config import DistilConfig, SegmenterConfig, Stage
from lithostream.training.segmenter.distil import SamTeacher
from lithostream.training.segmenter.evaluate import score
from lithostream.training.segmenter.fit import Learner, batches, learning_rate
from lithostream.training.segmenter.loss import cross_entropy, dice, iou, mask_loss
from lithostream.training.segmenter.prompts import Prompts, draw_prompts
from lithostream.training.segmenter.scenes import scene

CPU = torch.device("cpu")
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


def tiny(steps: int = 3, **changes: object) -> SegmenterConfig:
    stage = Stage(steps=steps, size_px=64, batch=2, prompts=3)
    return SegmenterConfig(stages=(stage,), warmup=1, threads=1, evaluate_scenes=1, **changes)  # type: ignore[arg-type]


def learner(config: SegmenterConfig) -> Learner:
    torch.manual_seed(config.seed)
    return Learner(small_sam(), config, CPU)


def test_the_network_is_small_and_runs_in_the_package_s_generator() -> None:
    sam = small_sam().eval()
    assert sum(value.numel() for value in sam.parameters()) < 3_000_000
    with torch.no_grad():
        assert sam.image_encoder(torch.zeros(1, 3, 512, 512)).shape == (1, 128, 32, 32)
    generator = SamAutomaticMaskGenerator(
        sam, points_per_side=2, pred_iou_thresh=-9, stability_score_thresh=-1
    )
    found = generator.generate(scene(1, 512).rgb)
    assert all(each["segmentation"].shape == (512, 512) for each in found)


def test_a_prompt_is_heard_before_any_training() -> None:
    torch.manual_seed(0)
    sam, one = small_sam().eval(), scene(2, 128)
    asked = draw_prompts(np.random.default_rng(0), one, 8, boxes=0.0, nowhere=0.0)
    with torch.no_grad():
        logits, _ = answer(sam, sam.image_encoder(images(sam, [one.rgb], CPU)), asked, (0, 0))
    assert float(logits.std(dim=0).mean()) > 0.1 * float(logits.std(dim=(2, 3)).mean())
    for layer in sam.mask_decoder.transformer.layers:
        attention = layer.cross_attn_token_to_image
        assert torch.equal(attention.q_proj.weight, attention.k_proj.weight)


def test_losses_at_the_extremes() -> None:
    wanted = torch.zeros(1, 8, 8)
    wanted[:, :4] = 1
    sure = (wanted * 2 - 1) * 30
    assert float(cross_entropy(sure, wanted)) < 1e-6 and float(dice(sure, wanted)) < 1e-6
    assert float(cross_entropy(-sure, wanted)) == pytest.approx(30) and float(dice(-sure, wanted)) > 0.9
    assert float(cross_entropy(torch.zeros(1, 8, 8), wanted)) == pytest.approx(np.log(2), rel=1e-5)
    # Dice of a half everywhere: 2 (16 + 1/2) / (32 + 32 + 1).
    assert float(dice(torch.zeros(1, 8, 8), wanted)) == pytest.approx(1 - 33 / 65, rel=1e-5)
    assert iou(sure > 0, wanted > 0).item() == 1
    assert iou(sure < 0, wanted > 0).item() == 0
    assert iou(wanted < 0, wanted < 0).item() == 0


def test_only_the_best_of_three_masks_learns() -> None:
    wanted = torch.zeros(1, 8, 8)
    wanted[:, :4] = 1
    logits = torch.zeros(1, 4, 8, 8)
    logits[0, 2] = wanted[0] - 0.5
    logits.requires_grad_()
    quality = torch.zeros(1, 4, requires_grad=True)
    mask_loss(logits, quality, wanted).backward()
    assert logits.grad is not None and quality.grad is not None
    moved = logits.grad.abs().sum(dim=(2, 3))[0] > 0
    assert moved.tolist() == [True, False, True, False]
    assert float(quality.grad[0, 2]) == pytest.approx(-2 / 4)  # its IoU is 1
    assert float(quality.grad[0, 1]) == 0  # that of an empty mask is 0


def test_a_point_on_nothing_teaches_only_the_quality() -> None:
    logits = torch.randn(2, 4, 8, 8, requires_grad=True)
    quality = torch.ones(2, 4, requires_grad=True)
    loss = mask_loss(logits, quality, torch.zeros(2, 8, 8))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0)
    assert logits.grad is not None and not logits.grad.any()


def test_answers_come_in_the_order_of_the_prompts() -> None:
    sam, one = small_sam().eval(), scene(2, 128)
    asked = draw_prompts(np.random.default_rng(0), one, 6, boxes=0.5, nowhere=0.0)
    assert 0 < asked.is_box.sum() < 6
    points, boxes, is_box, masks = asked
    turned = Prompts(points[::-1].copy(), boxes[::-1].copy(), is_box[::-1].copy(), masks[::-1].copy())
    with torch.no_grad():
        embedding = sam.image_encoder(images(sam, [one.rgb], CPU))
        logits, quality = answer(sam, embedding, asked, (3, 5))
        back, worth = answer(sam, embedding, turned, (3, 5))
        elsewhere, _ = answer(sam, embedding, asked, (0, 0))
    assert logits.shape == (6, 4, 32, 32) and quality.shape == (6, 4)
    assert torch.allclose(logits, back.flip(0), atol=1e-4)
    assert torch.allclose(quality, worth.flip(0), atol=1e-4)
    assert not torch.allclose(logits, elsewhere, atol=1e-4)


def test_a_whole_view_is_answered_as_by_the_package() -> None:
    sam, one = small_sam().eval(), scene(2, 512)
    asked = draw_prompts(np.random.default_rng(0), one, 2, boxes=0.0, nowhere=0.0)
    with torch.no_grad():
        logits, quality = answer(sam, sam.image_encoder(images(sam, [one.rgb], CPU)), asked, (0, 0))
        given = {
            "image": torch.from_numpy(one.rgb).permute(2, 0, 1).float(),
            "original_size": (512, 512),
            "point_coords": torch.from_numpy(asked.points)[:, None],
            "point_labels": torch.ones(2, 1),
        }
        (same,) = sam([given], multimask_output=True)
    assert torch.allclose(same["low_res_logits"], logits[:, 1:], atol=1e-3)
    assert torch.allclose(same["iou_predictions"], quality[:, 1:], atol=1e-4)


def test_learning_one_scene_lowers_its_loss() -> None:
    config = tiny(40, learning_rate=2e-3)
    with deterministic(1, CPU):
        run, examples = learner(config), next(batches(config, 0))
        losses = [run.learn(examples) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_the_rate_rises_then_falls_to_zero() -> None:
    config = tiny(101, learning_rate=1.0).model_copy(update={"warmup": 10})
    rates = [learning_rate(config, step) for step in range(102)]
    assert (
        rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and rates[10] == pytest.approx(1.0)
    )
    assert all(np.diff(rates[10:]) < 0) and rates[101] == pytest.approx(0.0)


def test_a_training_taken_up_ends_in_the_same_weights() -> None:
    config = tiny(4)
    with deterministic(1, CPU):
        straight = learner(config)
        for examples in batches(config, 0):
            straight.learn(examples)
        before, after = learner(config), learner(config.model_copy(update={"seed": 9}))
        for _, examples in zip(range(2), batches(config, 0), strict=False):
            before.learn(examples)
        after.config = config
        after.take_up({name: value.clone() for name, value in before.tensors().items()}, before.step)
        for examples in batches(config, 2):
            after.learn(examples)
    assert after.step == straight.step == 4
    for name, value in straight.tensors().items():
        assert torch.equal(value, after.tensors()[name]), name


def test_the_average_follows_the_weights() -> None:
    config = tiny(2)
    run = learner(config)
    start = run.sam.mask_decoder.iou_token.weight.detach().clone()
    run.learn(next(batches(config, 0)))
    own, kept = run.sam.mask_decoder.iou_token.weight, run.average.mask_decoder.iou_token.weight
    assert torch.allclose(kept, start + (own - start) * (1 - 2 / 11), atol=1e-6)


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


def test_a_teacher_answers_every_prompt(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save(tmp_path / "teacher", small_sam(), "small", {})
    distil = DistilConfig(checkpoint=Path("teacher"), architecture="small", weight=0.5)
    teacher = SamTeacher(distil, tmp_path, CPU)
    one = scene(2, 64)
    asked = draw_prompts(np.random.default_rng(0), one, 5, boxes=0.5, nowhere=0.0)
    taught = teacher(one, asked)
    assert taught.shape == asked.masks.shape and taught.dtype == np.float32
    assert (taught >= 0).all() and (taught <= 1).all() and taught.std() > 0
    config = tiny(1, distil=distil)
    alone, both = learner(config), learner(config)
    (with_teacher,) = batches(config, 0, teacher)
    (without,) = batches(config, 0)
    assert both.learn(with_teacher) != alone.learn(without)


@pytest.mark.parametrize("change", ["missing", "lacks", "also holds", "needs", "finite"])
def test_a_wrong_checkpoint_is_refused(tmp_path: Path, change: str) -> None:
    save(tmp_path, small_sam(), "small", {})
    file = tmp_path / "segmenter.safetensors"
    weights, name = load_file(file), "mask_decoder.iou_token.weight"
    reason = change
    if change == "missing":
        file.unlink()
        reason = "cannot be read|is damaged|No such file"
    elif change == "lacks":
        del weights[name]
    elif change == "also holds":
        weights["other"] = torch.zeros(1)
    elif change == "needs":
        weights[name] = torch.zeros(1, 256)
    else:
        weights[name][0, 0] = float("nan")
    if change != "missing":
        save_file(weights, file)
    with pytest.raises(BundleError, match=reason) as refused:
        load_sam(tmp_path)
    assert refused.value.fix


def test_files_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    code, plain, damaged = (tmp_path / f"sam_vit_b_{name}.pth" for name in ("code", "plain", "damaged"))
    torch.save({"model": Path("x")}, code)
    torch.save([1, 2], plain)
    damaged.write_bytes(b"\x00" * 40)
    for file, reason in ((code, "never run"), (plain, "table of tensors"), (damaged, "damaged")):
        with pytest.raises(BundleError, match=reason):
            load_sam(file)
    with pytest.raises(BundleError, match="which network"):
        load_sam(tmp_path / "weights.pth")
    (tmp_path / "segmenter.json").write_text('{"architecture": "vit_x"}')
    with pytest.raises(BundleError, match="vit_x"):
        load_sam(tmp_path)
    (tmp_path / "segmenter.json").write_text("{}")
    with pytest.raises(BundleError, match="cannot be read"):
        load_sam(tmp_path)


def test_a_file_of_pickled_tensors_is_read(tmp_path: Path) -> None:
    sam, file = small_sam(), tmp_path / "small.pth"
    torch.save(sam.state_dict(), file)
    found = load_sam(file)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in sam.state_dict().items())
    assert not found.training


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
