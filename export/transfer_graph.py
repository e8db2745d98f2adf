"""One ONNX graph from the members of a prospectivity model: rows of predictors in, three numbers a row out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lithostream.engine.graph_check import MAP_INPUT, OPSET
from lithostream.engine.graph_ml import ML_DOMAIN, ML_OPSETS
from lithostream.training.transfer.checkpoint import LoadedModel
from lithostream.training.transfer.features import Logarithms
from lithostream.training.transfer.members import Arrays, Kind

IR_VERSION = 10  # of opset 20 and 21


class _Builder:
    """Nodes and constants of a graph, named as they come."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: npt.NDArray[np.generic]) -> str:
        """Put a constant in, float32 but for whole numbers."""
        kind = np.int64 if value.dtype.kind in "iu" else np.float32
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, kind, order="C"), name))
        return name

    def add(self, operator: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """Put a node in and return the name of its output."""
        name = out or f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                operator, inputs, [name], name=f"n{len(self.nodes)}", domain=domain, **attributes
            )
        )
        return name

    def number(self, value: float) -> str:
        """Put a constant of one number in."""
        return self.constant(np.array([value], np.float32))


Linear = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def build_graph(model: LoadedModel, logarithms: Logarithms, components: Linear | None = None) -> ModelProto:
    """Build the graph of a model.

    `predictors` float32 [N, P] to `probability`, `uncertainty` and `distance` float32 [N]: the calibrated mean score of
    the members, the standard deviation between their calibrated scores, and the Mahalanobis distance from the training
    rows in standardised predictors. Logarithms, scaling and components are inside.

    Parameters
    ----------
    model : LoadedModel
    logarithms : Logarithms
    components : (float64 [P, C], float64 [C]), optional
        Matrix and offset that give components: the graph then takes these instead, and begins with the way back.

    Returns
    -------
    ModelProto
        Opset 20, and ai.onnx.ml where a member is made of trees.
    """
    graph = _Builder()
    mean, matrix = model.distance
    rows, columns = MAP_INPUT, len(mean)
    if components is not None:
        forth, offset = components
        columns = len(offset)
        centred = graph.add("Sub", MAP_INPUT, graph.constant(offset))
        rows = graph.add("MatMul", centred, graph.constant(np.linalg.pinv(forth)))
    extended = _extended(graph, rows, logarithms)
    scores = [
        _score(graph, kind, arrays, extended)
        for kind, arrays in zip(model.stored.members, model.members, strict=True)
    ]
    each = graph.add("Concat", *scores, axis=1) if len(scores) > 1 else scores[0]
    weights = graph.constant(model.weights[:, None])
    _outputs(graph, each, weights, model.stored.calibration)
    _distance(graph, rows, mean, matrix)
    return _model(graph, columns)


def _extended(graph: _Builder, rows: str, logarithms: Logarithms) -> str:
    """Predictors and, beside them, sign(x) ln(1 + |x| / scale) of some."""
    if not logarithms.columns:
        return rows
    chosen = graph.add("Gather", rows, graph.constant(np.array(logarithms.columns)), axis=1)
    ratio = graph.add("Div", chosen, graph.constant(np.array(logarithms.scales)))
    zero, one = graph.number(0), graph.number(1)
    sides = [
        graph.add("Log", graph.add("Add", graph.add("Max", side, zero), one))
        for side in (ratio, graph.add("Neg", ratio))
    ]
    return graph.add("Concat", rows, graph.add("Sub", *sides), axis=1)


def _score(graph: _Builder, kind: Kind, arrays: Arrays, extended: str) -> str:
    """Score of one member, [N, 1]."""
    rows = graph.add("MatMul", extended, graph.constant(arrays["matrix"]))
    rows = graph.add("Add", rows, graph.constant(arrays["offset"]))
    if "clip" in arrays:
        clip = float(arrays["clip"])
        rows = graph.add("Max", graph.add("Min", rows, graph.number(clip)), graph.number(-clip))
    if kind == "kernel":
        return _kernel(graph, arrays, rows)
    if kind in ("forest", "boosted"):
        score = _trees(graph, arrays, rows)
        return graph.add("Sigmoid", score) if kind == "boosted" else score
    layers = len([name for name in arrays if name.startswith("weight.")])
    for number in range(layers):
        rows = graph.add("MatMul", rows, graph.constant(arrays[f"weight.{number}"].T))
        rows = graph.add("Add", rows, graph.constant(arrays[f"bias.{number}"]))
        if number < layers - 1:
            rows = graph.add("Relu", rows)
    return graph.add("Sigmoid", rows) if kind == "net" else rows


