"""The network in bytes: Quantize and Dequantize nodes around the backbone, at scales seen on tiles.

Values between convolutions are unsigned bytes: nearly all have passed a ReLU, and a signed byte would waste half its
steps on what never comes. Outputs of convolutions and of sums are rounded too, else ONNX Runtime computes none of
them in integers, and weights and biases are integers with a scale per channel.

The first convolution reads the scanner's bytes themselves, less 128, so that no pixel is rounded: deviations and
means of the channels move into its weights. It pads with zeros, which stood for the mean colour and now are grey; one
more channel, `EDGE` inside the picture and 0 beyond it, carries the difference and makes the borders equal too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lithostream.export.backbone import backbone_convolutions, backbone_nodes, with_nodes

BATCH = 8
CENTRE, EDGE = 128, 127  # of bytes as the first convolution sees them: -128 to 127
WEIGHT_STEPS, DIFFUSED_STEPS = 127, 126  # error diffusion may end one step higher
HEADROOM = 1.25  # what lies beyond the tiles seen is cut off; a quarter more range costs a third of a bit
INT32 = np.iinfo(np.int32)

Floats = npt.NDArray[np.float32]
Ranges = dict[str, tuple[float, float]]


def to_int8(model: ModelProto, tiles: npt.NDArray[np.uint8]) -> ModelProto:
    """Quantise the backbone, with the ranges of its values on tiles [N, S, S, C]."""
    changed = from_bytes(model)
    if changed is None:  # the first convolution stays in float32
        graph = _Quantised(model, backbone_convolutions(model)[1:])
    else:
        graph = _Quantised(changed, backbone_convolutions(changed))
    graph.scan(tiles)
    return graph.made()


def from_bytes(model: ModelProto) -> ModelProto | None:
    """Let the first convolution read bytes less `CENTRE` and `EDGE`; None where it does not read normalised ones."""
    made = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    first = backbone_convolutions(model)[0]
    scaled = made[first.input[0]]
    shifted = made[scaled.input[0]]
    if (scaled.op_type, shifted.op_type) != ("Div", "Sub"):
        return None  # HRNet pads the picture first
    mean, std = (
        numpy_helper.to_array(weights[node.input[1]]).astype(np.float64) for node in (shifted, scaled)
    )
    folded = numpy_helper.to_array(weights[first.input[1]]) / std.reshape(-1, 1, 1)
    edge = (folded * (CENTRE - mean.reshape(-1, 1, 1))).sum(axis=1, keepdims=True) / EDGE
    content: dict[str, npt.NDArray[np.generic]] = {
        "bytes_centre": np.array(CENTRE, np.float32),
        "bytes_edge": np.array(EDGE, np.float32),
        "bytes_pads": np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64),  # one channel behind the last
        f"{first.input[1]}_bytes": np.concatenate([folded, edge], axis=1).astype(np.float32),
    }
    changed = ModelProto()
    changed.CopyFrom(model)
    changed.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in content.items())
    centre, border, pads, weight = content
    nodes: list[NodeProto] = []
    for node in changed.graph.node:
        if node.name == first.name:
            nodes.append(helper.make_node("Sub", [shifted.input[0], centre], ["bytes_centred"], "bytes_sub"))
            nodes.append(helper.make_node("Pad", ["bytes_centred", pads, border], ["bytes"], "bytes_pad"))
            node.input[0], node.input[1] = "bytes", weight
        nodes.append(node)
    return with_nodes(changed, nodes)


@dataclass(slots=True)
class _Quantised:
    """A model on its way to int8, and the convolutions to quantise."""

    model: ModelProto
    convolutions: list[NodeProto]
    ranges: Ranges = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)
    scales: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def scan(self, tiles: npt.NDArray[np.uint8]) -> None:
        """Find the values to quantise, and the range of each on tiles [N, S, S, C]."""
        names = [name for name in self._values() if name != "bytes"]
        seen = _ranges(self.model, names, tiles)
        self.ranges = {name: (HEADROOM * low, HEADROOM * high) for name, (low, high) in seen.items()}
        self.ranges["bytes"] = (-CENTRE, 255 - CENTRE)

    def made(self) -> ModelProto:
        """Return the model with each value that has a range, and the weights of the convolutions, in bytes."""
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        wanted = {node.name for node in self.convolutions}
        for original in self.model.graph.node:
            node = NodeProto()
            node.CopyFrom(original)
            for place, name in enumerate(node.input):
                node.input[place] = _bytes(name) if name in self.scales else name
            if node.name in wanted:
                self._quantise_weights(node, original.input[0], weights)
            self.nodes.append(node)
            for name in set(node.output) & set(self.ranges):
                self._quantise_value(name)
        return with_nodes(self.model, self.nodes)

    def _values(self) -> Iterable[str]:
        """Name inputs and outputs of the convolutions, and of the sums of residual blocks."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)

        def after(name: str) -> str:
            """Behind the ReLU, where that alone reads a value."""
            kinds = [node.op_type for node in readers[name]]
            return str(readers[name][0].output[0]) if kinds == ["Relu"] else name

        found: dict[str, None] = {}
        for node in self.convolutions:
            found |= dict.fromkeys([node.input[0], after(node.output[0])])
        for node in backbone_nodes(self.model):
            if node.op_type == "Add":
                found |= dict.fromkeys([*node.input, after(node.output[0])])
        return found

    def _quantise_value(self, name: str) -> None:
        scale, zero = _step(*self.ranges[name])
        self.scales[name] = scale
        code = self._dequantise(name, None, scale, zero)
        self.nodes.insert(-1, helper.make_node("QuantizeLinear", [name, *code[1:]], [code[0]], f"{name}_to"))

    def _quantise_weights(
        self, node: NodeProto, source: str, weights: dict[str, npt.NDArray[np.float32]]
    ) -> None:
        codes, scale = _rounded(weights[node.input[1]], diffused=source == "bytes")
        self._dequantise(node.input[1], codes, scale, np.zeros(len(scale), np.int8))
        node.input[1] = _bytes(node.input[1])
        if len(node.input) > 2:
            bias, step = node.input[2], (self.scales[source] * scale).astype(np.float32)
            whole = np.clip(np.rint(weights[bias] / step.astype(np.float64)), INT32.min, INT32.max)
            # Two convolutions may share a bias, never its scale.
            self._dequantise(f"{node.name}_bias", whole.astype(np.int32), step, np.zeros(len(step), np.int32))
            node.input[2] = _bytes(f"{node.name}_bias")

    def _dequantise(
        self,
        name: str,
        codes: npt.NDArray[np.generic] | None,
        scale: npt.NDArray[np.float32],
        zero: npt.NDArray[np.generic],
    ) -> list[str]:
        """Add the node that gives `_bytes(name)`, and return the names of its inputs."""
        inputs = [f"{name}_{part}" for part in ("code", "scale", "zero")]
        for part, content in zip(inputs, (codes, scale, zero), strict=True):
            if content is not None:
                self.model.graph.initializer.append(numpy_helper.from_array(content, part))
        # The axis counts where there is a scale per channel, of weights and biases.
        node = helper.make_node("DequantizeLinear", inputs, [_bytes(name)], f"{name}_from", axis=0)
        self.nodes.append(node)
        return inputs


