import itertools

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.core.segmenter.join import Seam, match, number, seam, together, total
from lithostream.engine.core.segmenter.masks import MaskSet, no_masks
from lithostream.engine.core.segmenter.objects import find_objects
from lithostream.engine.core.segmenter.refine import refine
from lithostream.engine.core.segmenter.view import halo_rows, make_view
from lithostream.kernels import segment_stats, slic

SIDE = 512
Labels = npt.NDArray[np.int32]
Image = npt.NDArray[np.uint8]


def _discs(height: int, width: int, centres: list[tuple[int, int, int]]) -> tuple[Labels, Image]:
    """Truth [H, W], later discs (y, x, radius) over earlier ones, and its picture."""
    truth = np.zeros((height, width), np.int32)
    y, x = np.ogrid[:height, :width]
    for number_, (cy, cx, radius) in enumerate(centres, 1):
        truth[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = number_
    colours = np.array([[60, 60, 60], [200, 90, 60], [80, 180, 90], [70, 90, 210]], np.uint8)
    return truth, colours[truth]


def _true_masks(truth: Labels, window_px: int) -> MaskSet:
    found = []
    for one in np.unique(truth[truth > 0]):
        drawn = np.repeat(np.where(truth == one, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
        shown = make_view(drawn, 0, window_px, SIDE).rgb[..., 0].astype(np.float32)
        found.append(shown.reshape(128, 4, 128, 4).mean(axis=(1, 3)) / 16 - 8)
    if not found:
        return no_masks(SIDE // 4)
    ones, asked = np.ones(len(found), np.float32), np.arange(len(found), dtype=np.int64)
    return MaskSet(
        np.stack(found).astype(np.float32), ones, ones, np.zeros((len(found), 2), np.float32), asked
    )


def _section(truth: Labels, rgb: Image, window: int) -> Labels:
    halo, height = halo_rows(window), len(rgb)
    parts, counts, pairs = [], [], []
    before: Seam | None = None
    for top, base in itertools.pairwise([*range(0, height, window), height]):
        first = max(0, top - halo)
        rows = slice(first, base + halo)
        view = make_view(rgb[rows], first, window, SIDE)
        objects = find_objects(_true_masks(truth[rows], window), view)
        labels = slic(rgb[top:base], n_segments=80, compactness=10.0)
        refined = refine(labels, segment_stats(labels, rgb[top:base]), objects, view, top)
        if before is not None:
            pairs.append(match(before, seam(objects, refined, view, top, halo, height)))
        before = seam(objects, refined, view, base, halo, height)
        parts.append(refined.labels)
        counts.append(len(refined.area_px))
    ids = number(counts, pairs)
    return np.concatenate([np.concatenate([[0], i + 1])[p] for i, p in zip(ids, parts, strict=True)])


def test_a_disc_across_an_edge_is_one_and_others_stay_apart() -> None:
    truth, rgb = _discs(600, 300, [(300, 150, 90), (120, 80, 50), (290, 40, 15)])
    found = _section(truth, rgb, 300)
    inside = [np.bincount(found[truth == one]).argmax() for one in (1, 2, 3)]
    assert found[260, 150] == found[340, 150] == inside[0]
    assert len(set(inside)) == 3


def test_a_disc_over_three_windows_is_one() -> None:
    truth, rgb = _discs(600, 300, [(300, 150, 130)])
    found = _section(truth, rgb, 200)
    assert len({int(found[row, 150]) for row in (190, 250, 300, 390, 410)}) == 1


def _seam(rows: list[list[int]]) -> Seam:
    bits = np.packbits(np.array(rows, np.uint8).reshape(len(rows), -1), axis=1)
    return Seam(bits, np.arange(len(rows), dtype=np.int64) + 4)


def test_only_mutual_best_of_half_the_union_match() -> None:
    one = _seam([[1, 1, 1, 1, 0, 0, 0, 0]])
    assert match(one, _seam([[1, 1, 0, 0, 0, 0, 0, 0]])).tolist() == [[4, 4]]  # exactly half
    assert match(one, _seam([[1, 0, 0, 0, 0, 0, 0, 0]])).tolist() == []
    two = _seam([[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]])
    assert match(one, two).tolist() == [[4, 5]]
    assert match(two, one).tolist() == [[5, 4]]


def test_nothing_matches_nothing() -> None:
    nothing = Seam(np.zeros((0, 1), np.uint8), np.zeros(0, np.int64))
    assert match(nothing, _seam([[1, 1]])).shape == (0, 2)
    blank = _seam([[0, 0]])
    assert match(blank, blank).shape == (0, 2)


def test_numbers_follow_windows_and_unions() -> None:
    pairs = [np.array([[1, 0]]), np.array([[0, 1], [2, 0]])]
    assert [part.tolist() for part in number([2, 3, 2], pairs)] == [[0, 1], [1, 2, 3], [3, 1]]
    assert number([], []) == []
    with pytest.raises(ValueError, match="seams"):
        number([2, 3], [])


def test_statistics_of_pieces_add_up() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (90, 2))
    piece = np.repeat([0, 1, 2], [20, 30, 40])
    weight = np.array([20.0, 30.0, 40.0])
    mean = np.stack([values[piece == one].mean(axis=0) for one in range(3)])
    std = np.stack([values[piece == one].std(axis=0) for one in range(3)])
    joint, spread = together(np.array([0, 1, 0]), weight, mean, std)
    chosen = values[piece != 1]
    np.testing.assert_allclose(joint[0], chosen.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(spread[0], chosen.std(axis=0), rtol=1e-12)
    assert total(np.array([0, 1, 0]), weight[:, None]).tolist() == [[60.0], [30.0]]


def test_a_piece_without_values_is_left_out() -> None:
    mean = np.array([[3.0], [np.nan], [np.nan]])
    joint, _ = together(np.array([0, 0, 1]), np.array([5.0, 0.0, 0.0]), mean, np.zeros((3, 1)))
    assert joint[0, 0] == 3.0 and np.isnan(joint[1, 0])
