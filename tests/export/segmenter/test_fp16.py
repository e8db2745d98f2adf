"""Weights in fp16 before there is a graph: what is held how, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")
pytest.importorskip("segment_anything", reason="export needs the extra 'train'")

from segment_anything.modeling import Sam

from lithostream.engine.errors import BundleError
from lithostream.export import segmenter
from lithostream.export.segmenter import rows_by_gather, to_graphs
from lithostream.export.segmenter_fp16 import hold_fp16
from lithostream.export.segmenter_graphs import ViewEncoder

SIDE = 64


@pytest.fixture(scope="module")
def sam(vit: Callable[[int], Sam]) -> Sam:
    return vit(SIDE)


def test_large_weights_are_held_in_fp16_and_compute_in_float32(sam: Sam) -> None:
    kept = "encoder.blocks.0.mlp.lin1"
    encoder = ViewEncoder(sam)
    held = hold_fp16(encoder, [kept])
    kinds = {name: value.dtype for name, value in held.named_parameters() if value.numel() >= 1024}
    assert kinds.pop(f"{kept}.weight") == torch.float32
    assert len(kinds) >= 8 and set(kinds.values()) == {torch.float16}
    assert {v.dtype for v in held.parameters() if v.numel() < 1024} == {torch.float32}
    given = (torch.randint(0, 256, (1, SIDE, SIDE, 3), dtype=torch.uint8), torch.tensor([SIDE, SIDE]))
    with torch.no_grad():
        for one, two in zip(encoder(*given), held(*given), strict=True):
            assert two.dtype == torch.float32
            assert 0 < (one - two).abs().max() < 0.01 * (one.max() - one.min())


def test_the_network_itself_is_left_as_it_was(sam: Sam) -> None:
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    held = hold_fp16(ViewEncoder(sam))
    after = sam.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not {v.data_ptr() for v in sam.parameters()} & {v.data_ptr() for v in held.parameters()}


def test_a_weight_beyond_fp16_is_named(vit: Callable[[int], Sam]) -> None:
    sam = vit(SIDE)
    with torch.no_grad():
        sam.image_encoder.blocks[1].mlp.lin2.weight[0, 0] = -1e5
    with pytest.raises(BundleError, match="beyond what fp16 holds") as caught:
        hold_fp16(ViewEncoder(sam))
    assert caught.value.place == "encoder.blocks.1.mlp.lin2.weight"
    hold_fp16(ViewEncoder(sam), ["encoder.blocks.1.mlp"])


def test_more_weights_than_protobuf_holds_are_refused(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold_fp16(ViewEncoder(sam))
    monkeypatch.setattr(
        segmenter, "MAX_SEGMENTER_BYTES", sum(v.nbytes for v in held.state_dict().values()) - 1
    )
    with pytest.raises(BundleError, match="protobuf"):
        to_graphs(sam, held)


def test_rows_are_gathered_as_before(rng: np.random.Generator) -> None:
    table = rng.normal(size=(7, 3)).astype(np.float32)
    places = rng.integers(0, 7, (4, 5, 1))
    nodes = [
        onnx.helper.make_node("GatherND", ["table", "places"], ["one"], batch_dims=0),
        onnx.helper.make_node("GatherND", ["table", "places"], ["two"]),
        onnx.helper.make_node("GatherND", ["table", "pairs"], ["values"]),
    ]
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("one", [4, 5, 3]), ("two", [4, 5, 3]), ("values", [2]))
    ]
    held: dict[str, npt.NDArray[Any]] = {
        "table": table,
        "places": places,
        "pairs": np.array([[1, 2], [6, 0]]),
    }
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = onnx.helper.make_graph(nodes, "rows", [], outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    found = rows_by_gather(model)
    assert [node.op_type for node in found.graph.node] == ["Gather", "Gather", "GatherND"]
    assert {t.name for t in found.graph.initializer} == {"table", "places.rows", "pairs"}
    onnx.checker.check_model(found, full_check=True)
    one, two, values = ort.InferenceSession(found.SerializeToString()).run(None, {})
    np.testing.assert_array_equal(one, table[places[..., 0]])
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(values, table[[1, 6], [2, 0]])
