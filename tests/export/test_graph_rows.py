"""The third output of a dense network: in its graph, equal to torch, and no business of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")

from torch import Tensor, nn

from lithostream.engine.bundle import load_bundle
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import OPSET
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.export.bundle import check_parity
from lithostream.export.golden import golden_tiles
from lithostream.export.graph import to_onnx
from lithostream.training.models.properties import PropertyNet

SIZE = 16
ROWS = 4


class _Dense(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """What HRNet is to the export, small; HRNet itself is exported in tests/training/test_hrnet.py."""

    features, stride = 6, 4

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)


@pytest.fixture(scope="module")
def model() -> PropertyNet:
    torch.manual_seed(3)
    model = PropertyNet(2, 1, SIZE, 0.0)
    model.backbone, model.head = _Dense(), nn.Linear(_Dense.features, 2, bias=False)
    model.embedding_mean, model.whitening = torch.zeros(12), torch.eye(12)
    model.ones = torch.ones(1, 12)
    model.set_normalisation(np.full(3, 128.0), np.full(3, 74.0), np.array([[1.4, 20.0], [2.2, 400.0]]))
    model.eval()
    return model


@pytest.fixture(scope="module")
def graph(model: PropertyNet) -> bytes:
    return to_onnx(model, SIZE)


def _tiles(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def test_graph_declares_rows_and_keeps_its_rules(graph: bytes) -> None:
    found = onnx.load_model_from_string(graph)
    shapes = {
        output.name: [axis.dim_value for axis in output.type.tensor_type.shape.dim][1:]
        for output in found.graph.output
    }
    assert shapes == {"properties": [2], "distance": [], "rows": [ROWS, 2]}
    assert {entry.domain: entry.version for entry in found.opset_import}[""] == OPSET
    assert [node.op_type for node in found.graph.node if "tiles" in node.input] == ["Cast"]


def test_rows_equal_torch_and_average_to_the_properties_for_any_batch(
    model: PropertyNet, graph: bytes
) -> None:
    tiles = _tiles(5)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    properties, _, rows = session.run(None, {"tiles": tiles})
    with torch.no_grad():
        wanted = model.with_rows(torch.from_numpy(tiles))[2].numpy()
    spread = wanted.std(axis=1).mean(axis=0)
    assert np.all(spread > 1e-3 * np.abs(wanted).mean(axis=(0, 1)))
    assert np.all(np.abs(rows - wanted).max(axis=(0, 1)) < 1e-4 * np.abs(wanted).max(axis=(0, 1)))
    np.testing.assert_allclose(rows.mean(axis=1), properties, rtol=1e-5, atol=1e-4)
    single = [session.run(["rows"], {"tiles": tile[None]})[0] for tile in tiles]
    np.testing.assert_array_equal(rows, np.concatenate(single))


def test_two_materials_in_a_tile_give_two_values(model: PropertyNet, graph: bytes) -> None:
    tiles = np.full((1, SIZE, SIZE, 3), 40, np.uint8)
    tiles[:, SIZE // 2 :] = _tiles(1)[:, SIZE // 2 :]
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = session.run(["rows"], {"tiles": tiles})[0][0]
    upside_down = session.run(["rows"], {"tiles": tiles[:, ::-1].copy()})[0][0]
    step = rows[ROWS // 2 :].mean(axis=0) - rows[: ROWS // 2].mean(axis=0)
    turned = upside_down[ROWS // 2 :].mean(axis=0) - upside_down[: ROWS // 2].mean(axis=0)
    assert np.all(np.abs(step) > 0.02 * model.target_std.numpy())
    assert np.all(np.sign(step) == -np.sign(turned))


def test_a_run_takes_the_graph_and_asks_for_what_it_uses(
    model: PropertyNet, graph: bytes, bundle_path: Path
) -> None:
    bundle = load_bundle(bundle_path)
    assert bundle.manifest.input.size_px == SIZE and len(bundle.manifest.outputs) == 2
    tiles = golden_tiles(bundle.manifest.input)
    expected = check_parity(model, graph, tiles)
    session = OnnxRuntimeSession(replace(bundle, model=graph), batch=8, threads=1)
    properties, distance = session.infer(tiles)
    np.testing.assert_array_equal(properties, expected)
    assert distance.shape == (len(tiles),)


@pytest.mark.parametrize(
    ("name", "operator", "kind"),
    [("rows", "Identity", "FLOAT"), ("lines", "Identity", "FLOAT"), ("rows", "Cast", "DOUBLE")],
)
def test_other_outputs_are_refused(bundle_path: Path, name: str, operator: str, kind: str) -> None:
    bundle = load_bundle(bundle_path)
    altered, code = onnx.load_model_from_string(bundle.model), getattr(onnx.TensorProto, kind)
    options = {"to": code} if operator == "Cast" else {}
    altered.graph.node.append(onnx.helper.make_node(operator, ["properties"], [name], **options))
    altered.graph.output.append(onnx.helper.make_tensor_value_info(name, code, ["batch", 2]))
    with pytest.raises(BundleError, match=rf"gives .*'{name}'"):
        OnnxRuntimeSession(replace(bundle, model=altered.SerializeToString()), batch=1, threads=1)


def test_resnet_keeps_its_two_outputs() -> None:
    content = to_onnx(PropertyNet(2, 2, SIZE, 0.0), SIZE)
    names = [output.name for output in onnx.load_model_from_string(content).graph.output]
    assert names == ["properties", "distance"]
