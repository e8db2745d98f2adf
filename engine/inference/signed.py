"""An int8 graph as TensorRT takes it: signed bytes whose zero is 0, and biases in float32.

A bundle holds unsigned bytes, which spend all their steps on what a ReLU leaves and which CPUs multiply fastest.
TensorRT's documentation ("Working with Quantized Types") allows neither them nor other zero points. Bytes about 128
lose nothing by the change; all others, half of their steps or fewer, for which the golden gate stays in place.
"""

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

CENTRE, LARGEST = 128, 127


def signed(graph: bytes) -> bytes:
    """Return a graph with unsigned Quantize and Dequantize nodes as one with signed ones.

    What leaves a convolution for a sum is left in float32: TensorRT adds it before it rounds.
    """
    model = onnx.load_model_from_string(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    plain = {
        node.output[0]: made[node.input[0]].input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and _leaves_convolution(node, made)
    }
    nodes = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            if tensors[node.input[0]].data_type == TensorProto.INT32:
                tensors[node.output[0]] = _bias(node, tensors)
                continue
        elif node.op_type == "DequantizeLinear":
            _sign(node, tensors)
        for place, name in enumerate(node.input):
            node.input[place] = plain.get(name, name)
        nodes.append(node)
    del model.graph.node[:], model.graph.initializer[:]
    dropped = set(plain) | {made[name].input[0] for name in plain}
    model.graph.node.extend(node for node in nodes if dropped.isdisjoint(node.output))
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(tensor for name, tensor in tensors.items() if name in read)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _leaves_convolution(node: NodeProto, made: dict[str, NodeProto]) -> bool:
    code = made.get(node.input[0])
    source = made.get(code.input[0]) if code else None
    return source is not None and source.op_type == "Conv"


def _bias(node: NodeProto, tensors: dict[str, TensorProto]) -> TensorProto:
    codes, scale = (numpy_helper.to_array(tensors[name]) for name in node.input[:2])
    return numpy_helper.from_array((codes * scale).astype(np.float32), node.output[0])


def _sign(node: NodeProto, tensors: dict[str, TensorProto]) -> None:
    """Change scale and zero point, which a Dequantize node shares with the Quantize node before it."""
    scale, zero = (numpy_helper.to_array(tensors[name]) for name in node.input[1:])
    if zero.dtype != np.uint8:
        return
    widest = max(int(zero), 255 - int(zero))
    wide = (
        scale if zero == CENTRE else scale * np.float32(widest / LARGEST)
    )  # -128 to 127 are met by signed bytes
    for name, values in zip(node.input[1:], (np.float32(wide), np.int8(0)), strict=True):
        tensors[name] = numpy_helper.from_array(np.asarray(values), name)
