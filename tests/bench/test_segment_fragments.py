import json
from pathlib import Path

import numpy as np
from segment_fragments import Photo, ours, peer, polygons, true_masks

from lithostream.engine.core.panoptic import panoptic_quality


def test_polygons_are_scaled_and_turned_down_core(tmp_path: Path) -> None:
    shape = {"geometry": [{"x": x, "y": y} for x, y in ((20, 4), (60, 4), (60, 16), (20, 16))]}
    held = {"label_reference_width_px": 200, "label": {"Rock_Fragment": [shape], "note": "good"}}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(held))
    found = polygons(file, 100, 20)
    assert found.shape == (100, 20)
    assert found[12:29, 4:7].all() and not found[:8].any() and not found[32:].any()


def test_both_answers_are_scored_on_a_drawn_box() -> None:
    truth = np.zeros((600, 120), np.int32)
    truth[40:250, 20:100], truth[270:520, 20:100] = 1, 2
    rgb = np.array([[60, 50, 40], [180, 170, 160], [200, 120, 90]], np.uint8)[truth]
    photo = Photo(rgb, np.ones(truth.shape, np.bool_), truth, 6.0)
    best, _, _ = peer(photo, lambda labels: panoptic_quality(truth, labels))
    assert best.quality > 0.9
    found = panoptic_quality(truth, ours(photo, true_masks(photo)))
    assert found.quality > 0.9 and found.matched == 2
