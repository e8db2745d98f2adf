from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the peer needs the extra 'train'")
pytest.importorskip("segment_anything", reason="the peer needs the extra 'train'")

from segmenter_masks import Compared, best_iou, full_size, pictures, table, whole_view

from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.masks import no_masks


def test_the_nearest_mask_counts() -> None:
    wanted = np.zeros((3, 4, 4), np.bool_)
    wanted[0, :2], wanted[1, :, :1], wanted[2, 3, 3] = True, True, True
    found = np.zeros((2, 4, 4), np.bool_)
    found[0, :3], found[1, :, 0] = True, True
    np.testing.assert_allclose(best_iou(wanted, found), [8 / 12, 1, 0])
    assert best_iou(wanted, found[:0]).tolist() == [0, 0, 0]


def test_masks_come_at_the_size_of_the_picture() -> None:
    masks = no_masks(8)
    logits = np.full((1, 8, 8), -4.0, np.float32)
    logits[0, :4] = 4
    ones = np.ones(1, np.float32)
    full = full_size(masks._replace(logits=logits, quality=ones), (20, 32))
    assert full.shape == (1, 20, 32) and full[0, :16].all() and not full[0, 16:].any()
    assert full_size(masks, (20, 32)).shape == (0, 20, 32)


def test_pictures_are_shrunk_into_a_view(tmp_path: Path) -> None:
    Image.fromarray(np.full((100, 300, 3), 7, np.uint8)).save(tmp_path / "core.png")
    (name, rgb), (other, drawn) = *pictures([tmp_path / "core.png"], (), 96), *pictures([], [0], 96)
    assert (name, rgb.shape, other, drawn.shape) == ("core.png", (32, 96, 3), "scene 0", (96, 96, 3))
    view = whole_view(rgb, cast(Segmenter, SimpleNamespace(view_px=96, on_gpu=False)))
    assert view.valid == (32, 96) and (view.rgb[:32] == 7).all() and not view.rgb[32:].any()


def test_the_table_tells_shares_and_speeds() -> None:
    areas, best, again = np.array([0.001, 0.01, 0.1]), np.array([0.1, 0.9, 0.8]), np.array([0.9, 0.5, 0.7])
    one = Compared("a", 0.25, 0.5, 10.0, 7, 3, areas, best, np.zeros(0))
    none = Compared("b", 0.25, 0.5, 5.0, 0, 0, *[np.zeros(0)] * 3)
    asked = list(table([one._replace(again=again), none]))
    assert asked[5] == "the generator on a grid of 33 x 33 points finds 0.333 of its own"
    _, first, second, speed, whole, *bands = table([one, none])
    assert speed == "ours take 0.50 Mpx/s"
    assert first.split() == ["a", "3", "0.667", "7", "3", "2.00", "40.00", "20.0"]
    assert second.split()[:3] == ["b", "0", "-"]
    assert "0.667 of 3" in whole and "15.0 times" in whole
    assert asked[:5] + asked[6:] == list(table([one, none]))
    assert [line.split(": ")[1] for line in bands] == ["0.000 of 1", "1.000 of 1", "1.000 of 1", "- of 0"]
