"""Graphs and manifests made to harm: each is refused with its reason, before a runtime sees it."""

import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from lithostream.engine.bundle import GOLDEN, MANIFEST, MODEL, load_bundle
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import MAX_NODES, MAX_STRUCTURE_BYTES, check_graph

FILE = Path("model.onnx")
MUTATIONS = 400
FUZZ = Path(__file__).with_name("hostile_fuzz.py")


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture
def model(bundle_path: Path) -> ModelProto:
    return onnx.load(bundle_path / MODEL)


def seal(bundle: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Write true checksums, so that only the change itself can be at fault."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def put(bundle: Path, model: ModelProto) -> Path:
    (bundle / MODEL).write_bytes(model.SerializeToString())
    seal(bundle)
    return bundle


def add(model: ModelProto, operator: str, inputs: list[str], **attributes: Any) -> None:
    node = helper.make_node(operator, inputs, [f"{operator}_out"], f"{operator}_node", **attributes)
    model.graph.node.append(node)


def constant(model: ModelProto, name: str, values: Any, kind: type = np.int64) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, kind), name))
    return name


def _outside(tensor: TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "symlink", "hardlink"])
def test_weights_outside_the_file_are_refused(copy: Path, model: ModelProto, place: str) -> None:
    secret = copy.parent / "secret"
    secret.write_bytes(model.graph.initializer[0].raw_data)
    (copy / "symlink").symlink_to(secret)
    os.link(secret, copy / "hardlink")
    _outside(model.graph.initializer[0], place)
    with pytest.raises(BundleError, match="weights lie outside the file"):
        load_bundle(put(copy, model))


def test_weights_outside_the_file_are_refused_wherever_they_hide(model: ModelProto) -> None:
    def refused(words: str) -> None:
        with pytest.raises(BundleError, match=words):
            check_graph(changed.SerializeToString(), FILE)

    tensor = numpy_helper.from_array(np.ones(3, np.float32), "hidden")
    _outside(tensor, "../secret")
    changed = ModelProto.FromString(model.SerializeToString())
    add(changed, "Constant", [], value=tensor)
    refused("operator 'Constant'")
    changed = ModelProto.FromString(model.SerializeToString())
    add(changed, "Relu", ["div"], value=tensor)
    refused("an attribute holds a tensor, a graph or a reference")
    changed = ModelProto.FromString(model.SerializeToString())
    sparse = changed.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    refused("sparse tensors")
    changed = ModelProto.FromString(model.SerializeToString())
    inner = helper.make_graph([], "inner", [], [], [tensor])
    add(changed, "Relu", ["div"], body=inner)
    refused("an attribute holds a tensor, a graph or a reference")
    changed = ModelProto.FromString(model.SerializeToString())
    changed.functions.add().name = "hidden"
    refused("holds functions")


@pytest.mark.parametrize(
    "operator", ["Loop", "Scan", "If", "ConstantOfShape", "Range", "Tile", "RandomNormal"]
)
def test_operators_that_repeat_or_make_tensors_are_refused(model: ModelProto, operator: str) -> None:
    add(model, operator, ["val_2"])
    with pytest.raises(BundleError, match=f"operator '{operator}' is not among"):
        check_graph(model.SerializeToString(), FILE)


def expand(model: ModelProto) -> None:
    add(model, "Expand", ["div", constant(model, "shape", [1 << 10, 1 << 10, 1, 3, 32, 32])])


def pad(model: ModelProto) -> None:
    add(model, "Pad", ["div", constant(model, "pads", [0, 0, 0, 0, 0, 0, 1 << 30, 0])])


def resize(model: ModelProto) -> None:
    add(model, "Resize", ["div", "", constant(model, "scales", [1, 1, 1 << 10, 1 << 10], np.float32)])


def expand_a_constant(model: ModelProto) -> None:  # which ONNX Runtime would do when it opens
    add(model, "Expand", ["val_3", constant(model, "shape", [1 << 29])])


def many_large(model: ModelProto) -> None:
    shape, names = constant(model, "shape", [1, 3, 1 << 12, 1 << 12]), []
    flat = constant(model, "flat", np.ones((1, 3, 1, 1)), np.float32)
    for i in range(4):
        names.append(f"large{i}")
        model.graph.node.append(helper.make_node("Expand", [flat, shape], [names[-1]]))
    add(model, "Concat", names, axis=1)