def _bytes(name: str) -> str:
    return f"{name}_in_bytes"


def _step(low: float, high: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Scale and zero point of unsigned bytes from `low` to `high`; zero is met exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255
    return np.array(scale, np.float32), np.array(round(-low / scale), np.uint8)


def _rounded(weights: Floats, *, diffused: bool) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights [O, I, H, W] in whole steps of a scale [O].

    `diffused` carries the rounding of each weight over to the next of its filter, so that a filter answers a flat
    picture as before: bytes are far from zero, and errors of its weights would add up.
    """
    steps = DIFFUSED_STEPS if diffused else WEIGHT_STEPS
    scale = (np.maximum(np.abs(weights).max(axis=(1, 2, 3)), 1e-12) / steps).astype(np.float32)
    parts = (weights / scale[:, None, None, None]).reshape(*weights.shape[:2], -1)
    whole = np.diff(np.rint(np.cumsum(parts, axis=2)), axis=2, prepend=0) if diffused else np.rint(parts)
    return np.clip(whole, -WEIGHT_STEPS, WEIGHT_STEPS).astype(np.int8).reshape(weights.shape), scale


def _ranges(model: ModelProto, names: list[str], tiles: npt.NDArray[np.uint8]) -> Ranges:
    """Least and largest of each value on tiles [N, S, S, C]."""
    probed = ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    batches = [
        [
            (float(value.min()), float(value.max()))
            for value in session.run(names, {"tiles": tiles[at : at + BATCH]})
        ]
        for at in range(0, len(tiles), BATCH)
    ]
    lows, highs = (np.array(batches)[..., side] for side in (0, 1))
    return {name: (lows[:, i].min(), highs[:, i].max()) for i, name in enumerate(names)}
