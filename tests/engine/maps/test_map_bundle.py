"""Map bundles: what is whole loads and answers; what was altered or made to harm is refused with its reason."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from map_scene import PREDICTORS, network, write_bundle
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from lithostream.engine.bundle import GOLDEN, MANIFEST, MODEL
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import MAP_ROWS, OPSET, check_graph
from lithostream.engine.maps.bundle import is_map_bundle, load_map_bundle
from lithostream.engine.maps.session import BATCH, MapSession

MUTATIONS = 300
TREE: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0],
    "nodes_nodeids": [0, 1, 2, 3, 4],
    "nodes_featureids": [1, 0, 0, 0, 0],
    "nodes_values": [0.5, 0.0, -1.0, 0.0, 0.0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 3, 0, 0],
    "nodes_falsenodeids": [2, 0, 4, 0, 0],
    "target_treeids": [0, 0, 0],
    "target_nodeids": [1, 3, 4],
    "target_ids": [0, 0, 0],
    "target_weights": [0.1, 0.4, 0.9],
    "n_targets": 1,
}


@pytest.fixture
def copy(map_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(map_bundle, tmp_path / "bundle"))


def seal(bundle: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return bundle


def forest(columns: int = 2, **changed: Any) -> ModelProto:
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            ["predictors"],
            ["scores"],
            "trees",
            domain="ai.onnx.ml",
            **TREE | changed,
        ),
        helper.make_node("Squeeze", ["scores", "axis"], ["probability"]),
        helper.make_node("Mul", ["probability", "zero"], ["uncertainty"]),
        helper.make_node("Mul", ["uncertainty", "zero"], ["distance"]),
    ]
    given = ("probability", "uncertainty", "distance")
    graph = helper.make_graph(
        nodes,
        "map",
        [helper.make_tensor_value_info("predictors", TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in given],
        [numpy_helper.from_array(np.array([1]), "axis"), numpy_helper.from_array(np.zeros(1, "f4"), "zero")],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_a_whole_bundle_answers_its_golden_rows(map_bundle: Path) -> None:
    bundle = load_map_bundle(map_bundle)
    found = MapSession(bundle).infer(bundle.golden_rows)
    np.testing.assert_allclose(found.probability, bundle.golden_probability, atol=1e-6)
    assert (found.uncertainty > 0).all() and (found.distance > 0).all()
    assert is_map_bundle(map_bundle)
    assert bundle.sha256 == hashlib.sha256((map_bundle / MANIFEST).read_bytes()).hexdigest()


def test_a_core_bundle_is_none_of_maps(bundle_path: Path) -> None:
    assert not is_map_bundle(bundle_path)
    with pytest.raises(BundleError, match="map"):
        load_map_bundle(bundle_path)


def test_a_row_is_answered_alike_at_its_place_in_any_batch(
    map_bundle: Path, rng: np.random.Generator
) -> None:
    session = MapSession(load_map_bundle(map_bundle))
    rows = rng.normal(size=(BATCH + 1500, len(PREDICTORS))).astype(np.float32)
    whole = session.infer(rows)
    for start, stop in ((0, 1), (0, 777), (BATCH, BATCH + 3), (BATCH, len(rows))):
        part = session.infer(np.ascontiguousarray(rows[start:stop]))
        for one, all_ in zip(part, whole, strict=True):
            assert one.tobytes() == all_[start:stop].tobytes()
    assert len(session.infer(rows[:0]).probability) == 0


def test_a_forest_is_read_and_answers_as_its_leaves_say(tmp_path: Path) -> None:
    bundle = load_map_bundle(write_bundle(tmp_path / "b", PREDICTORS[:2], model=forest()))
    rows = np.array([[0, 0.5], [0, 0.6], [-1, 9], [-2, 9]], np.float32)
    np.testing.assert_allclose(MapSession(bundle).infer(rows).probability, [0.1, 0.9, 0.4, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"nodes_falsenodeids": [2, 0, 0, 0, 0]}, "before it"),
        ({"nodes_truenodeids": [1, 0, 2, 0, 0]}, "before it"),
        ({"nodes_falsenodeids": [2, 0, 3, 0, 0]}, "taken"),
        ({"nodes_falsenodeids": [9, 0, 4, 0, 0]}, "not there"),
        ({"nodes_featureids": [7, 0, 0, 0, 0]}, "column 7"),
        ({"nodes_nodeids": [0, 1, 2, 3, 3]}, "share an id"),
        ({"nodes_values": [float("nan"), 0.0, 0.0, 0.0, 0.0]}, "finite"),
        ({"nodes_values": [0.0]}, "long"),
        ({"target_nodeids": [1, 3, 2]}, "no leaf"),
        ({"target_ids": [0, 0, 1]}, "no output"),
        ({"n_targets": 1 << 40}, "outputs"),
        ({"nodes_modes": ["BRANCH_EQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"]}, "BRANCH_EQ"),
    ],
)
def test_a_forest_made_to_harm_is_refused(changed: dict[str, Any], reason: str, copy: Path) -> None:
    (copy / MODEL).write_bytes(forest(7, **changed).SerializeToString())
    seal(copy)
    with pytest.raises(BundleError, match=reason):
        load_map_bundle(copy)


def test_an_operator_of_trees_that_is_not_looked_into_is_refused(copy: Path) -> None:
    model = forest(7)
    model.graph.node[0].op_type = "TreeEnsembleClassifier"
    (copy / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="'TreeEnsembleClassifier' is not among"):
        load_map_bundle(seal(copy))


def test_a_core_bundle_holds_no_trees() -> None:
    with pytest.raises(BundleError, match="custom operators"):
        check_graph(forest().SerializeToString(), Path(MODEL))


def test_names_of_stand_ins_are_refused(copy: Path) -> None:
    model = forest(7)
    model.graph.node.append(helper.make_node("Neg", ["zero"], ["stand-in:scores"]))
    (copy / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="begins with 'stand-in:'"):
        load_map_bundle(seal(copy))


def test_another_domain_is_refused(copy: Path) -> None:
    model = network(7, 7)
    model.graph.node[1].domain = "com.evil"
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    (copy / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="custom operators"):
        load_map_bundle(seal(copy))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["predictors"].append(m["predictors"][0]), "once"),
        (lambda m: m["predictors"].pop(), "golden rows"),
        (lambda m: m.update(threshold=1.5), "less than 1"),
        (lambda m: m.update(colour="red"), "Extra"),
        (lambda m: m.update(schema_version=2), "newer version"),
        (lambda m: m["files"].update({MODEL: "0" * 64}), "SHA-256"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    change: Callable[[dict[str, Any]], object], reason: str, copy: Path
) -> None:
    with pytest.raises(BundleError, match=reason):
        load_map_bundle(seal(copy, change))


def test_golden_rows_are_a_gate(copy: Path) -> None:
    held = load_file(copy / GOLDEN)
    save_file(held | {"probability": 1 - held["probability"]}, copy / GOLDEN)
    bundle = load_map_bundle(seal(copy))
    with pytest.raises(BundleError, match="misses the golden probabilities"):
        MapSession(bundle)


def test_outputs_in_another_order_are_refused(copy: Path) -> None:
    model = onnx.load(copy / MODEL)
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(outputs[::-1])
    (copy / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="takes and gives"):
        load_map_bundle(seal(copy))


def test_no_mutation_of_a_forest_is_met_by_another_error(rng: np.random.Generator) -> None:
    whole = forest(7).SerializeToString()
    refused = 0
    for _ in range(MUTATIONS):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        try:
            check_graph(bytes(content), Path(MODEL), MAP_ROWS)
        except BundleError:
            refused += 1
    assert refused > MUTATIONS / 4