@pytest.mark.parametrize("change", [expand, pad, resize, expand_a_constant, many_large])
def test_tensors_beyond_memory_are_refused_before_they_exist(
    copy: Path, model: ModelProto, change: Callable[[ModelProto], None]
) -> None:
    change(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match=r"a tile takes \d+ elements at once"):
        load_bundle(put(copy, model))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_tensors_that_grow_with_the_square_of_the_batch_are_refused(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Shape", ["properties"], ["size"], start=0, end=1))
    add(model, "Concat", ["size", "size"], axis=0)
    add(model, "Expand", ["val_3", "Concat_out"])
    with pytest.raises(BundleError, match="Expand_out: grows faster than the batch"):
        check_graph(model.SerializeToString(), FILE)


def test_shapes_that_depend_on_pixels_are_refused(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["distance"], ["size"], to=TensorProto.INT64))
    add(model, "Expand", ["val_3", "size"])
    with pytest.raises(BundleError, match="Expand_out: has no shape that can be told beforehand"):
        check_graph(model.SerializeToString(), FILE)


def test_work_without_end_is_refused(model: ModelProto) -> None:
    edge = 2000
    add(model, "MaxPool", ["div"], kernel_shape=[edge, edge], pads=[edge - 1] * 4)
    with pytest.raises(BundleError, match=r"a tile takes \d+ products"):
        check_graph(model.SerializeToString(), FILE)
    model.graph.node[-1].attribute[0].ints[:] = [1 << 40, 1]
    with pytest.raises(BundleError, match="a number beyond 4096"):
        check_graph(model.SerializeToString(), FILE)


def test_too_many_nodes_are_refused_and_too_many_bytes_are_not_parsed(model: ModelProto) -> None:
    many = ModelProto.FromString(model.SerializeToString())
    many.graph.node.extend(helper.make_node("Relu", ["div"], [f"r{i}"]) for i in range(MAX_NODES))
    with pytest.raises(BundleError, match=f"nodes, at most {MAX_NODES}"):
        check_graph(many.SerializeToString(), FILE)
    model.graph.doc_string = "x" * MAX_STRUCTURE_BYTES
    with pytest.raises(BundleError, match="bytes beside the weights"):
        check_graph(model.SerializeToString(), FILE)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64])
def test_weights_that_are_no_numbers_are_refused(model: ModelProto, kind: type) -> None:
    constant(model, "bad", [1, math.inf], kind)
    with pytest.raises(BundleError, match="bad: weights are not finite numbers"):
        check_graph(model.SerializeToString(), FILE)


@pytest.mark.parametrize(
    ("dims", "words"), [([1 << 40], "declares the shape"), ([-1], "declares the shape"), ([999], "holds")]
)
def test_weights_of_another_size_than_declared_are_refused(
    model: ModelProto, dims: list[int], words: str
) -> None:
    model.graph.initializer[0].dims[:] = dims
    with pytest.raises(BundleError, match=words):
        check_graph(model.SerializeToString(), FILE)


def test_names_that_are_no_text_are_refused(model: ModelProto) -> None:
    content = model.SerializeToString().replace(b"node_relu_3", b"node_\xff\xfelu_3")
    with pytest.raises(BundleError, match="a name is not valid UTF-8"):
        check_graph(content, FILE)


def swapped_outputs(model: ModelProto) -> None:
    first, second = model.graph.output
    held = onnx.ValueInfoProto.FromString(first.SerializeToString())
    first.CopyFrom(second)
    second.CopyFrom(held)


def renamed_output(model: ModelProto) -> None:
    add(model, "Identity", ["distance"])
    model.graph.output[1].name = "Identity_out"


