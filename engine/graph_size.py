"""What memory and work an ONNX graph can ask for, told from shapes before any runtime sees it."""

import math
from collections.abc import Collection
from pathlib import Path

import onnx
import onnx.shape_inference
from google.protobuf.message import EncodeError
from onnx import GraphProto, ModelProto, NodeProto

from lithostream.engine.errors import BundleError
from lithostream.engine.graph_ml import ML_DOMAIN, check_ml_node, comparisons, stand_in

# HRNet-W32 on tiles of 1024 px needs about 2^26 live elements and 2^38 products.
MAX_ELEMENTS = 1 << 27  # alive at once, of one tile
MAX_PRODUCTS = 1 << 40  # of one tile
SHAPE_VALUES = 64  # initializers up to here may be shapes and scales, which inference needs to see
FIX = "export the bundle again; do not use a model from a source you do not trust"


def check_sizes(
    model: ModelProto,
    file: Path,
    batched: Collection[str],
    max_elements: int = MAX_ELEMENTS,
    max_products: int = MAX_PRODUCTS,
) -> None:
    """Bound memory and work of a tile, and prove that both grow at most with the batch.

    Parameters
    ----------
    batched : collection of str
        Inputs whose first axis is the batch.
    max_elements, max_products : int
        Alive at once and in all, of a batch of one.

    Shapes may not depend on the values of pixels: each must follow from the input's shape alone.

    Raises
    ------
    BundleError
        Naming the value, or the limit.
    """
    one, two = (_shapes(model, batched, batch, file) for batch in (1, 2))
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name not in one or name not in two:
                raise BundleError("has no shape that can be told beforehand", file=file, place=name, fix=FIX)
            if math.prod(two[name]) not in (math.prod(one[name]), 2 * math.prod(one[name])):
                raise BundleError("grows faster than the batch", file=file, place=name, fix=FIX)
        _check_channels(node, one, file)
        if node.domain == ML_DOMAIN:
            check_ml_node(node, one.get(node.input[0], ()), file)
    alive, products = _live_elements(model.graph, one), _products(model.graph, one)
    for found, limit, what in (
        (alive, max_elements, "elements at once"),
        (products, max_products, "products"),
    ):
        if found > limit:
            raise BundleError(
                f"a tile takes {found} {what}, at most {limit}", file=file, place="graph", fix=FIX
            )


def _check_channels(node: NodeProto, shapes: dict[str, tuple[int, ...]], file: Path) -> None:
    """Hold a convolution's input to its weights, which ONNX leaves to the runtime."""
    if node.op_type != "Conv":
        return
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    image, weights = (shapes.get(name, ()) for name in node.input[:2])
    if len(image) < 3 or len(weights) != len(image) or image[1] != weights[1] * groups:
        raise BundleError(
            f"convolution of {image} by {weights}, {groups} groups", file=file, place=node.name, fix=FIX
        )


def _shapes(
    model: ModelProto, batched: Collection[str], batch: int, file: Path
) -> dict[str, tuple[int, ...]]:
    """Shape of each value for a batch, inferred from the input alone: what the file claims is not believed."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "graph"
    for node in model.graph.node:
        if node.domain == ML_DOMAIN:
            node, columns = stand_in(node, file)
            light.graph.initializer.append(columns)
        light.graph.node.append(node)
    light.graph.input.extend(model.graph.input)
    for value in light.graph.input:
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_value = batch if place == 0 and value.name in batched else dim.dim_value
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= SHAPE_VALUES:
            light.graph.initializer.append(tensor)
        else:  # only its shape matters
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    light.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    try:
        found = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, EncodeError, ValueError, RuntimeError) as error:
        raise BundleError(f"shapes do not fit: {first_line(error)}", file=file, fix=FIX) from error
    values = [*found.graph.value_info, *found.graph.output, *found.graph.input]
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    known = {
        name: tuple(dim.dim_value for dim in dims)
        for name, dims in shapes.items()
        if all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims)
    }
    return known | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def _live_elements(graph: GraphProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Most elements of values that are alive together when nodes run in their order."""
    last = {name: place for place, node in enumerate(graph.node) for name in (*node.input, *node.output)}
    last |= {value.name: len(graph.node) for value in graph.output}
    ending: dict[int, int] = {}
    alive = most = 0
    for place, node in enumerate(graph.node):
        for name in filter(None, node.output):
            size = math.prod(shapes[name])
            alive += size
            ending[last[name]] = ending.get(last[name], 0) + size
        most = max(most, alive)
        alive -= ending.get(place, 0)
    return most


def _products(graph: GraphProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiplications of convolutions and matrices, and comparisons of pooling."""
    total = 0
    for node in graph.node:
        size = math.prod(shapes[node.output[0]])
        if node.domain == ML_DOMAIN:
            total += comparisons(node)
        elif node.op_type == "Conv":
            total += size * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul":
            total += size * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":  # the longer axis, should the first matrix be transposed
            total += size * max(shapes[node.input[0]])
        for attribute in node.attribute:
            if node.op_type == "Einsum":
                total += _letters(attribute.s.decode(errors="replace"), [shapes[name] for name in node.input])
            if node.op_type == "MaxPool" and attribute.name == "kernel_shape":
                total += size * math.prod(attribute.ints)
    return total


def _letters(equation: str, taken: list[tuple[int, ...]]) -> int:
    """Products of an Einsum: one for each value that its letters can take together."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if [len(term) for term in terms] != [
        len(dims) for dims in taken
    ] or "." in equation:  # axes without a letter
        return math.prod(math.prod(dims) for dims in taken)
    sizes = {
        letter: n
        for term, dims in zip(terms, taken, strict=True)
        for letter, n in zip(term, dims, strict=True)
    }
    return math.prod(sizes.values())


def first_line(error: Exception) -> str:
    """First line of a library's message, shortened: a hostile name in it may be of any length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
