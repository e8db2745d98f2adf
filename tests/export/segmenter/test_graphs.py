"""The two graphs answer as the package does, and hold half the bytes."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")
pytest.importorskip("segment_anything", reason="export needs the extra 'train'")

from segment_anything.modeling import Sam

from lithostream.engine.bundle import SegmenterGraphs, load_bundle
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_size import _letters
from lithostream.engine.inference.segmenter import PROMPTS, SegmenterSession
from lithostream.engine.segmenter_golden import mask_iou
from lithostream.export.segmenter import SegmenterExport, export_segmenter
from lithostream.export.segmenter_fp16 import store_fp16
from lithostream.export.segmenter_masks import gate_points, gate_views, package_masks

SIDE = 128

Floats = npt.NDArray[np.float32]
Prompts = tuple[Floats, Floats]
Graphs = tuple[onnx.ModelProto, onnx.ModelProto]


@pytest.fixture(scope="module")
def in_float32(with_segmenter: Path, graphs: Graphs) -> SegmenterSession:
    encoder, decoder = (graph.SerializeToString() for graph in graphs)
    bundle = dataclasses.replace(load_bundle(with_segmenter), segmenter=SegmenterGraphs(encoder, decoder))
    return SegmenterSession(bundle, threads=1)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("valid", [(SIDE, SIDE), (SIDE, 77), (50, SIDE)])
def test_masks_are_those_of_the_package(
    sam: Sam,
    in_float32: SegmenterSession,
    rng: np.random.Generator,
    prompts: Prompts,
    valid: tuple[int, int],
    boxed: bool,
) -> None:
    view = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    points, boxes = prompts
    wanted = package_masks(sam, view[: valid[0], : valid[1]], points, boxes if boxed else None)
    in_float32.encode(view, valid)
    logits, quality = in_float32.decode(points, boxes if boxed else None)
    np.testing.assert_allclose(logits, wanted[0], atol=1e-5 * float(np.ptp(wanted[0])))
    np.testing.assert_allclose(quality, wanted[1], atol=1e-5)
    assert mask_iou(logits > 0, wanted[0] > 0).min() >= 0.99
    assert 0.01 < (wanted[0] > 0).mean() < 0.99


def test_points_and_boxes_may_stand_in_one_call(
    in_float32: SegmenterSession, rng: np.random.Generator, prompts: Prompts
) -> None:
    in_float32.encode(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (SIDE, SIDE))
    points, boxes = prompts
    alone, boxed = (in_float32.decode(points, given)[0] for given in (None, boxes))
    boxes[::2] = 0
    mixed = in_float32.decode(points, boxes)[0]
    np.testing.assert_array_equal(mixed[::2], alone[::2])
    np.testing.assert_array_equal(mixed[1::2], boxed[1::2])
    assert np.abs(alone - boxed).max() > 1e-3


def test_a_prompt_gives_the_same_whatever_stands_beside_it(
    in_float32: SegmenterSession, rng: np.random.Generator, prompts: Prompts
) -> None:
    in_float32.encode(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (SIDE, SIDE))
    points, _ = prompts
    logits, quality = in_float32.decode(points, None)
    order = rng.permutation(PROMPTS)[:5]
    some = in_float32.decode(points[order], None)
    np.testing.assert_array_equal(some[0], logits[order])
    np.testing.assert_array_equal(some[1], quality[order])


def test_what_is_stored_is_half_and_close(graphs: Graphs, made: SegmenterExport) -> None:
    whole = [len(graph.SerializeToString()) for graph in graphs]
    assert len(made.encoder) + len(made.decoder) < 0.75 * sum(whole)
    assert made.parity is not None and made.parity < 1e-5
    assert made.mean_iou >= 0.99
    large = [
        t for t in onnx.load_model_from_string(made.decoder).graph.initializer if np.prod(t.dims) >= 1024
    ]
    assert {t.data_type for t in large} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    for trace in (b".py", b"/work", b"/tmp", b"site-packages", b"torch"):
        assert trace not in made.encoder + made.decoder


def test_weights_that_fp16_cannot_hold_are_named_and_may_stay(graphs: Graphs) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(graphs[1])
    tensor = next(t for t in graph.graph.initializer if t.data_type == 1 and np.prod(t.dims) >= 1024)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = 1e6
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(BundleError, match="beyond what fp16 holds") as caught:
        store_fp16(graph)
    assert caught.value.place == tensor.name
    kept = store_fp16(graph, keep=[tensor.name])
    assert {t.name: t.data_type for t in kept.graph.initializer}[tensor.name] == 1


def test_masks_that_differ_from_the_package_are_refused(
    sam: Sam, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lithostream.export.segmenter.to_graphs", lambda _: graphs)
    monkeypatch.setattr("lithostream.export.segmenter.PARITY", 1e-12)
    with pytest.raises(BundleError, match="differs from the package"):
        export_segmenter(sam, gate_views(SIDE)[:1])
    assert gate_points(SIDE).shape == (36, 2)


def test_products_of_letters_are_counted() -> None:
    assert _letters("bhwc, hkc -> bhwk", [(2, 3, 4, 5), (3, 6, 5)]) == 2 * 3 * 4 * 5 * 6
    assert _letters("...c,kc->...k", [(2, 3, 5), (6, 5)]) == 30 * 30
