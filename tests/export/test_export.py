import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")

from safetensors.torch import load_file, save_file

from lithostream.engine.bundle import FILES, MANIFEST, load_bundle
from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.errors import BundleError
from lithostream.engine.inference import open_session
from lithostream.export.bundle import check_parity, export_bundle
from lithostream.export.golden import golden_tiles
from lithostream.export.graph import check_rules, to_onnx
from lithostream.training.checkpoint import WEIGHTS, load_checkpoint
from lithostream.training.fit import predict


def test_a_bundle_is_whole_and_gives_what_torch_gives(
    bundle_path: Path, checkpoint: Path, rng: np.random.Generator
) -> None:
    bundle = load_bundle(bundle_path)
    assert {path.name for path in bundle_path.iterdir()} == {MANIFEST, *FILES}
    model, record = load_checkpoint(checkpoint)
    tiles = rng.integers(60, 200, (37, 16, 16, 3), np.uint8)
    properties, distance = open_session(bundle, batch=8, threads=1).infer(tiles)
    wanted = predict(model, tiles)
    assert np.ptp(wanted.properties, axis=0).min() > 0
    np.testing.assert_allclose(properties, wanted.properties, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distance, wanted.distance, rtol=1e-4)
    assert bundle.targets == record.config.targets


def test_the_manifest_says_where_the_bundle_comes_from(bundle_path: Path, checkpoint: Path) -> None:
    manifest = load_bundle(bundle_path).manifest
    _, record = load_checkpoint(checkpoint)
    assert manifest.domain.scanners == ("lithostream synthetic",)
    assert manifest.domain.px_per_cm == pytest.approx((16 * 0.9, 20 * 1.1))
    data = manifest.training["data"]
    assert isinstance(data, list) and len(data) == 6  # an image and a log of each core
    assert [output.half_width_90 for output in manifest.outputs] == [
        record.metrics[name].half_width_90 for name in record.config.targets
    ]
    assert load_endmembers(bundle_path / "endmembers.csv").names == record.config.minerals


def test_no_trace_of_the_exporting_machine_is_left(bundle_path: Path) -> None:
    content = (bundle_path / "model.onnx").read_bytes()
    for trace in (b".py", b"/work", b"/home", b"/tmp", b"site-packages", b"torch"):
        assert trace not in content
    graph = onnx.load_model_from_string(content)
    assert not graph.metadata_props and not graph.graph.metadata_props
    assert all(not node.doc_string and not node.metadata_props for node in graph.graph.node)
    assert graph.opset_import[0].version == 20


def test_the_input_feeds_one_cast_and_the_batch_is_free(bundle_path: Path) -> None:
    graph = onnx.load(bundle_path / "model.onnx").graph
    assert [node.op_type for node in graph.node if "tiles" in node.input] == ["Cast"]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    batch = shapes["tiles"][0]
    assert isinstance(batch, str)
    assert shapes == {"tiles": [batch, 16, 16, 3], "properties": [batch, 2], "distance": [batch]}


def test_exporting_twice_gives_equal_files(bundle_path: Path, checkpoint: Path, tmp_path: Path) -> None:
    again = export_bundle(checkpoint, tmp_path / "again")
    for path in bundle_path.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_weights_that_are_no_numbers_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken", tmp_path / "out"
    shutil.copytree(checkpoint, broken)
    weights = load_file(broken / WEIGHTS)
    weights["head.weight"][0, 0] = float("nan")
    save_file(weights, broken / WEIGHTS)
    with pytest.raises(BundleError, match=r"head\.weight: weights are not finite"):
        export_bundle(broken, out)
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_graph_that_does_not_match_the_weights_is_refused(checkpoint: Path) -> None:
    model, record = load_checkpoint(checkpoint)
    graph = to_onnx(model, record.config.tile.size_px)
    tiles = golden_tiles(record.config.tile.as_input())
    assert check_parity(model, graph, tiles).shape == (len(tiles), 2)
    with torch.no_grad():
        model.colour_head.bias += 0.1
    with pytest.raises(BundleError, match="differs from torch"):
        check_parity(model, graph, tiles)


def test_an_input_used_by_anything_but_a_cast_is_refused(bundle_path: Path) -> None:
    model = onnx.load(bundle_path / "model.onnx")
    model.graph.node.append(onnx.helper.make_node("Identity", ["tiles"], ["extra"]))
    with pytest.raises(BundleError, match="expected one Cast"):
        check_rules(model)


def test_another_opset_is_refused(bundle_path: Path) -> None:
    model = onnx.load(bundle_path / "model.onnx")
    model.opset_import[0].version = 19
    with pytest.raises(BundleError, match="opset is 19, expected 20"):
        check_rules(model)


def test_an_existing_folder_is_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(BundleError, match="exists already"):
        export_bundle(checkpoint, tmp_path)
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_golden_tiles_are_generated_and_hold_the_extremes(checkpoint: Path) -> None:
    _, record = load_checkpoint(checkpoint)
    tiles = golden_tiles(record.config.tile.as_input())
    assert 16 <= len(tiles) <= 32
    flat = [int(tile.flat[0]) for tile in tiles if np.ptp(tile) == 0]
    assert {0, 255} <= set(flat)
    assert np.array_equal(tiles, golden_tiles(record.config.tile.as_input()))


def test_a_folder_that_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        export_bundle(tmp_path, tmp_path / "out")
