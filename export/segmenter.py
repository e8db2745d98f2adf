"""From Segment Anything to the two graphs of a bundle's segmenter, whose weights are stored in fp16, and their proof."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import nn

from lithostream.engine.bundle import MAX_SEGMENTER_BYTES, SEGMENTER_FILES
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import OPSET
from lithostream.engine.graph_segmenter import IMAGE_SIDE, check_segmenter
from lithostream.engine.manifest import SegmenterInput
from lithostream.engine.segmenter_golden import mask_iou
from lithostream.export.graph import strip
from lithostream.export.segmenter_fp16 import hold_fp16, store_fp16
from lithostream.export.segmenter_graphs import PromptDecoder, ViewEncoder, shared_like
from lithostream.export.segmenter_masks import (
    Answer,
    Floats,
    Views,
    gate_points,
    gate_views,
    golden_cases,
    graph_masks,
    package_masks,
)

PARITY = 1e-3  # of the range of the logits: ONNX Runtime to the package's own modules, both in float32
LEAST_IOU = 0.99  # mean over masks: fp16 weights to float32
GOLDEN_IOU = 0.98  # of a session to the golden cases: what fp16 takes, and as much for a runtime
GOLDEN_QUALITY = 0.02
# Least quality and stability of a mask. Of the published networks: the defaults of the package's mask generator. Of the
# small one: by the panoptic quality of generated scenes, which from 0.4 to 0.5 is level and falls above.
PUBLISHED_LIMITS, SMALL_LIMITS = (0.88, 0.95), (0.5, 0.5)


class SegmenterExport(NamedTuple):
    """Graphs of a segmenter, and how they were proved.

    Attributes
    ----------
    encoder, decoder : bytes
    golden : bytes
        What float32 gives on golden cases, see `engine.segmenter_golden`.
    parity : float or None
        Largest deviation of the logits in float32 from the package's own, of their range; None for a network that no
        graph holds in float32.
    mean_iou : float
        Of masks with weights in fp16 to those in float32: of graphs, else of the package.
    """

    encoder: bytes
    decoder: bytes
    golden: bytes
    parity: float | None
    mean_iou: float


def export_segmenter(sam: Sam, views: Views | None = None, keep: Sequence[str] = ()) -> SegmenterExport:
    """Export, and prove that the masks are those of the package.

    Parameters
    ----------
    sam : Sam
        The package's own class, whatever its encoder.
    views : uint8 [V, S, S, 3], optional
        What masks are compared on; generated cores where absent.
    keep : sequence of str
        Weights that stay in float32: those whose name begins so. Where fp16 breaks an encoder, its error says by how much.

    Raises
    ------
    BundleError
        A graph breaks a rule or is too large, or the masks differ.
    """
    sam = sam.eval()
    side = sam.image_encoder.img_size
    views = gate_views(side) if views is None else views
    files = (Path(SEGMENTER_FILES[0]), Path(SEGMENTER_FILES[1]))
    parity: float | None = None
    exact: Answer = partial(package_masks, sam)
    if fits_float32(sam):
        whole = to_graphs(sam)
        packaged, exact = exact, graph_masks(_content(whole), side)
        parity = max(_deviation(packaged, exact, view) for view in views)
        if not parity <= PARITY:  # NaN is a miss too
            raise BundleError(
                f"ONNX Runtime differs from the package by {parity:.3g} of the range of the logits,"
                f" {PARITY:g} is allowed",
                file=files[1],
                fix="report the torch and onnx versions",
            )
    else:
        whole = to_graphs(sam, hold_fp16(ViewEncoder(sam), keep))
    encoder, decoder = _content([store_fp16(graph, keep) for graph in whole])
    del whole
    check_segmenter(encoder, decoder, files, side)
    mean_iou = _agreement(exact, graph_masks((encoder, decoder), side), views)
    if not mean_iou >= LEAST_IOU:
        raise BundleError(
            f"with weights in fp16 masks have a mean IoU of {mean_iou:.4f} with those in float32,"
            f" {LEAST_IOU:g} is needed",
            file=files[0],
            fix="name in `keep` what must stay float32, or use another checkpoint",
        )
    return SegmenterExport(encoder, decoder, golden_cases(exact, side).to_bytes(), parity, mean_iou)


def stated_segmenter(sam: Sam) -> SegmenterInput:
    """Return what a manifest states of a segmenter; with `SMALL_LIMITS` or `PUBLISHED_LIMITS`."""
    architecture = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}.get(_width(sam), "small")
    quality, stability = SMALL_LIMITS if architecture == "small" else PUBLISHED_LIMITS
    return SegmenterInput.model_validate(
        {
            "architecture": architecture,
            "view_px": sam.image_encoder.img_size,
            "min_quality": quality,
            "min_stability": stability,
            "golden_iou": GOLDEN_IOU,
            "golden_quality": GOLDEN_QUALITY,
            "by_default": architecture != "small",
        }
    )


def _width(sam: Sam) -> int:
    """Channels of a ViT, 0 for another encoder."""
    encoder = sam.image_encoder
    return encoder.patch_embed.proj.out_channels if isinstance(encoder, ImageEncoderViT) else 0


def fits_float32(sam: Sam) -> bool:
    """Tell whether protobuf holds the weights in float32; those of ViT-H, 2.6 GB, it does not."""
    weights: int = sum(value.numel() for value in sam.state_dict().values()) * 4
    return weights <= MAX_SEGMENTER_BYTES


def to_graphs(sam: Sam, encoder: nn.Module | None = None) -> tuple[ModelProto, ModelProto]:
    """Trace encoder and decoder, see `export.segmenter_graphs` for what they take and give.

    Parameters
    ----------
    sam : Sam
    encoder : Module, optional
        A `ViewEncoder` of it whose weights are held in another way; in float32 where absent.

    Raises
    ------
    BundleError
        The encoder is more than protobuf holds.
    """
    side = sam.image_encoder.img_size
    encoder = (ViewEncoder(sam) if encoder is None else encoder).eval()
    weights = sum(value.nbytes for value in encoder.state_dict().values())
    if weights > MAX_SEGMENTER_BYTES:
        raise BundleError(
            f"{weights / 1e9:.2f} GB of weights, protobuf allows 2.15 GB",
            file=SEGMENTER_FILES[0],
            fix="keep less in float32, or train a small segmenter from this one: lithostream train segmenter",
        )
    example = (torch.zeros((1, side, side, 3), dtype=torch.uint8), torch.tensor([side, side]))
    first = _traced(encoder, example, ("view", "valid"), IMAGE_SIDE, None)
    free = {0: torch.export.Dim("prompts")}
    prompts = (torch.zeros((2, 2)), torch.zeros((2, 4)))
    names = (*IMAGE_SIDE, "points", "boxes")
    shapes = (*(None for _ in IMAGE_SIDE), free, free)
    decoder = PromptDecoder(sam).eval()
    second = _traced(decoder, (*shared_like(sam), *prompts), names, ("logits", "quality"), shapes)
    return first, second


def _traced(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: object,
) -> ModelProto:
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer)
    graph = strip(onnx.load_model_from_string(buffer.getvalue()))
    graph.graph.name = "segmenter"
    return rows_by_gather(graph)


def rows_by_gather(graph: ModelProto) -> ModelProto:
    """Take rows of a matrix by Gather where GatherND does, which no bundle may hold; the graph itself is changed.

    So relative positions are looked up wherever a ViT's table is too large to be looked up at export: ViT-H on 1024 px.
    """
    held = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        places = held.get(node.input[1]) if node.op_type == "GatherND" else None
        if places is None or places.dims[-1] != 1 or any(attribute.i for attribute in node.attribute):
            continue
        name = f"{places.name}.rows"
        if name not in held:
            rows = numpy_helper.to_array(places)[..., 0]
            held[name] = graph.graph.initializer.add()
            held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(rows), name))
        node.op_type, node.input[1] = "Gather", name
        node.ClearField("attribute")
    used = {name for node in graph.graph.node for name in node.input}
    for at, tensor in reversed(list(enumerate(graph.graph.initializer))):
        if tensor.name not in used:
            del graph.graph.initializer[at]
    return graph


def _content(graphs: Sequence[ModelProto]) -> tuple[bytes, bytes]:
    encoder, decoder = (graph.SerializeToString(deterministic=True) for graph in graphs)
    return encoder, decoder


def _deviation(packaged: Answer, found: Answer, view: Views) -> float:
    """Largest deviation from the package on points of a view, of the range of the logits; or of the quality."""
    points = gate_points(len(view))
    wanted, (logits, quality) = packaged(view, points, None), found(view, points, None)
    gap = np.abs(logits - wanted[0]).max() / np.ptp(wanted[0])
    return float(max(gap, np.abs(quality - wanted[1]).max() / max(1.0, float(np.ptp(wanted[1])))))


def _agreement(one: Answer, two: Answer, views: Views) -> float:
    """Mean IoU of the masks of both on points of views."""
    points = gate_points(views.shape[1])

    def masks(answer: Answer, view: Views) -> Floats:
        return answer(view, points, None)[0]

    ious = [mask_iou(masks(one, view) > 0, masks(two, view) > 0) for view in views]
    return float(np.mean(ious))
