import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.core.panoptic import panoptic_quality
from lithostream.engine.core.segmenter.masks import MaskSet, no_masks
from lithostream.engine.core.segmenter.merge import merge
from lithostream.engine.core.segmenter.objects import find_objects
from lithostream.engine.core.segmenter.pieces import pieces_of
from lithostream.engine.core.segmenter.refine import MERGE, Refined, refine
from lithostream.engine.core.segmenter.view import View, make_view
from lithostream.kernels import segment_stats, slic
from lithostream.kernels.errors import ContractError

SIDE = 512
Labels = npt.NDArray[np.int32]
Image = npt.NDArray[np.uint8]


def discs(height: int, width: int, centres: list[tuple[int, int, int]]) -> tuple[Labels, Image]:
    """Truth [H, W], later discs (y, x, radius) over earlier ones, and its picture with noise."""
    rng = np.random.default_rng(0)
    truth = np.zeros((height, width), np.int32)
    y, x = np.ogrid[:height, :width]
    for number, (cy, cx, radius) in enumerate(centres, 1):
        truth[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number
    colours = np.array([[60, 60, 60], [200, 90, 60], [80, 180, 90], [70, 90, 210]])
    noise = rng.normal(0, 4, (height, width, 3))
    return truth, np.clip(colours[truth % 4] + noise, 0, 255).astype(np.uint8)


def perfect(inside: npt.NDArray[np.bool_], row_px: int, window_px: int) -> npt.NDArray[np.float32]:
    """Logits of one object, from its pixels in the rows of a view."""
    drawn = np.repeat(np.where(inside, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    shown = make_view(drawn, row_px, window_px, SIDE).rgb[..., 0].astype(np.float32)
    logits: npt.NDArray[np.float32] = shown.reshape(128, 4, 128, 4).mean(axis=(1, 3)) / 16 - 8
    return logits.astype(np.float32)


def truth_masks(truth: Labels, row_px: int, window_px: int) -> MaskSet:
    found = [perfect(truth == one, row_px, window_px) for one in np.unique(truth[truth > 0])]
    return masks(np.stack(found)) if found else no_masks(SIDE // 4)


def masks(logits: npt.NDArray[np.float32], quality: list[float] | None = None) -> MaskSet:
    count = len(logits)
    given = np.full(count, 0.9) if quality is None else np.array(quality)
    ones, asked = np.ones(count, np.float32), np.arange(count, dtype=np.int64)
    return MaskSet(logits, given.astype(np.float32), ones, np.zeros((count, 2), np.float32), asked)


def whole_view(rgb: Image) -> View:
    """View of an image that is a section's only window."""
    return make_view(rgb, 0, len(rgb), SIDE)


def _refined(rgb: Image, found: MaskSet, count: int = 150, core: np.ndarray | None = None) -> Refined:
    labels = slic(rgb, n_segments=count, compactness=10.0, mask=core)
    view = whole_view(rgb)
    return refine(labels, segment_stats(labels, rgb), find_objects(found, view), view, 0)


def _is_sound(found: Refined, core: np.ndarray) -> None:
    labels = found.labels
    assert np.array_equal(labels > 0, core)
    area = np.bincount(labels.ravel(), minlength=len(found.area_px) + 1)[1:]
    assert np.array_equal(area, found.area_px)
    assert (area > 0).all()
    firsts = np.unique(labels[labels > 0], return_index=True)[1]
    assert np.array_equal(firsts, np.sort(firsts))
    assert (found.parent <= len(area)).all() and (found.parent != np.arange(1, len(area) + 1)).all()


@pytest.mark.parametrize("shape", [(300, 280), (640, 210), (900, 1100)])
def test_true_masks_give_the_objects(shape: tuple[int, int]) -> None:
    height, width = shape
    truth, rgb = discs(
        height, width, [(height // 4, width // 3, width // 5), (height // 2, width // 2, width // 6)]
    )
    found = _refined(rgb, truth_masks(truth, 0, height))
    _is_sound(found, np.ones(shape, np.bool_))
    score = panoptic_quality(truth, found.labels)
    assert score.quality > 0.93
    assert (score.matched, score.missed, score.invented) == (2, 0, 0)


def test_no_masks_leave_the_merged_superpixels() -> None:
    _, rgb = discs(200, 160, [(90, 80, 40)])
    labels = slic(rgb, n_segments=60, compactness=10.0)
    stats, view = segment_stats(labels, rgb), whole_view(rgb)
    merged = merge(labels, stats, threshold=MERGE)
    found = refine(labels, stats, find_objects(no_masks(128), view), view, 0)
    expected = np.concatenate([[0], merged])[labels]
    pairs = np.unique(np.stack([expected.ravel(), found.labels.ravel()]), axis=1)
    assert pairs.shape[1] == merged.max() == len(found.area_px)
    assert (found.object == -1).all() and (found.parent == 0).all()


def test_five_thousand_masks_are_defined() -> None:
    truth, rgb = discs(256, 256, [(120, 130, 60)])
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:128, :128]
    centre, radius = rng.uniform(0, 128, (5000, 2)), rng.uniform(2, 30, 5000)
    logits = np.stack(
        [r - np.hypot(y - cy, x - cx) for (cy, cx), r in zip(centre, radius, strict=True)]
    ).astype(np.float32)
    found = _refined(rgb, masks(logits, list(np.linspace(0.99, 0.5, 5000))))
    _is_sound(found, np.ones(truth.shape, np.bool_))
    again = _refined(rgb, masks(logits, list(np.linspace(0.99, 0.5, 5000))))
    assert np.array_equal(found.labels, again.labels)


def test_flat_colour_still_follows_the_masks() -> None:
    truth, _ = discs(300, 300, [(150, 150, 80)])
    rgb = np.full((300, 300, 3), 120, np.uint8)
    found = _refined(rgb, truth_masks(truth, 0, 300), count=40)
    assert (
        panoptic_quality(truth, found.labels).quality > 0.9
    )  # superpixels know nothing of it: they were cut
    _is_sound(found, np.ones(truth.shape, np.bool_))


def test_one_pixel_of_core_and_none() -> None:
    rgb = np.full((40, 30, 3), 90, np.uint8)
    core = np.zeros((40, 30), np.bool_)
    assert _refined(rgb, no_masks(128), core=core).area_px.tolist() == []
    core[20, 10] = True
    found = _refined(rgb, masks(np.full((1, 128, 128), 3, np.float32)), core=core)
    assert found.area_px.tolist() == [1]
    _is_sound(found, core)


def test_an_inclusion_of_another_colour_is_a_part_of_what_lies_around_it() -> None:
    truth, rgb = discs(400, 400, [(200, 200, 150), (180, 200, 40)])
    both = np.stack([perfect(truth >= 1, 0, 400), perfect(truth == 2, 0, 400)])
    found = _refined(rgb, masks(both, [0.95, 0.9]))
    inner, outer = int(found.labels[180, 200]), int(found.labels[300, 200])
    assert inner != outer
    assert found.parent[inner - 1] == outer and found.parent[outer - 1] == 0


def test_a_part_of_the_same_colour_is_not_cut_out() -> None:
    truth, rgb = discs(400, 400, [(200, 200, 150)])
    inner, _ = discs(400, 400, [(180, 200, 40)])
    both = np.stack([perfect(truth == 1, 0, 400), perfect(inner == 1, 0, 400)])
    found = _refined(rgb, masks(both, [0.9, 0.95]))
    assert found.labels[180, 200] == found.labels[300, 200]


def test_a_group_of_better_objects_gives_way_to_them() -> None:
    half = np.zeros((400, 400), np.bool_)
    half[100:300, 100:199] = True
    other = half[:, ::-1].copy()
    rgb = np.where((half | other)[..., None], np.uint8(200), np.uint8(60)).repeat(3, axis=2)
    logits = np.stack([perfect(part, 0, 400) for part in (half | other, half, other)])
    found = _refined(rgb, masks(logits, [0.8, 0.95, 0.95]))
    assert found.labels[200, 150] != found.labels[200, 250]
    whole = _refined(rgb, masks(logits, [0.99, 0.95, 0.95]))
    assert whole.labels[200, 150] == whole.labels[200, 250]


def test_a_crack_parts_the_pixels_and_not_the_object() -> None:
    truth, rgb = discs(300, 300, [(150, 150, 100)])
    core = np.ones((300, 300), np.bool_)
    core[150:156] = False
    found = _refined(rgb, truth_masks(truth, 0, 300), core=core)
    assert found.labels[120, 150] == found.labels[180, 150]
    _is_sound(found, core)


def test_segments_without_a_mask_are_connected() -> None:
    truth, rgb = discs(300, 300, [(150, 150, 100)])
    found = _refined(rgb, truth_masks(truth, 0, 300))
    for label in np.flatnonzero(found.object < 0) + 1:
        assert pieces_of((found.labels == label).astype(np.int64)).max() == 1


def test_a_mask_of_the_whole_view_says_nothing() -> None:
    _, rgb = discs(300, 300, [(150, 150, 60)])
    assert len(find_objects(masks(np.full((1, 128, 128), 5, np.float32)), whole_view(rgb)).parent) == 0


def test_islands_of_a_mask_are_left_out() -> None:
    _, rgb = discs(300, 300, [(150, 150, 60)])
    logits = np.full((1, 128, 128), -5, np.float32)
    logits[0, 20:60, 20:60] = 5
    logits[0, 100:104, 100:104] = 5
    shown = find_objects(masks(logits), whole_view(rgb)).shown
    assert shown[160, 160] == 1 and shown[408, 408] == 0
    assert shown.shape == (SIDE, SIDE)


def test_an_object_that_ends_above_other_ground_stays_one() -> None:
    truth, rgb = discs(120, 120, [(60, 60, 40)])
    found = _refined(rgb, truth_masks(truth, 0, 120), core=truth > 0)
    assert found.object.tolist() == [0]


@pytest.mark.parametrize(("rim_px", "joins"), [(2, True), (15, True), (40, False)])
def test_what_a_mask_left_over_is_of_its_object(rim_px: int, joins: bool) -> None:
    # A slab of 100 px whose mask ends `rim_px` short of it, where it is dark.
    rgb = np.full((200, 256, 3), 200, np.uint8)
    rgb[100 - rim_px :] = 90
    core, inside = np.zeros((2, 200, 256), np.bool_)
    core[:100], inside[: 100 - rim_px] = True, True
    logits = perfect(inside, 0, 200)
    found = _refined(rgb, masks(logits[None]), core=core)
    mine = np.flatnonzero(found.object == 0) + 1
    assert len(mine) == 1
    assert (found.labels[99] == mine[0]).all() == joins
    assert (found.labels[: 90 - rim_px] == mine[0]).all()


def test_what_does_not_fit_is_refused() -> None:
    truth, rgb = discs(100, 100, [(50, 50, 20)])
    view = whole_view(rgb)
    objects = find_objects(truth_masks(truth, 0, 100), view)
    labels: Labels = np.full((100, 100), 3, np.int32)
    stats = segment_stats(np.minimum(labels, 2), np.zeros((100, 100, 3), np.uint8))
    with pytest.raises(ContractError, match="stats: expected 3 rows, got 2"):
        refine(labels, stats, objects, view, 0)
