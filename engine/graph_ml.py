"""What an ensemble of trees in a graph may hold, and the shape of what it gives (ONNX domain ai.onnx.ml).

The trees lie in attributes, which the ONNX checker does not look into: a runtime would follow a tree that leads back to
its root, or read a column that the rows do not have.
"""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from lithostream.engine.errors import BundleError

ML_DOMAIN, ML_OPSETS = "ai.onnx.ml", (1, 2, 3)
ML_OPERATORS = frozenset(["TreeEnsembleRegressor"])
MAX_DEPTH = 512  # of a tree: a runtime follows it by recursion
MAX_OUTPUTS = 256  # of a node, for one row
PREFIX = "stand-in:"
BRANCHES = {b"BRANCH_LEQ", b"BRANCH_LT", b"BRANCH_GTE", b"BRANCH_GT"}
FIX = "export the bundle again; do not use a model from a source you do not trust"
_OF_NODES = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")


def check_ml_node(node: NodeProto, taken: tuple[int, ...], file: Path) -> None:
    """Hold an ensemble of trees to itself and to the shape of the rows that it takes.

    Raises
    ------
    BundleError
        Naming the node and what does not fit.
    """
    held = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    numbers = [np.asarray(value, np.float64) for value in held.values() if _numeric(value)]
    try:
        if not all(np.isfinite(value).all() for value in numbers):
            raise ValueError("holds what is no finite number")
        if len(taken) != 2:
            raise ValueError(f"takes an array of shape {taken}, expected rows")
        _check_trees(held, taken[1], outputs(node))
    except (KeyError, ValueError) as error:
        raise BundleError(f"{node.op_type}: {error}", file=file, place=node.name, fix=FIX) from error


def outputs(node: NodeProto) -> int:
    """Numbers that a node gives for each row."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "n_targets"), 1)


def comparisons(node: NodeProto) -> int:
    """Most comparisons for one row: one for each node of a tree."""
    return sum(len(attribute.ints) for attribute in node.attribute if attribute.name == "nodes_treeids")


def stand_in(node: NodeProto, file: Path) -> tuple[NodeProto, TensorProto]:
    """Return an ordinary node, and its constant, of the same output's shape: ONNX infers none for this domain.

    Raises
    ------
    BundleError
        It states no sensible number of outputs.
    """
    count, (rows, *_), (name, *_) = outputs(node), node.input, node.output
    if not 0 < count <= MAX_OUTPUTS:
        raise BundleError(f"{node.op_type} of {count} outputs", file=file, place=node.name, fix=FIX)
    columns = numpy_helper.from_array(np.zeros(count, np.int64), f"{PREFIX}{name}")
    return helper.make_node("Gather", [rows, columns.name], [name], axis=1), columns


def _numeric(value: Any) -> bool:
    return isinstance(value, (int, float)) or (
        isinstance(value, list) and not isinstance((value or [0])[0], bytes)
    )


def _check_trees(held: dict[str, Any], columns: int, scores: int) -> None:
    """Prove each tree to be one: children come later than their parent and have no other."""
    nodes = {name: held[f"nodes_{name}"] for name in _OF_NODES}
    lengths = {len(values) for values in nodes.values()}
    lengths |= {
        len(held[name]) for name in ("nodes_hitrates", "nodes_missing_value_tracks_true") if name in held
    }
    if len(lengths) != 1 or not nodes["treeids"] or scores < 1:
        raise ValueError(f"lists of its nodes are {sorted(lengths)} long, {scores} outputs")
    place = {key: at for at, key in enumerate(zip(nodes["treeids"], nodes["nodeids"], strict=True))}
    if len(place) != len(nodes["treeids"]):
        raise ValueError("two nodes of a tree share an id")
    depth = [0] * len(place)
    for at, (tree, mode) in enumerate(zip(nodes["treeids"], nodes["modes"], strict=True)):
        if mode == b"LEAF":
            continue
        if mode not in BRANCHES or not 0 <= nodes["featureids"][at] < columns:
            raise ValueError(f"node {at} is a {mode[:20]!r} on column {nodes['featureids'][at]}")
        for side in ("truenodeids", "falsenodeids"):
            child = place.get((tree, nodes[side][at]), -1)
            if child <= at or depth[child]:
                raise ValueError(
                    f"node {at} leads to {nodes[side][at]}, which is before it, not there or taken"
                )
            depth[child] = depth[at] + 1
    if max(depth) > MAX_DEPTH:
        raise ValueError(f"a tree is {max(depth)} deep, at most {MAX_DEPTH}")
    _check_leaves(held, {key for key, at in place.items() if nodes["modes"][at] == b"LEAF"}, scores)


def _check_leaves(held: dict[str, Any], leaves: set[tuple[int, int]], scores: int) -> None:
    ids = held["target_ids"]
    if len(ids) != len(held["target_weights"]):
        raise ValueError("lists of its leaves differ in length")
    of = zip(held["target_treeids"], held["target_nodeids"], ids, strict=True)
    if not {(tree, node) for tree, node, _ in of} <= leaves or not all(0 <= one < scores for one in ids):
        raise ValueError("a weight is of no leaf or no output")
    if len(held.get("base_values", [])) not in (0, scores):
        raise ValueError(f"{len(held['base_values'])} base values for {scores} outputs")
