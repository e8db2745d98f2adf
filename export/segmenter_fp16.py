"""Weights of a segmenter in fp16: in a graph that is there, or before a graph is made.

A weight in fp16 goes through a Cast, so a runtime computes in float32 and the file has half the size. What stays in
float32, and why: arrays of under `SMALL` elements (biases, norms, the frequencies of positions, whose rounding is
multiplied by up to 2 pi times the coordinate), since nothing is gained by them.
"""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from lithostream.engine.errors import BundleError

SMALL = 1024


def store_fp16(graph: ModelProto, keep: Sequence[str] = ()) -> ModelProto:
    """Return the graph with its large weights stored in fp16, each followed by a Cast to float32.

    Raises
    ------
    BundleError
        A weight is beyond the range of fp16 and not named in `keep`.
    """
    made = ModelProto()
    made.CopyFrom(graph)
    casts = []
    for tensor in made.graph.initializer:
        name = tensor.name
        if tensor.data_type != TensorProto.FLOAT or _stays(name, int(np.prod(tensor.dims)), keep):
            continue
        values = numpy_helper.to_array(tensor)
        _check_range(name, float(np.abs(values).max()))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *made.graph.node]
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)
    return made


class Widened(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """Gives a weight in fp16 as float32."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the same values."""
        return weight.float()


def hold_fp16(module: nn.Module, keep: Sequence[str] = ()) -> nn.Module:
    """Return a module that holds its large weights in fp16, each widened where it is used: no float32 is copied.

    For a network whose graph in float32 would be more than protobuf holds. It computes what `store_fp16` makes of the
    graph.

    Raises
    ------
    BundleError
        A weight is beyond the range of fp16 and not named in `keep`.
    """
    halved: dict[int, nn.Parameter] = {}
    for name, value in module.named_parameters():
        if not _stays(name, value.numel(), keep):
            _check_range(name, float(value.detach().abs().max()))
            halved[id(value)] = nn.Parameter(value.detach().half(), requires_grad=False)
    made: nn.Module = deepcopy(module, halved)  # what is in the memo is taken for its copy
    for name, value in list(made.named_parameters()):
        if value.dtype == torch.float16:
            owner, _, own = name.rpartition(".")
            register_parametrization(made.get_submodule(owner), own, Widened(), unsafe=True)  # another dtype
    return made


def _stays(name: str, count: int, keep: Sequence[str]) -> bool:
    return count < SMALL or name.startswith(tuple(keep))


def _check_range(name: str, largest: float) -> None:
    if largest > np.finfo(np.float16).max:
        raise BundleError(
            "a weight is beyond what fp16 holds",
            place=name,
            fix="name it in `keep`, or use another checkpoint",
        )
