"""int8: what is rounded, what is not, and that runtimes compute all of it in integers."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")

from onnx import ModelProto, TensorProto, numpy_helper

from lithostream.engine.inference.signed import signed
from lithostream.export.backbone import backbone_convolutions
from lithostream.export.graph import check_rules, to_onnx
from lithostream.export.int8 import from_bytes, to_int8
from lithostream.training.models.properties import PropertyNet

Pixels = npt.NDArray[np.uint8]


def network(size_px: int = 32) -> ModelProto:
    torch.manual_seed(1)
    net = PropertyNet(2, 4, size_px, 0.0).eval()
    torch.nn.init.normal_(net.head.weight, std=0.1)
    net.set_normalisation(np.array([140.0, 90, 120]), np.array([30.0, 20, 50]), np.eye(2))
    return onnx.load_model_from_string(to_onnx(net, size_px))


def some_tiles(size_px: int = 32, count: int = 24) -> Pixels:
    rng = np.random.default_rng(2)
    colour = rng.integers(40, 180, (count, 1, 1, 3))
    return (colour + rng.integers(-40, 60, (count, size_px, size_px, 3))).astype(np.uint8)


def run(graph: bytes, tiles: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    properties, distance = session.run(["properties", "distance"], {"tiles": tiles})
    return properties, distance


def optimised(model: ModelProto, path: Path) -> Counter[str]:
    """Operators that ONNX Runtime makes of a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(scope="module")
def fp32() -> ModelProto:
    return network()


@pytest.fixture(scope="module")
def int8(fp32: ModelProto) -> ModelProto:
    return to_int8(fp32, some_tiles())


def test_reading_bytes_changes_nothing_not_even_at_the_border(fp32: ModelProto) -> None:
    changed = from_bytes(fp32)
    assert changed is not None
    check_rules(changed)
    tiles = some_tiles()
    tiles[:, 0], tiles[:, :, -1] = 255, 0
    for found, wanted in zip(
        run(changed.SerializeToString(), tiles), run(fp32.SerializeToString(), tiles), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_all_convolutions_of_the_backbone_have_whole_weights_biases_and_inputs(int8: ModelProto) -> None:
    check_rules(int8)
    tensors = {tensor.name: tensor for tensor in int8.graph.initializer}
    made = {name: node for node in int8.graph.node for name in node.output}
    convolutions = [
        node for node in int8.graph.node if node.op_type == "Conv" and "backbone." in node.input[1]
    ]
    assert len(convolutions) == 20
    for node in convolutions:
        source, weight = (made[name] for name in node.input[:2])
        assert {source.op_type, weight.op_type} == {"DequantizeLinear"}
        assert tensors[source.input[2]].data_type == TensorProto.UINT8
        assert tensors[weight.input[0]].data_type == TensorProto.INT8
        assert list(tensors[weight.input[1]].dims) == [tensors[weight.input[0]].dims[0]]
        for bias in node.input[2:]:
            codes, scale = (tensors[name] for name in made[bias].input[:2])
            assert codes.data_type == TensorProto.INT32
            scales = [numpy_helper.to_array(tensors[part.input[1]]) for part in (source, weight)]
            np.testing.assert_allclose(numpy_helper.to_array(scale), scales[0] * scales[1], rtol=1e-6)


def test_pixels_are_not_rounded(int8: ModelProto) -> None:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    (node,) = (
        node for node in int8.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "bytes"
    )
    assert tensors[node.input[1]] == 1 and tensors[node.input[2]] == 128


def test_onnx_runtime_computes_the_whole_backbone_in_integers(int8: ModelProto, tmp_path: Path) -> None:
    found = optimised(int8, tmp_path / "optimised.onnx")
    assert found["QLinearConv"] == 20 and found["QLinearAdd"] == 8
    assert found["QuantizeLinear"] == 1  # of the pixels


def test_filters_answer_flat_pictures_as_before(fp32: ModelProto, int8: ModelProto) -> None:
    whole = from_bytes(fp32)
    assert whole is not None
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    rounded = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    name = backbone_convolutions(whole)[0].input[1]
    scale = rounded[f"{name}_scale"]
    back = rounded[f"{name}_code"] * scale[:, None, None, None]
    gap = np.abs(back.sum((2, 3)) - weights[name].sum((2, 3)))
    assert (gap <= 0.51 * scale[:, None]).all()


def test_int8_stays_close(fp32: ModelProto, int8: ModelProto) -> None:
    tiles = some_tiles(count=48)[24:]
    wanted = run(fp32.SerializeToString(), tiles)
    for graph in (int8.SerializeToString(), signed(int8.SerializeToString())):
        for found, target in zip(run(graph, tiles), wanted, strict=True):
            rms = np.sqrt(((found - target) ** 2).mean(axis=0))
            assert (rms > 0).all() and (rms < 0.1 * target.std(axis=0)).all()


def test_a_large_stem_with_pooling_is_quantised_too(tmp_path: Path) -> None:
    made = to_int8(network(72), some_tiles(72, 4))
    found = optimised(made, tmp_path / "optimised.onnx")
    assert found["QLinearConv"] == 20 and found["NhwcMaxPool"] == 1


def test_a_first_convolution_that_reads_no_bytes_stays_in_float(fp32: ModelProto, tmp_path: Path) -> None:
    model = ModelProto()
    model.CopyFrom(fp32)
    first = backbone_convolutions(model)[0]
    place = list(model.graph.node).index(first)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int64), "no_pads"))
    model.graph.node.insert(
        place, onnx.helper.make_node("Pad", [first.input[0], "no_pads"], ["padded"], "pad")
    )
    model.graph.node[place + 1].input[0] = "padded"
    assert from_bytes(model) is None
    found = optimised(to_int8(model, some_tiles()), tmp_path / "optimised.onnx")
    assert found["QLinearConv"] == 19 and found["QLinearAdd"] == 8


def test_tensorrt_gets_signed_bytes_about_zero_and_float_biases(int8: ModelProto) -> None:
    model = onnx.load_model_from_string(signed(int8.SerializeToString()))
    onnx.checker.check_model(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    kinds = {tensor.data_type for tensor in tensors.values()}
    assert not kinds & {TensorProto.UINT8, TensorProto.INT32}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert not numpy_helper.to_array(tensors[node.input[2]]).any()
        if node.op_type == "QuantizeLinear":
            assert made[node.input[0]].op_type != "Conv"
        if node.op_type == "Conv" and len(node.input) > 2:
            assert tensors[node.input[2]].data_type == TensorProto.FLOAT
    scale = {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert numpy_helper.to_array(tensors[scale["bytes"]]) == 1
