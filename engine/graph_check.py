"""What a bundle's ONNX graph may hold: checked before any runtime sees it."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnx.checker
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from lithostream.engine.errors import BundleError
from lithostream.engine.graph_ml import ML_DOMAIN, ML_OPERATORS, ML_OPSETS, PREFIX
from lithostream.engine.graph_size import FIX, MAX_ELEMENTS, MAX_PRODUCTS, check_sizes, first_line

OPSET = 20
# What the networks of this version and their quantised variants are made of. None repeats, branches or runs
# another graph, so the work of a graph is the sum of its nodes; none makes a tensor from a number alone.
OPERATORS = frozenset(
    [
        "Add",
        "Cast",
        "Concat",
        "Conv",
        "DequantizeLinear",
        "Div",
        "Expand",
        "Gather",
        "Identity",
        "MaxPool",
        "Mul",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "ReduceMean",
        "Relu",
        "Resize",
        "Shape",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    ]
)
# Segment Anything beside that: attention (MatMul, Gemm, Softmax, Reshape into heads), its norms and activations (the
# layer norms of the image's channels as they are, Gelu), sines of coordinates (Sin, Cos), and comparisons: of pixels
# with the edge of the image (Less), of the corners of a box (Greater). ViT adds relative positions (Einsum). None of
# them repeats or branches either.
SEGMENTER_OPERATORS = OPERATORS | {
    "Cos",
    "Einsum",
    "Gelu",
    "Gemm",
    "Greater",
    "LayerNormalization",
    "Less",
    "MatMul",
    "Reshape",
    "Sin",
    "Softmax",
}
# Models of rows of predictors: logarithms, perceptrons, support vectors and sums over members, and from another domain
# ensembles of trees, which `engine.graph_ml` looks into.
MAP_OPERATORS = frozenset(
    [
        "Add",
        "Concat",
        "Div",
        "Exp",
        "Gather",
        "Log",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "ReduceSum",
        "Relu",
        "Sigmoid",
        "Sqrt",
        "Squeeze",
        "Sub",
    ]
)
# HRNet needs about 0.2 MB and 900 nodes, three times as many when quantised.
MAX_STRUCTURE_BYTES = 4 << 20  # all but the weights: parsed, it takes some hundred times as much
MAX_ML_STRUCTURE_BYTES = (
    16 << 20
)  # whose attributes hold the model: ten forests of 500 trees need about 10 MB
MAX_NODES = 10_000
MAX_INTEGER = 1 << 12  # in an attribute: paddings, strides, kernel edges
INPUT, OUTPUTS = "tiles", ("properties", "distance")
MAP_INPUT = "predictors"
FLOATS = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
}  # fmt: skip
INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}
LENGTH_DELIMITED = 2
GRAPH_FIELD, INITIALIZER_FIELD, RAW_DATA_FIELD = 7, 5, 9  # in onnx.proto: of model, graph and tensor


class Rules(NamedTuple):
    """What a graph is held to beside what holds for all.

    Attributes
    ----------
    pixels : str or None
        Input of bytes, which must go into one Cast and nothing else.
    batched : tuple of str
        Inputs whose first axis is the batch.
    operators : frozenset of str
    max_elements, max_products : int
        Of a batch of one.
    max_structure : int
        Bytes beside the weights.
    ml : bool
        Whether operators of the domain ai.onnx.ml may be there too; their input has predictors as columns.
    """

    pixels: str | None
    batched: tuple[str, ...]
    operators: frozenset[str]
    max_elements: int
    max_products: int
    max_structure: int = MAX_STRUCTURE_BYTES
    ml: bool = False


TILES = Rules(INPUT, (INPUT,), OPERATORS, MAX_ELEMENTS, MAX_PRODUCTS)
# ViT-H on 1024 px: some arrays of 16 x 4096 x 4096, and 2^41.3 products.
VIEW = Rules("view", (), SEGMENTER_OPERATORS, 1 << 31, 1 << 42)
# 16 prompts are decoded at once, 64 on a GPU; with 256 channels on 64 x 64, one needs about 2^23 elements and 2^30 products.
PROMPTS = Rules(None, ("points", "boxes"), SEGMENTER_OPERATORS, 1 << 24, 1 << 33)
# Thousands of rows are predicted at once; an ensemble of ten perceptrons needs about 2^11 elements and 2^14 products.
MAP_ROWS = Rules(None, (MAP_INPUT,), MAP_OPERATORS, 1 << 16, 1 << 24, MAX_ML_STRUCTURE_BYTES, ml=True)


def check_graph(model: bytes, file: Path, rules: Rules = TILES) -> ModelProto:
    """Refuse an ONNX graph that is invalid, reaches outside its own file, or could exhaust the machine.

    Raises
    ------
    BundleError
        Naming the node or tensor and the rule.
    """
    graph = _parse(model, file, rules.max_structure)
    if not all(
        isinstance(name, str) for name in _names(graph)
    ):  # protobuf gives bytes that are no text as bytes
        raise BundleError("a name is not valid UTF-8", file=file, fix=FIX)
    if any(str(name).startswith(PREFIX) for name in _names(graph)):
        raise BundleError(f"a name begins with {PREFIX!r}", file=file, fix=FIX)
    _check_structure(graph, file, rules)
    for tensor in graph.graph.initializer:
        _check_tensor(tensor, file)
    try:
        onnx.checker.check_model(graph)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise BundleError(f"not a valid ONNX graph: {first_line(error)}", file=file, fix=FIX) from error
    check_sizes(graph, file, rules.batched, rules.max_elements, rules.max_products)
    return graph


def check_signature(graph: ModelProto, file: Path, tile_shape: tuple[int, int, int], targets: int) -> None:
    """Hold inputs and outputs, their order included, to a tile [S, S, C] and a number of targets.

    Raises
    ------
    BundleError
        The graph takes or gives something else.
    """
    inputs = [_described(value) for value in graph.graph.input]
    outputs = [_described(value) for value in graph.graph.output]
    wanted = [("properties", TensorProto.FLOAT, (targets,)), ("distance", TensorProto.FLOAT, ())]
    if len(outputs) == 3 and outputs[2][0] == "rows" and len(outputs[2][2]) == 2:
        wanted.append(("rows", TensorProto.FLOAT, (outputs[2][2][0], targets)))  # any number of them
    if inputs != [(INPUT, TensorProto.UINT8, tile_shape)] or outputs != wanted:
        raise BundleError(
            f"graph takes {inputs} and gives {outputs} (name, type, shape of one tile), the manifest needs"
            f" {INPUT} of type {TensorProto.UINT8}, {tile_shape}, and {wanted}",
            file=file,
            fix=FIX,
        )


def _described(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int, ...]]:
    kind = value.type.tensor_type
    return value.name, kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim[1:])


def _parse(model: bytes, file: Path, max_structure: int) -> ModelProto:
    try:
        structure = len(model) - _weight_bytes(memoryview(model))
        if structure > max_structure:
            raise BundleError(
                f"{structure} bytes beside the weights, at most {max_structure}", file=file, fix=FIX
            )
        return onnx.load_model_from_string(model)
    except (DecodeError, ValueError) as error:
        raise BundleError("not an ONNX file", file=file, fix=FIX) from error


def _names(model: ModelProto) -> Iterator[object]:
    graph = model.graph
    yield from (entry.domain for entry in model.opset_import)
    yield from (item.name for item in (*graph.initializer, *graph.input, *graph.output))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)


def _weight_bytes(model: memoryview) -> int:
    """Bytes of raw data in initializers, read off the wire so that nothing is parsed that would not fit."""
    return sum(
        len(data)
        for graph in _fields(model, GRAPH_FIELD)
        for tensor in _fields(graph, INITIALIZER_FIELD)
        for data in _fields(tensor, RAW_DATA_FIELD)
    )


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Contents of one length-delimited field of a message (protobuf encoding guide, protobuf.dev)."""
    at, count = 0, 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, start = key & 7, at
        if kind == LENGTH_DELIMITED:
            length, start = _varint(message, at)
            at = start + length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        count += 1
        if at > len(message) or count > MAX_STRUCTURE_BYTES:
            raise ValueError("ends early, or has too many parts")
        if kind == LENGTH_DELIMITED and key >> 3 == wanted:
            yield message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("ends early")
        byte = message[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("varint of more than ten bytes")


def _check_structure(model: ModelProto, file: Path, rules: Rules) -> None:
    def refuse(reason: str, place: str) -> BundleError:
        return BundleError(reason, file=file, place=place, fix=FIX)

    graph = model.graph
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    custom = sorted(
        {node.domain for node in graph.node} - {"", "ai.onnx", *([ML_DOMAIN] if rules.ml else [])}
    )
    if custom:
        raise refuse(f"custom operators of {custom}", "operators")
    if rules.ml:
        opsets = [one for one in opsets if one not in [(ML_DOMAIN, version) for version in ML_OPSETS]]
    if opsets not in ([("", OPSET)], [("ai.onnx", OPSET)]):
        found = dict(opsets).get("", None) if len(opsets) == 1 else opsets
        raise refuse(f"opset is {found}, expected {OPSET}", "opset")
    if model.functions or model.training_info or graph.sparse_initializer:
        raise refuse("holds functions, training graphs or sparse tensors", "graph")
    if len(graph.node) > MAX_NODES:
        raise refuse(f"{len(graph.node)} nodes, at most {MAX_NODES}", "graph")
    users = [node.op_type for node in graph.node if rules.pixels in node.input]
    if rules.pixels is not None and users != ["Cast"]:
        raise refuse(f"input feeds {users}, expected one Cast", rules.pixels)
    for node in graph.node:
        if node.op_type not in (ML_OPERATORS if node.domain == ML_DOMAIN else rules.operators):
            raise refuse(
                f"operator {node.op_type[:80]!r} is not among those of a bundle, of which none repeats, branches or"
                " makes a tensor from a number alone",
                node.name,
            )
        for attribute in node.attribute:
            _check_attribute(attribute, node, file)


def _check_attribute(attribute: AttributeProto, node: NodeProto, file: Path) -> None:
    simple = {AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS}
    simple |= {AttributeProto.STRING, AttributeProto.STRINGS}
    place = f"{node.name}.{attribute.name}"
    held = any(
        (attribute.HasField("t"), attribute.HasField("g"), attribute.HasField("sparse_tensor"))
    ) or any((attribute.tensors, attribute.graphs, attribute.sparse_tensors))
    if attribute.type not in simple or held or attribute.ref_attr_name:
        raise BundleError(
            "an attribute holds a tensor, a graph or a reference: weights belong into initializers",
            file=file,
            place=place,
            fix=FIX,
        )
    counted = node.domain == ML_DOMAIN  # which has identifiers there, and checks of its own
    if not counted and any(abs(value) > MAX_INTEGER for value in (attribute.i, *attribute.ints)):
        raise BundleError(f"a number beyond {MAX_INTEGER}", file=file, place=place, fix=FIX)


def _check_tensor(tensor: TensorProto, file: Path) -> None:
    def refuse(reason: str) -> BundleError:
        return BundleError(reason, file=file, place=tensor.name, fix=FIX)

    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise refuse("weights lie outside the file")
    if tensor.data_type not in FLOATS | INTEGERS:
        raise refuse(f"weights of type {tensor.data_type}")
    if len(tensor.dims) > 8 or any(not 0 <= dim <= MAX_ELEMENTS for dim in tensor.dims):
        raise refuse(f"declares the shape {list(tensor.dims)[:8]}")
    if tensor.HasField("raw_data"):
        held = len(tensor.raw_data) / onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    else:
        held = (
            len(tensor.float_data) + len(tensor.int32_data) + len(tensor.int64_data) + len(tensor.double_data)
        )
    if held != math.prod(tensor.dims):
        raise refuse(f"declares the shape {list(tensor.dims)} and holds {held:g} numbers")
    try:
        values = numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        raise refuse(f"weights cannot be read: {first_line(error)}") from error
    if tensor.data_type in FLOATS and not np.isfinite(values).all():
        raise refuse("weights are not finite numbers")
