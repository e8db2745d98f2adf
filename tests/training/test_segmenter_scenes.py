"""What generated scenes promise: the same picture for the same seed, and labels that are what is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs torch")

from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import SourceError
from lithostream.training.segmenter.fields import cells, coordinates, noise
from lithostream.training.segmenter.layouts import LAYOUTS
from lithostream.training.segmenter.prompts import draw_prompts, mask_iou
from lithostream.training.segmenter.scenes import LEAST_PX, Scene, renumbered, scene
from lithostream.training.segmenter.sheets import cut, read_sheets

SIZE = 128


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(seed, SIZE) for seed in range(40)]


def test_a_seed_is_a_scene(scenes: list[Scene]) -> None:
    again, other = scene(3, SIZE), scene(4, SIZE)
    assert np.array_equal(again.rgb, scenes[3].rgb)
    assert np.array_equal(again.whole, scenes[3].whole) and np.array_equal(again.part, scenes[3].part)
    assert not np.array_equal(again.rgb, other.rgb)
    assert again.rgb.shape == (SIZE, SIZE, 3) and again.rgb.dtype == np.uint8
    assert again.whole.shape == again.part.shape == (SIZE, SIZE)
    assert again.whole.dtype == again.part.dtype == np.int32


def test_every_kind_of_layout_has_objects() -> None:
    for layout in LAYOUTS:
        found = [layout(np.random.default_rng(seed), SIZE) for seed in range(8)]
        assert max(int(renumbered(each.label).max()) for each in found) >= 3, layout.__name__
        assert all(each.label.shape == each.edge.shape == (SIZE, SIZE) for each in found)


def test_most_scenes_hold_several_objects_and_some_hold_parts(scenes: list[Scene]) -> None:
    several = sum(int(each.whole.max()) >= 2 for each in scenes)
    assert several >= 32
    assert 4 <= sum(bool(each.part.any()) for each in scenes) <= 30
    assert any((each.whole == 0).any() for each in scenes)


def test_a_part_lies_within_one_object(scenes: list[Scene]) -> None:
    for each in scenes:
        pairs = np.unique(np.stack([each.part[each.part > 0], each.whole[each.part > 0]]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1]
        assert (pairs[1] > 0).all()


def test_outlines_are_where_the_picture_changes(scenes: list[Scene]) -> None:
    ratios = []
    for each in scenes:
        grey = each.rgb.mean(axis=2)
        steps = np.abs(np.diff(grey, axis=1))
        outline = np.diff(each.whole, axis=1) != 0
        if outline.sum() > 50:
            ratios.append(steps[outline].mean() / steps[~outline].mean())
    assert np.median(ratios) > 1.4
    assert np.mean(np.array(ratios) > 1) > 0.85


def test_renumbering_drops_specks_and_closes_gaps() -> None:
    label = np.zeros((20, 20), np.int32)
    label[:10, :10], label[12:, 12:], label[0, 19] = 7, 90, 30  # 100, 64 and 1 px
    found = renumbered(label)
    assert LEAST_PX == 64
    assert found[0, 0] == 1 and found[19, 19] == 2 and found[0, 19] == 0
    assert set(np.unique(found)) == {0, 1, 2}


def test_noise_is_smooth_and_of_unit_height() -> None:
    found = np.stack([noise(np.random.default_rng(seed), 96, 8) for seed in range(12)])
    assert 0.8 < found.std() < 1.2
    assert np.abs(np.diff(found, axis=1)).max() < 1.0


def test_cells_hold_the_pixels_nearest_to_their_point() -> None:
    rows, columns = coordinates(64)
    found = cells(np.random.default_rng(0), rows, columns, (16.0, 16.0))
    assert (found.centre >= 0).all() and (found.edge >= 0).all()
    assert found.centre.max() < 16 * np.sqrt(8)
    borders = found.label[:, 1:] != found.label[:, :-1]
    assert found.edge[:, 1:][borders].max() < 1.5 < found.edge.max()


def test_points_lie_on_their_object_and_boxes_around_it(scenes: list[Scene]) -> None:
    one = scenes[2]
    prompts = draw_prompts(np.random.default_rng(5), one, 24, boxes=0.5, nowhere=0.0)
    assert 4 < prompts.is_box.sum() < 20
    for (x, y), box, mask in zip(prompts.points.astype(int), prompts.boxes, prompts.masks, strict=True):
        assert one.whole[y, x] > 0
        near = mask[max(y // 4 - 1, 0) : y // 4 + 2, max(x // 4 - 1, 0) : x // 4 + 2]
        assert near.max() > 0
        rows, columns = np.nonzero(mask)
        exact = 4.0 * np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(box - exact).max() <= 0.4 * SIZE * 0.5 + 4
        assert box[0] < box[2] and box[1] < box[3]


def test_points_on_nothing_have_no_mask(scenes: list[Scene]) -> None:
    gaps = next(each for each in scenes if (each.whole == 0).mean() > 0.1)
    prompts = draw_prompts(np.random.default_rng(5), gaps, 6, boxes=1.0, nowhere=1.0)
    x, y = prompts.points.astype(int).T
    assert not gaps.whole[y, x].any()
    assert not prompts.masks.any() and not prompts.is_box.any()


def test_a_scene_without_gaps_has_no_point_on_nothing() -> None:
    label = np.repeat(np.array([1, 2], np.int32), 32)[None].repeat(64, axis=0)
    full = Scene(np.zeros((64, 64, 3), np.uint8), label, np.zeros_like(label))
    prompts = draw_prompts(np.random.default_rng(0), full, 8, boxes=0.0, nowhere=1.0)
    assert prompts.masks.any(axis=(1, 2)).all()


def test_a_large_object_is_asked_for_more_often_by_the_root_of_its_area() -> None:
    label = np.ones((64, 64), np.int32)
    label[:16, :16] = 2  # 256 px beside 3,840: a root of 16 beside 62
    one = Scene(np.zeros((64, 64, 3), np.uint8), label, np.zeros_like(label))
    prompts = draw_prompts(np.random.default_rng(0), one, 600, boxes=0.0, nowhere=0.0)
    x, y = prompts.points.astype(int).T
    assert np.mean(label[y, x] == 2) == pytest.approx(16 / 78, abs=0.05)


def test_mask_iou() -> None:
    found = np.zeros((2, 4, 4), np.bool_)
    found[0, :2], found[1] = True, False
    wanted = np.zeros((4, 4), np.bool_)
    wanted[1:3] = True
    assert mask_iou(found, wanted[None]) == pytest.approx([1 / 3, 0.0])
    assert mask_iou(found[1], found[1]) == 0


def test_materials_are_cut_from_photographs(tmp_path: Path) -> None:
    core = generate(3, length_cm=30.0, width_cm=6.0, px_per_cm=20.0)
    sheets = read_sheets([write(core, tmp_path)])
    assert len(sheets) == 1 and min(sheets[0].shape[:2]) >= 90 and sheets[0].dtype == np.uint8
    made = [scene(seed, SIZE, sheets) for seed in range(12)]
    plain = [scene(seed, SIZE) for seed in range(12)]
    assert all(np.array_equal(one.rgb, scene(seed, SIZE, sheets).rgb) for seed, one in enumerate(made))
    changed = [not np.array_equal(one.rgb, other.rgb) for one, other in zip(made, plain, strict=True)]
    assert all(changed)


def test_a_cut_of_one_colour_keeps_its_hue_and_has_no_seam(rng: np.random.Generator) -> None:
    sheet = np.full((40, 90, 3), (60, 90, 120), np.uint8)
    found = cut(rng, [sheet], 64)
    assert found.shape == (64, 64, 3) and np.ptp(found[..., 0]) < 1e-3
    assert np.allclose(found[..., 1] / found[..., 0], 1.5) and np.allclose(found[..., 2] / found[..., 0], 2)
    ramp = np.repeat((2 * np.arange(90, dtype=np.uint8))[None, :, None], 90, axis=0).repeat(3, axis=2)
    steps = [np.abs(np.diff(cut(rng, [ramp], 64), axis=axis)).max() for axis in (0, 1) for _ in range(5)]
    assert max(steps) <= 2 * 1.6 * 10**0.3


def test_a_photograph_without_core_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((200, 80, 3), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(SourceError, match=r"black.png: shows no piece of core of 32 px"):
        read_sheets([tmp_path / "black.png"])
