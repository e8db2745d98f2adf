"""From a network to one clean ONNX file."""

import io
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import OPSET, check_graph
from lithostream.training.models.properties import PropertyNet
from lithostream.training.models.resnet import ResNet18

TRACED_BATCH = 2  # a batch of one would be baked into the graph
FIX = "report the torch and onnx versions; `pip install 'lithostream[train]'` brings a pair that works"


def to_onnx(model: PropertyNet, size_px: int) -> bytes:
    """Export a network: uint8 `tiles` [N, S, S, C] to `properties` [N, T] and `distance` [N].

    Normalisation is part of the graph and stays in front of the first convolution: convolutions pad what is
    normalised, so weights that took it in would see black where they now see the mean colour, and ONNX pads all
    channels with one number. The colour model reads the normalised pixels too.

    HRNet, which keeps a quarter of the resolution, also gives `rows` [N, K, T], see `PropertyNet.with_rows`.

    Raises
    ------
    BundleError
        The graph breaks a rule that a runtime relies on.
    """
    example = torch.zeros((TRACED_BATCH, size_px, size_px, len(model.pixel_mean)), dtype=torch.uint8)
    dense = not isinstance(model.backbone, ResNet18)
    program = torch.onnx.export(
        _WithRows(model).eval() if dense else model.eval(),
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["tiles"],
        output_names=["properties", "distance", "rows"][: 3 if dense else 2],
        dynamic_shapes={"tiles": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    buffer = io.BytesIO()
    program.save(buffer)
    graph = strip(onnx.load_model_from_string(buffer.getvalue()))
    check_rules(graph)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


class _WithRows(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """What is traced where the rows within a tile are given too."""

    def __init__(self, model: PropertyNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.with_rows(tiles)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what tells of the machine that exported: stack traces, paths, doc strings, producer."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name, model.producer_version = "lithostream", ""
    graph = model.graph
    graph.name = "properties"
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.ClearField("value_info")
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    return model


def check_rules(model: onnx.ModelProto) -> None:
    """Refuse a graph that a bundle may not hold, or that tells of the machine that exported it.

    Raises
    ------
    BundleError
        Naming the rule.
    """
    check_graph(model.SerializeToString(), Path("model.onnx"))
    graph = model.graph
    told = [part for part in (model, graph) if part.metadata_props or part.doc_string]
    told += [node for node in graph.node if node.metadata_props or node.doc_string]
    values = (*graph.initializer, *graph.input, *graph.output, *graph.value_info)
    told += [value for value in values if value.metadata_props or value.doc_string]
    if told:
        raise BundleError("holds metadata or comments", place=getattr(told[0], "name", "model"), fix=FIX)
