"""fp16 and int8: what changes its precision, what does not, and what is not let through."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")

from onnx import ModelProto, TensorProto
from typer.testing import CliRunner

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.cli import app
from lithostream.engine.errors import BundleError
from lithostream.engine.manifest import Precision
from lithostream.export.backbone import backbone_convolutions, backbone_nodes
from lithostream.export.bundle import export_bundle
from lithostream.export.golden import golden_tiles
from lithostream.export.graph import check_rules, to_onnx
from lithostream.export.int8 import to_int8
from lithostream.export.variants import (
    GOLDEN_MARGIN,
    LIMITS,
    Oracle,
    golden_deviation,
    held_deviations,
    make_variant,
    to_fp16,
)
from lithostream.training.checkpoint import CALIBRATION, load_calibration, load_checkpoint
from lithostream.training.models.properties import PropertyNet

PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")


@pytest.fixture(scope="module")
def varied(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("varied") / "bundle"
    arguments = ["export", str(checkpoint), "--out", str(out), "--precision", "fp16", "--precision", "int8"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return load_bundle(out)


@pytest.fixture(scope="module")
def oracle(checkpoint: Path, varied: Bundle) -> Oracle:
    _, record = load_checkpoint(checkpoint)
    scale = {name: record.metrics[name].half_width_90 for name in varied.targets}
    scale["distance"] = record.distance_limit
    tiles = load_calibration(checkpoint, record)
    return Oracle(varied.model, scale, tiles, golden_tiles(varied.manifest.input))


def kinds(model: ModelProto) -> dict[str, int]:
    known = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*known.graph.value_info, *known.graph.input, *known.graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_a_bundle_holds_the_variants_it_was_asked_for(varied: Bundle, bundle_path: Path) -> None:
    assert {path.name for path in varied.path.iterdir()} == {
        *(path.name for path in bundle_path.iterdir()), "model.fp16.onnx", "model.int8.onnx"
    }  # fmt: skip
    assert varied.model == load_bundle(bundle_path).model
    assert tuple(variant.precision for variant in varied.manifest.variants) == PRECISIONS
    assert b'"variants"' not in (bundle_path / "bundle.json").read_bytes()
    for precision in PRECISIONS:
        # In a network this narrow the names of nodes outweigh its bytes.
        assert len(varied.graph(precision)) < {"fp16": 0.7, "int8": 0.8}[precision] * len(varied.model)
        signature = [
            [(value.name, value.type) for value in (*session.get_inputs(), *session.get_outputs())]
            for session in (
                ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
                for graph in (varied.model, varied.graph(precision))
            )
        ]
        assert signature[0] == signature[1]


def test_the_manifest_states_how_far_a_variant_is_from_fp32(varied: Bundle, oracle: Oracle) -> None:
    figures = varied.manifest.metrics["variants"]
    assert isinstance(figures, dict) and tuple(figures) == PRECISIONS
    for precision in PRECISIONS:
        found = held_deviations(varied.graph(precision), oracle)
        assert tuple(found) == (*varied.targets, "distance")
        stated = figures[precision]
        for name, (largest, rms) in found.items():
            assert 0 < rms <= largest <= LIMITS[precision].max and rms <= LIMITS[precision].rms
            assert stated["share_of_half_width_90"][name] == pytest.approx({"max": largest, "rms": rms})
        golden = golden_deviation(varied.graph(precision), oracle)
        assert stated["golden_deviation"] == pytest.approx(golden)
        assert GOLDEN_MARGIN * golden <= varied.tolerance(precision) * (1 + 1e-6)
        assert stated["held_tiles"] == len(oracle.tiles) // 2


def test_exporting_variants_twice_gives_equal_files(varied: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    again = load_bundle(export_bundle(checkpoint, tmp_path / "again", PRECISIONS))
    assert again.sha256 == varied.sha256


def test_fp16_is_for_the_backbone_alone(varied: Bundle) -> None:
    model, half = onnx.load_model_from_string(varied.model), onnx.load_model_from_string(varied.graph("fp16"))
    inside, found = {node.name for node in backbone_nodes(model)}, kinds(half)
    assert len(backbone_convolutions(model)) == 20
    for node in half.graph.node:
        wanted = TensorProto.FLOAT16 if node.name in inside else TensorProto.FLOAT
        if node.op_type != "Cast":
            assert {found[name] for name in node.output} == {wanted}, node.name
    operators = Counter(node.op_type for node in model.graph.node if node.name in inside)
    assert operators == {"Conv": 20, "Relu": 17, "Add": 8}
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert len(casts) == 3  # of the bytes, into the backbone and out of it


def test_no_trace_of_the_exporting_machine_is_left(varied: Bundle) -> None:
    for precision in PRECISIONS:
        for trace in (b".py", b"/work", b"/home", b"/tmp", b"onnx.quantize", b"onnxruntime"):
            assert trace not in varied.graph(precision)


def test_comments_are_refused(varied: Bundle) -> None:
    model = onnx.load_model_from_string(varied.model)
    model.graph.node[3].metadata_props.add(key="trace", value="/home/someone/net.py")
    with pytest.raises(BundleError, match="node_div: holds metadata"):
        check_rules(model)


def test_a_variant_that_deviates_too_far_is_not_written(
    oracle: Oracle, checkpoint: Path, tmp_path: Path
) -> None:
    narrow = {name: value / 1e4 for name, value in oracle.scale.items()}
    for precision in PRECISIONS:
        with pytest.raises(BundleError, match=rf"{precision} deviates from fp32 by up to .* are allowed"):
            make_variant(precision, replace(oracle, scale=narrow))
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    record = (copy / "training.json").read_text()
    width = load_checkpoint(copy)[1].metrics["density"].half_width_90
    (copy / "training.json").write_text(record.replace(f'"half_width_90": {width}', '"half_width_90": 1e-9'))
    with pytest.raises(BundleError, match="density: fp16 deviates"):
        export_bundle(copy, tmp_path / "out", ["fp16"])
    assert not (tmp_path / "out").exists()


def test_weights_beyond_fp16_are_refused(oracle: Oracle) -> None:
    model = onnx.load_model_from_string(oracle.graph)
    place = backbone_convolutions(model)[3].input[1]
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == place)
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1e9)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, place))
    with pytest.raises(BundleError, match="not finite"):
        make_variant("fp16", replace(oracle, graph=model.SerializeToString()))


def test_other_precisions_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no variants of precision fp8 .*known: fp16, int8"):
        export_bundle(checkpoint, tmp_path / "out", ["fp8"])


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_without_calibration_tiles_there_are_no_variants(
    checkpoint: Path, tmp_path: Path, damage: str
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    content = (copy / CALIBRATION).read_bytes()
    (copy / CALIBRATION).unlink()
    if damage == "truncated":
        (copy / CALIBRATION).write_bytes(content[:-1])
    with pytest.raises(BundleError, match="calibration tiles cannot be read"):
        export_bundle(copy, tmp_path / "out", ["int8"])


def test_calibration_tiles_are_spread_over_the_training_set(checkpoint: Path) -> None:
    _, record = load_checkpoint(checkpoint)
    tiles = load_calibration(checkpoint, record)
    assert tiles.shape == (256, 16, 16, 3) and record.tiles > 256
    assert len(np.unique(tiles.reshape(256, -1), axis=0)) == 256


def test_a_wide_stem_and_pooling_are_part_of_the_backbone() -> None:
    torch.manual_seed(1)
    net = PropertyNet(2, 2, 72, 0.0).eval()
    model = onnx.load_model_from_string(to_onnx(net, 72))
    assert Counter(node.op_type for node in backbone_nodes(model))["MaxPool"] == 1
    tiles = np.random.default_rng(2).integers(0, 256, (4, 72, 72, 3), np.uint8)
    wanted = ort.InferenceSession(model.SerializeToString()).run(["properties"], {"tiles": tiles})[0]
    for made in (to_fp16(onnx.load_model_from_string(model.SerializeToString())), to_int8(model, tiles)):
        found = ort.InferenceSession(made.SerializeToString()).run(["properties"], {"tiles": tiles})[0]
        np.testing.assert_allclose(found, wanted, atol=0.05)


def test_normalisation_cannot_be_folded_into_a_padded_convolution() -> None:
    """Padding follows normalisation: zeros there are the mean colour, not black. Inside, folding is exact."""
    torch.manual_seed(1)
    pixels, mean, std = (
        torch.rand(1, 3, 8, 8) * 255,
        torch.tensor([100.0, 120, 90]),
        torch.tensor([50.0, 40, 60]),
    )
    weight = torch.randn(2, 3, 3, 3)
    normalised = (pixels - mean[:, None, None]) / std[:, None, None]
    wanted = torch.nn.functional.conv2d(normalised, weight, padding=1)
    folded = weight / std[:, None, None]
    bias = -(folded * mean[:, None, None]).sum((1, 2, 3))
    found = torch.nn.functional.conv2d(pixels, folded, bias, padding=1)
    gap = (found - wanted).abs()
    assert gap[..., 1:-1, 1:-1].max() < 1e-4
    assert gap.max() > 0.5