def wider_tile(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 33


def float_tile(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def false_output(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


@pytest.mark.parametrize("change", [swapped_outputs, renamed_output, wider_tile, float_tile, false_output])
def test_other_inputs_and_outputs_are_refused(
    copy: Path, model: ModelProto, change: Callable[[ModelProto], None]
) -> None:
    change(model)
    with pytest.raises(BundleError, match=r"graph takes|shapes do not fit|not a valid ONNX graph"):
        load_bundle(put(copy, model))


@pytest.mark.parametrize("length", [0, 1, 100, 50_000, -1])
def test_a_truncated_graph_is_refused(copy: Path, length: int) -> None:
    content = (copy / MODEL).read_bytes()
    (copy / MODEL).write_bytes(content[:length])
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
    seal(copy)
    with pytest.raises(BundleError, match=r"not an ONNX file|opset is|not a valid|expected one Cast"):
        load_bundle(copy)


def test_a_newer_bundle_asks_for_a_newer_version(copy: Path) -> None:
    seal(copy, lambda manifest: manifest.update(schema_version=2, unheard_of={}))
    with pytest.raises(BundleError, match=r"bundle of schema 2, this version reads 1 .*newer version"):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("golden_tolerance", 1e300),
        ("golden_tolerance", math.inf),
        ("input.size_px", 1 << 40),
        ("domain.distance_limit", math.nan),
        ("domain.px_per_cm", [0, math.inf]),
        ("outputs.0.half_width_90", -1),
        ("variants", [{"precision": "int8", "golden_tolerance": 5.0}]),
        ("variants", [{"precision": "fp64", "golden_tolerance": 0.1}]),
    ],
)
def test_absurd_numbers_in_a_manifest_are_refused(copy: Path, place: str, value: object) -> None:
    def change(manifest: dict[str, Any]) -> None:
        *outer, last = place.split(".")
        for part in outer:
            manifest = manifest[int(part)] if part.isdigit() else manifest[part]  # type: ignore[index]
        manifest[last] = value

    seal(copy, change)
    with pytest.raises(BundleError, match=place.split(".")[0]):
        load_bundle(copy)


def test_variants_are_hashed_and_checked_like_the_model(copy: Path) -> None:
    def named(*precisions: str) -> Callable[[dict[str, Any]], object]:
        entries = [{"precision": precision, "golden_tolerance": 0.5} for precision in precisions]
        return lambda manifest: manifest.update(variants=entries)

    seal(copy, named("fp16"))
    with pytest.raises(BundleError, match=r"model\.fp16\.onnx: not a regular file"):
        load_bundle(copy)
    shutil.copy(copy / MODEL, copy / "model.fp16.onnx")
    with pytest.raises(BundleError, match=r"model\.fp16\.onnx: SHA-256"):
        load_bundle(copy)
    seal(copy, lambda manifest: manifest["files"].update({"model.fp16.onnx": ""}))
    seal(copy)
    bundle = load_bundle(copy)
    assert bundle.graph("fp16") == bundle.graph() == bundle.model
    assert (bundle.tolerance("fp16"), bundle.tolerance()) == (0.5, bundle.manifest.golden_tolerance)
    with pytest.raises(BundleError, match="has no int8 graph, only fp32, fp16"):
        bundle.graph("int8")
    seal(copy, named("fp16", "fp16"))
    with pytest.raises(BundleError, match="named twice"):
        load_bundle(copy)
    altered = onnx.load(copy / "model.fp16.onnx")
    add(altered, "Loop", ["val_2"])
    (copy / "model.fp16.onnx").write_bytes(altered.SerializeToString())
    seal(copy, named("fp16"))
    with pytest.raises(BundleError, match=r"model\.fp16\.onnx: .*operator 'Loop'"):
        load_bundle(copy)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(copy: Path) -> None:
    (copy / MODEL).unlink()
    os.mkfifo(copy / MODEL)
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(copy)


def test_golden_cases_of_no_shape_are_refused(copy: Path) -> None:
    save_file({"tiles": np.array(1, np.uint8), "properties": np.ones((1, 3), np.float32)}, copy / GOLDEN)
    seal(copy)
    with pytest.raises(BundleError, match="golden tiles are uint8"):
        load_bundle(copy)


def test_no_mutation_of_the_graph_crashes_or_passes_unproven(bundle_path: Path, tmp_path: Path) -> None:
    """In another process: a crash of a runtime would be a finding, not the end of the tests."""
    done = subprocess.run(
        [sys.executable, str(FUZZ), str(bundle_path), str(tmp_path), str(MUTATIONS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert sum(outcome.values()) == MUTATIONS
    assert outcome["refused"] > 50 and outcome["served"] > 10  # the mutations reach both sides of the gate
