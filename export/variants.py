"""The same network in fewer bits: fp16, and int8 (`int8.py`).

Only the backbone, which is nearly all of the work, changes its precision. What stays in float32, and why:

* the cast of the bytes and their normalisation: 0 to 255 less a mean, of which fp16 keeps three digits;
* mean and deviation of each colour: the variance of a flat tile is a difference of nearly equal numbers, and the
  colour model subtracts channels that are nearly equal;
* the distance: whitening multiplies the directions of least variance by up to 1000, and their rounding with it;
* the heads and the scaling to units: susceptibility in 1e-5 SI reaches values where fp16 counts in steps of 8.

Outputs are float32 in every precision and the input stays uint8, so a session need not know which one it runs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lithostream.engine.bundle import model_file
from lithostream.engine.errors import BundleError
from lithostream.engine.manifest import MAX_TOLERANCE, Variant
from lithostream.export.backbone import backbone_nodes, with_nodes
from lithostream.export.graph import check_rules
from lithostream.export.int8 import to_int8

BATCH = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest deviations from fp32 on held tiles, as shares of the half width of an output's 90 % interval.

    Attributes
    ----------
    max, rms : float
        Of single tiles; an interval is the mean of several and deviates by less.
    """

    max: float
    rms: float


# fp16 must not be seen: a fiftieth of the stated interval at worst, below the digits of a report. int8 may be seen
# but must not matter: errors add as squares, so 15 % of noise widens an interval by 1 %.
LIMITS = {"fp16": Limits(max=0.02, rms=0.01), "int8": Limits(max=0.5, rms=0.15)}
# Another runtime rounds at other places: on the golden cases it may deviate by so much more than ONNX Runtime does.
GOLDEN_MARGIN, GOLDEN_FLOOR = 2.0, {"fp16": 0.01, "int8": 0.1}


@dataclass(frozen=True, slots=True)
class Oracle:
    """What a variant is held to.

    Attributes
    ----------
    graph : bytes
        The fp32 network.
    scale : dict of output name to float
        Half width of the 90 % interval per target in its order, and last the limit of the distance.
    tiles : uint8 [K, S, S, C]
        Of the training data: every other one calibrates, the rest is held.
    golden : uint8 [G, S, S, C]
    """

    graph: bytes
    scale: dict[str, float]
    tiles: npt.NDArray[np.uint8]
    golden: npt.NDArray[np.uint8]


def make_variant(precision: str, oracle: Oracle) -> tuple[bytes, Variant, dict[str, object]]:
    """Make a variant, prove it close to fp32, and return it with its entry and figures for the manifest.

    Raises
    ------
    BundleError
        It deviates from fp32 by more than `LIMITS`, or breaks a rule of a bundle's graph.
    """
    model = onnx.load_model_from_string(oracle.graph)
    made = to_fp16(model) if precision == "fp16" else to_int8(model, oracle.tiles[::2])
    check_rules(made)
    content: bytes = made.SerializeToString(deterministic=True)
    deviations = held_deviations(content, oracle)
    limits, file = LIMITS[precision], model_file("fp16" if precision == "fp16" else "int8")
    for name, (largest, rms) in deviations.items():
        if not (largest <= limits.max and rms <= limits.rms):  # NaN is a miss too
            raise BundleError(
                f"{precision} deviates from fp32 by up to {largest:.3g} and {rms:.3g} (RMS) of the half width of the"
                f" 90 % interval, {limits.max:g} and {limits.rms:g} are allowed",
                file=file,
                place=name,
                fix=f"export without --precision {precision}, or train on more or other data",
            )
    golden = golden_deviation(content, oracle)
    tolerance = max(GOLDEN_MARGIN * golden, GOLDEN_FLOOR[precision])
    if not tolerance <= MAX_TOLERANCE:
        raise BundleError(
            f"{precision} misses the golden cases by {golden:.3g} standard deviations,"
            f" {MAX_TOLERANCE / GOLDEN_MARGIN:g} are allowed",
            file=file,
            fix=f"export without --precision {precision}",
        )
    figures: dict[str, object] = {
        "held_tiles": len(oracle.tiles[1::2]),
        "golden_deviation": golden,
        "share_of_half_width_90": {name: {"max": a, "rms": b} for name, (a, b) in deviations.items()},
    }
    return content, Variant.model_validate({"precision": precision, "golden_tolerance": tolerance}), figures


def held_deviations(content: bytes, oracle: Oracle) -> dict[str, tuple[float, float]]:
    """Largest and RMS deviation from fp32 on the tiles that did not calibrate, by output, as shares of its scale."""
    held = oracle.tiles[1::2]
    gap = (_outputs(content, held) - _outputs(oracle.graph, held)) / np.array(list(oracle.scale.values()))
    largest, rms = np.abs(gap).max(axis=0), np.sqrt((gap**2).mean(axis=0))
    return {name: (float(largest[i]), float(rms[i])) for i, name in enumerate(oracle.scale)}


def golden_deviation(content: bytes, oracle: Oracle) -> float:
    """Largest deviation of a property on the golden cases, in standard deviations as the golden gate counts."""
    found, wanted = (_outputs(graph, oracle.golden)[:, :-1] for graph in (content, oracle.graph))
    return float(np.max(np.abs(found - wanted) / np.maximum(wanted.std(axis=0), 1e-6)))


def _outputs(graph: bytes, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Properties and, last, the distance of tiles [N, S, S, C]: float64 [N, T + 1]."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    parts = [
        session.run(["properties", "distance"], {"tiles": tiles[at : at + BATCH]})
        for at in range(0, len(tiles), BATCH)
    ]
    return np.concatenate([np.column_stack(part) for part in parts]).astype(np.float64)


def to_fp16(model: ModelProto) -> ModelProto:
    """Give the backbone weights and values of fp16; casts stand where values enter and leave it."""
    kinds = _kinds(model)
    inside = backbone_nodes(model)
    names = {name for node in inside for name in node.output if kinds[name] == TensorProto.FLOAT}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    cast: dict[tuple[str, int], str] = {}

    def read(name: str, kind: int) -> str:
        if (name, kind) not in cast:
            cast[name, kind] = f"{name}_{'fp16' if kind == TensorProto.FLOAT16 else 'fp32'}"
            if name in weights:
                with np.errstate(over="ignore"):  # what is infinite then is refused as such
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(values, cast[name, kind]))
            else:
                nodes.append(
                    helper.make_node("Cast", [name], [cast[name, kind]], f"{cast[name, kind]}_cast", to=kind)
                )
        return cast[name, kind]

    for node in model.graph.node:
        within = node in inside
        for place, name in enumerate(node.input):
            scales = node.op_type == "Resize" and place == 2  # float32 in every precision
            if within and kinds.get(name) == TensorProto.FLOAT and name not in names and not scales:
                node.input[place] = read(name, TensorProto.FLOAT16)
            elif not within and name in names and node.op_type != "Shape":
                node.input[place] = read(name, TensorProto.FLOAT)
        nodes.append(node)
    return with_nodes(model, nodes)


def _kinds(model: ModelProto) -> dict[str, int]:
    """Element type of each value."""
    known = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    values = (*known.graph.value_info, *known.graph.input, *known.graph.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}
