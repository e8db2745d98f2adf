"""The small Segment Anything: its losses and its training step by step."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("segment_anything", reason="needs the extra [train]")

from segment_anything import SamAutomaticMaskGenerator

from lithostream.training.device import deterministic
from lithostream.training.models.small_sam import small_sam
from lithostream.training.segmenter.batch import answer, images
from lithostream.training.segmenter.checkpoint import save
from lithostream.training.segmenter.config import DistilConfig, SegmenterConfig, Stage
from lithostream.training.segmenter.distil import SamTeacher
from lithostream.training.segmenter.fit import Learner, batches, learning_rate, varied
from lithostream.training.segmenter.geometry import CHANNELS, REACH, geometry, geometry_loss
from lithostream.training.segmenter.loss import cross_entropy, dice, iou, mask_loss
from lithostream.training.segmenter.prompts import Prompts, draw_prompts
from lithostream.training.segmenter.scenes import scene

CPU = torch.device("cpu")


def tiny(steps: int = 3, **changes: object) -> SegmenterConfig:
    stage = Stage(steps=steps, size_px=64, batch=2, prompts=3)
    return SegmenterConfig(stages=(stage,), warmup=1, threads=1, evaluate_scenes=1, **changes)  # type: ignore[arg-type]


def learner(config: SegmenterConfig) -> Learner:
    torch.manual_seed(config.seed)
    return Learner(small_sam(), config, CPU)


def test_the_network_is_small_and_runs_in_the_package_s_generator() -> None:
    sam = small_sam().eval()
    assert sum(value.numel() for value in sam.parameters()) < 3_200_000
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
        (logits,), _ = answer(sam, sam.image_encoder(images(sam, [one.rgb], CPU)), [asked])
    assert float(logits.std(dim=0).mean()) > 0.3 * float(logits.std(dim=(2, 3)).mean())
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
        embedding = sam.image_encoder(images(sam, [one.rgb], CPU), (3, 5))
        (logits,), (quality,) = answer(sam, embedding, [asked], (3, 5))
        (back,), (worth,) = answer(sam, embedding, [turned], (3, 5))
        (elsewhere,), _ = answer(sam, embedding, [asked], (0, 0))
    assert logits.shape == (6, 4, 32, 32) and quality.shape == (6, 4)
    assert torch.allclose(logits, back.flip(0), atol=1e-4)
    assert torch.allclose(quality, worth.flip(0), atol=1e-4)
    assert not torch.allclose(logits, elsewhere, atol=1e-4)


def test_a_whole_view_is_answered_as_by_the_package() -> None:
    sam, one = small_sam().eval(), scene(2, 512)
    asked = draw_prompts(np.random.default_rng(0), one, 2, boxes=0.0, nowhere=0.0)
    with torch.no_grad():
        (logits,), (quality,) = answer(sam, sam.image_encoder(images(sam, [one.rgb], CPU)), [asked])
        given = {
            "image": torch.from_numpy(one.rgb).permute(2, 0, 1).float(),
            "original_size": (512, 512),
            "point_coords": torch.from_numpy(asked.points)[:, None],
            "point_labels": torch.ones(2, 1),
        }
        (same,) = sam([given], multimask_output=True)
    assert torch.allclose(same["low_res_logits"], logits[:, 1:], atol=1e-3)
    assert torch.allclose(same["iou_predictions"], quality[:, 1:], atol=1e-4)


def test_a_prompt_looks_at_its_own_place_before_any_training() -> None:
    torch.manual_seed(1)
    sam = small_sam().eval()
    place = sam.prompt_encoder.get_dense_pe()[0].flatten(1).T  # [1024, 128]
    at = 20 * 32 + 7
    last = sam.mask_decoder.transformer.final_attn_token_to_image
    with torch.no_grad():
        asking = (last.q_proj(place[at]) - last.q_proj.bias).unflatten(0, (8, 8))
        asked = (last.k_proj(place) - last.k_proj.bias).unflatten(1, (8, 8))
        scores = torch.einsum("hc,nhc->hn", asking, asked)
    rows, columns = np.unravel_index(scores.argmax(dim=1).numpy(), (32, 32))
    assert (abs(rows - 20) <= 1).all() and (abs(columns - 7) <= 1).all()
    near = torch.softmax(scores, dim=1).unflatten(1, (32, 32))[:, 17:24, 4:11].sum(dim=(1, 2))
    assert (near > 0.4).all() and (near[:4] > 0.9).all()  # of 49 of 1,024 places


def test_what_is_no_image_is_zero() -> None:
    sam, one = small_sam(), scene(2, 64)
    shown = images(sam, [one.rgb, one.rgb], CPU, [(64, 20), (30, 64)])
    whole = images(sam, [one.rgb], CPU)[0]
    assert not shown[0, :, :, 20:].any() and not shown[1, :, 30:].any()
    assert torch.equal(shown[0, :, :, :20], whole[:, :, :20])
    assert torch.equal(shown[1, :, :30], whole[:, :30])


def test_a_scene_is_varied_with_its_labels() -> None:
    one, narrow = scene(2, 256), 0
    for seed in range(20):
        seen, (rows, columns) = varied(np.random.default_rng(seed), one, 128)
        assert seen.rgb.shape == (128, 128, 3) and seen.whole.shape == seen.part.shape == (128, 128)
        assert rows == 128 and 96 <= columns <= 128
        assert not seen.rgb[:, columns:].any() and not seen.whole[:, columns:].any()
        narrow += columns < 128
        steps = np.abs(np.diff(seen.rgb[:, :columns].mean(axis=2), axis=1))
        outline = np.diff(seen.whole[:, :columns], axis=1) != 0
        if outline.sum() > 50:
            assert steps[outline].mean() > 1.3 * steps[~outline].mean()
    assert 4 <= narrow <= 16


def test_pixels_know_where_their_object_is() -> None:
    label = np.zeros((64, 64), np.int32)
    label[8:24, 16:48] = 1  # 4 x 8 pixels of a mask
    known = geometry(label)
    assert known.shape == (CHANNELS, 16, 16) and known.dtype == np.float32
    assert known[:3, 3, 5] == pytest.approx([32, 16, 4 * np.sqrt(32)])
    assert known[4].sum() == 32 and known[4, 2:6, 4:12].all()
    assert known[3, 2, 5] == 1 and known[3, 1, 5] == 1 and known[3, 3, 5] == 0 and known[3, 3, 3] == 1


def test_the_loss_of_geometry_is_none_where_all_is_known() -> None:
    label = np.zeros((64, 64), np.int32)
    label[8:24, 16:48] = 1
    known = torch.from_numpy(geometry(label))[None]
    found = known.clone()
    found[:, 0], found[:, 1] = (known[:, 0] + 100 - 256) / REACH, (known[:, 1] + 200 - 256) / REACH
    found[:, 2] = known[:, 2].clamp(min=1).log()
    found[:, 3:] = 40 * known[:, 3:] - 20
    assert float(geometry_loss(found, known, (200, 100), 512)) < 1e-5
    found[:, 0] += 16 / REACH
    assert float(geometry_loss(found, known, (200, 100), 512)) == pytest.approx(
        16 / (4 * np.sqrt(32) + 8), rel=1e-4
    )


def test_learning_one_scene_lowers_its_loss() -> None:
    config = tiny(60, learning_rate=2e-3)
    with deterministic(1, CPU):
        run, examples = learner(config), next(batches(config, 0))
        losses = [run.learn(examples) for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_the_rate_rises_then_falls_to_zero() -> None:
    config = tiny(101, learning_rate=1.0).model_copy(update={"warmup": 10})
    rates = [learning_rate(config, step) for step in range(102)]
    assert rates[0] == pytest.approx(0.1) and 0.97 < rates[9] < 1.0
    assert all(np.diff(rates[10:]) < 0) and rates[101] == pytest.approx(0.0)


def test_the_rate_falls_by_what_was_seen() -> None:
    stages = (Stage(steps=8, size_px=128, batch=4), Stage(steps=2, size_px=256, batch=4))
    config = SegmenterConfig(stages=stages, learning_rate=1.0, warmup=0)
    assert [config.views(step) for step in (0, 8, 9, 10)] == [0, 2, 3, 4]
    assert learning_rate(config, 8) == pytest.approx(0.5)  # half of all pixels


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
    alone, both = learner(tiny(1)), learner(config)
    (with_teacher,) = batches(config, 0, teacher)
    (without,) = batches(config, 0)
    assert both.learn(with_teacher) != alone.learn(without)
