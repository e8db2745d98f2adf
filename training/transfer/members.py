"""Members of every kind as plain arrays: what a checkpoint holds and an export reads, with nothing pickled."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from lithostream.training.transfer.classic import ClassicMember
from lithostream.training.transfer.deep import DeepMember

Kind = Literal["net", "linear", "kernel", "forest", "boosted"]
Arrays = dict[str, npt.NDArray[Any]]


def kind_of(member: DeepMember | ClassicMember) -> Kind:
    """Return how the arrays of a member are to be read."""
    if isinstance(member, DeepMember):
        return "net"
    kinds: dict[type, Kind] = {
        LogisticRegression: "linear",
        SVC: "kernel",
        RandomForestClassifier: "forest",
        GradientBoostingClassifier: "boosted",
    }
    return kinds[type(member.classifier)]


def arrays_of(member: DeepMember | ClassicMember) -> Arrays:
    """Return the arrays of a member.

    Beside `matrix` [E, D], `offset` [D] and, where inputs are drawn in, `clip` []:

    * net: `weight.0` [out, in], `bias.0` [out], ...; the score is the sigmoid of the last output.
    * linear: `weight.0` [1, D], `bias.0` [1]; the score is the output.
    * kernel: `vectors` [V, D], `coefficients` [V], `intercept` [], `gamma` []; the score is
      sum coefficient * exp(-gamma |x - vector|^2) + intercept.
    * forest, boosted: `tree`, `node`, `left`, `right`, `feature` int64 [K], `threshold` and `value` float32 [K],
      `base` []; a leaf has feature -1, a row goes left where x <= threshold. The score is base + the sum of the leaves'
      values, of boosted trees the sigmoid of that.
    """
    inputs = member.inputs
    found: Arrays = {
        "matrix": inputs.matrix.astype(np.float32),
        "offset": inputs.offset.astype(np.float32),
    }
    if inputs.clip is not None:
        found["clip"] = np.array(inputs.clip, np.float32)
    if isinstance(member, DeepMember):
        layers: Sequence[Sequence[npt.NDArray[np.float32]]] = member.layers
        for number, (weight, bias) in enumerate(layers):
            found |= {f"weight.{number}": weight, f"bias.{number}": bias}
        return found
    return found | _classifier(member.classifier)


def _classifier(model: Any) -> Arrays:
    if isinstance(model, LogisticRegression):
        return {"weight.0": model.coef_.astype(np.float32), "bias.0": model.intercept_.astype(np.float32)}
    if isinstance(model, SVC):
        return {
            "vectors": model.support_vectors_.astype(np.float32),
            "coefficients": model.dual_coef_[0].astype(np.float32),
            "intercept": np.array(model.intercept_[0], np.float32),
            "gamma": np.array(model.gamma, np.float32),
        }
    if isinstance(model, RandomForestClassifier):
        trees = [one.tree_ for one in model.estimators_]
        shares = [tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) / len(trees) for tree in trees]
        return _trees(trees, shares, 0.0)
    prior = model.init_.class_prior_
    trees = [one.tree_ for one in model.estimators_[:, 0]]
    steps = [tree.value[:, 0, 0] * model.learning_rate for tree in trees]
    return _trees(trees, steps, float(np.log(prior[1] / prior[0])))


def _trees(trees: Sequence[Any], values: Sequence[npt.NDArray[np.float64]], base: float) -> Arrays:
    parts: dict[str, list[npt.NDArray[np.generic]]] = {}
    for number, (tree, value) in enumerate(zip(trees, values, strict=True)):
        leaf = tree.children_left < 0
        of_tree = {
            "tree": np.full(tree.node_count, number),
            "node": np.arange(tree.node_count),
            "left": np.where(leaf, 0, tree.children_left),
            "right": np.where(leaf, 0, tree.children_right),
            "feature": np.where(leaf, -1, tree.feature),
            "threshold": _not_above(np.where(leaf, 0, tree.threshold)),
            "value": np.where(leaf, value, 0).astype(np.float32),
        }
        for name, array in of_tree.items():
            parts.setdefault(name, []).append(array)
    found: Arrays = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return found | {"base": np.array(base, np.float32)}


def _not_above(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round thresholds down to float32: the same float32 inputs stay at or below them."""
    rounded = threshold.astype(np.float32)
    lower: npt.NDArray[np.float32] = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > threshold, lower, rounded)
