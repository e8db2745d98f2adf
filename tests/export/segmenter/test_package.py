"""A vision transformer through export and session, beside the package's own predictor at full resolution.

It goes both ways: traced in float32, and, as a network past protobuf's limit, with weights that are cast before.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")
pytest.importorskip("segment_anything", reason="export needs the extra 'train'")

from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import nn

from lithostream.engine.bundle import load_bundle
from lithostream.engine.errors import BundleError
from lithostream.engine.inference.segmenter import PROMPTS, SegmenterSession
from lithostream.engine.segmenter_golden import mask_iou
from lithostream.export import segmenter
from lithostream.export.segmenter import SegmenterExport, export_segmenter, fits_float32
from lithostream.export.segmenter_masks import gate_views
from lithostream.training.segmenter.scenes import scene

SIDE = 512

Graphs = tuple[onnx.ModelProto, onnx.ModelProto]


@pytest.fixture(scope="module")
def sam(vit: Callable[[int], Sam]) -> Sam:
    return vit(SIDE)


@pytest.fixture(scope="module")
def limit(sam: Sam) -> int:
    """What the network has in float32, less a byte."""
    weights: int = sum(value.numel() for value in sam.state_dict().values()) * 4
    return weights - 1


class Traced:
    """Traces as the export does, and keeps what was traced."""

    def __init__(self) -> None:
        self.trace, self.graphs, self.nbytes = segmenter._traced, list[onnx.ModelProto](), list[int]()

    def __call__(self, module: nn.Module, *rest: object) -> onnx.ModelProto:
        self.nbytes.append(sum(value.nbytes for value in module.state_dict().values()))
        self.graphs.append(self.trace(module, *rest))  # type: ignore[arg-type]
        return self.graphs[-1]


@pytest.fixture(scope="module")
def past_limit(sam: Sam, limit: int) -> tuple[SegmenterExport, Traced]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "MAX_SEGMENTER_BYTES", limit)
        assert not fits_float32(sam)
        patch.setattr(segmenter, "_traced", traced := Traced())
        return export_segmenter(sam, gate_views(SIDE)[:1]), traced


def check_full_resolution(sam: Sam, session: SegmenterSession, rng: np.random.Generator) -> None:
    """Ask both the same points, then the same points in boxes."""
    view = scene(2**40 + 77, SIDE).rgb
    points = rng.uniform(0, SIDE, (PROMPTS, 2)).astype(np.float32)
    reach = rng.uniform(10, 150, (PROMPTS, 2)).astype(np.float32)
    boxes = np.concatenate([points - reach, points + reach], axis=1)
    predictor = SamPredictor(sam)
    predictor.set_image(view)
    session.encode(view, (SIDE, SIDE))
    for given in (None, boxes):
        logits, quality = session.decode(points, given)
        found = sam.postprocess_masks(torch.from_numpy(logits), (SIDE, SIDE), (SIDE, SIDE)).numpy() > 0
        ious = []
        for place in range(PROMPTS):
            box = None if given is None else given[place]
            masks, iou, _ = predictor.predict(points[place, None], np.ones(1), box, multimask_output=True)
            ious.append(mask_iou(found[place], masks))
            np.testing.assert_allclose(quality[place], iou, atol=0.01)
            assert 0.001 < masks.mean() < 0.999
        assert np.mean(ious) >= 0.99


def test_masks_are_those_of_the_predictor(
    sam: Sam, add_segmenter: Callable[[Sam, SegmenterExport], Path], rng: np.random.Generator
) -> None:
    made = export_segmenter(sam, gate_views(SIDE)[:1])
    assert made.parity is not None and made.parity < 1e-5 and made.mean_iou >= 0.99
    check_full_resolution(sam, SegmenterSession(load_bundle(add_segmenter(sam, made)), threads=1), rng)


def test_past_the_limit_weights_are_cast_before_and_masks_are_the_same(
    sam: Sam,
    limit: int,
    past_limit: tuple[SegmenterExport, Traced],
    add_segmenter: Callable[[Sam, SegmenterExport], Path],
    rng: np.random.Generator,
) -> None:
    made, traced = past_limit
    assert made.parity is None and made.mean_iou >= 0.99
    assert traced.nbytes[0] < 0.6 * limit and len(traced.graphs[0].SerializeToString()) < limit
    held = onnx.load_model_from_string(made.encoder).graph.initializer
    large = {t.data_type for t in held if np.prod(t.dims) >= 1024}
    assert large <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    check_full_resolution(sam, SegmenterSession(load_bundle(add_segmenter(sam, made)), threads=1), rng)


def test_masks_that_fp16_breaks_are_refused(
    sam: Sam, past_limit: tuple[SegmenterExport, Traced], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "fits_float32", lambda _: False)
    monkeypatch.setattr(segmenter, "to_graphs", lambda *_: past_limit[1].graphs)
    monkeypatch.setattr(segmenter, "LEAST_IOU", 1.0 + 1e-9)
    with pytest.raises(BundleError, match="with weights in fp16 masks have a mean IoU of"):
        export_segmenter(sam, gate_views(SIDE)[:1])