def _kernel(graph: _Builder, arrays: Arrays, rows: str) -> str:
    """Support vectors: |x - v|^2 as |x|^2 - 2 x v + |v|^2."""
    vectors = arrays["vectors"].astype(np.float64)
    square = graph.add("ReduceSum", graph.add("Mul", rows, rows), graph.constant(np.array([1])), keepdims=1)
    cross = graph.add("MatMul", rows, graph.constant(-2 * vectors.T))
    apart = graph.add("Add", graph.add("Add", cross, square), graph.constant((vectors**2).sum(axis=1)[None]))
    near = graph.add("Exp", graph.add("Mul", apart, graph.number(-float(arrays["gamma"]))))
    score = graph.add("MatMul", near, graph.constant(arrays["coefficients"][:, None]))
    return graph.add("Add", score, graph.number(float(arrays["intercept"])))


def _trees(graph: _Builder, arrays: Arrays, rows: str) -> str:
    leaf = arrays["feature"] < 0
    tree, node, value = arrays["tree"], arrays["node"], arrays["value"]
    count = int(leaf.sum())
    return graph.add(
        "TreeEnsembleRegressor",
        rows,
        domain=ML_DOMAIN,
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[float(arrays["base"])],
        nodes_treeids=tree.tolist(),
        nodes_nodeids=node.tolist(),
        nodes_featureids=np.where(leaf, 0, arrays["feature"]).tolist(),
        nodes_values=arrays["threshold"].tolist(),
        nodes_modes=["LEAF" if one else "BRANCH_LEQ" for one in leaf],
        nodes_truenodeids=arrays["left"].tolist(),
        nodes_falsenodeids=arrays["right"].tolist(),
        target_treeids=tree[leaf].tolist(),
        target_nodeids=node[leaf].tolist(),
        target_ids=[0] * count,
        target_weights=value[leaf].tolist(),
    )


def _outputs(graph: _Builder, each: str, weights: str, calibration: Sequence[float]) -> None:
    """Probability of the mean score [N], and the spread of the members' own probabilities [N]."""
    slope, intercept = (graph.number(value) for value in calibration)
    last = graph.constant(np.array([1]))

    def calibrated(score: str) -> str:
        return graph.add("Sigmoid", graph.add("Add", graph.add("Mul", score, slope), intercept))

    probability = calibrated(graph.add("MatMul", each, weights))
    graph.add("Squeeze", probability, last, out="probability")
    own = calibrated(each)
    gap = graph.add("Sub", own, graph.add("MatMul", own, weights))
    variance = graph.add("MatMul", graph.add("Mul", gap, gap), weights)
    graph.add("Squeeze", graph.add("Sqrt", variance), last, out="uncertainty")


def _distance(
    graph: _Builder, rows: str, mean: npt.NDArray[np.generic], matrix: npt.NDArray[np.generic]
) -> None:
    moved = graph.add("MatMul", graph.add("Sub", rows, graph.constant(mean)), graph.constant(matrix))
    square = graph.add("ReduceSum", graph.add("Mul", moved, moved), graph.constant(np.array([1])), keepdims=0)
    graph.add("Sqrt", square, out="distance")


def _model(graph: _Builder, columns: int) -> ModelProto:
    taken = helper.make_tensor_value_info(MAP_INPUT, TensorProto.FLOAT, ["batch", columns])
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"])
        for name in ("probability", "uncertainty", "distance")
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain for node in graph.nodes):
        opsets.append(helper.make_opsetid(ML_DOMAIN, ML_OPSETS[-1]))
    body = helper.make_graph(graph.nodes, "map", [taken], given, graph.constants)
    made: onnx.ModelProto = helper.make_model(
        body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="lithostream"
    )
    return made
