"""From Segment Anything to the two graphs of a bundle's segmenter, whose weights are stored in fp16.

A weight in fp16 goes through a Cast, so a runtime computes in float32 and the file has half the size. What stays in
float32, and why: arrays of under `SMALL` elements (biases, norms, the frequencies of positions, whose rounding is
multiplied by up to 2 pi times the coordinate), since nothing is gained by them.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import nn

from lithostream.engine.bundle import MAX_SEGMENTER_BYTES, SEGMENTER_FILES
from lithostream.engine.core.synthetic import generate
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import OPSET
from lithostream.engine.graph_segmenter import IMAGE_SIDE, check_segmenter
from lithostream.engine.manifest import SegmenterInput
from lithostream.export.graph import strip
from lithostream.export.segmenter_graphs import PromptDecoder, ViewEncoder

SMALL = 1024
PARITY = 1e-3  # of the range of the logits: ONNX Runtime to the package's own modules, both in float32
LEAST_IOU = 0.99  # mean over masks: fp16 weights to float32
GATE_SIDE = 6  # points of the gates on an edge of a view

Floats = npt.NDArray[np.float32]
Views = npt.NDArray[np.uint8]


class SegmenterExport(NamedTuple):
    """Graphs of a segmenter, and how they were proved.

    Attributes
    ----------
    encoder, decoder : bytes
    parity : float
        Largest deviation of the logits in float32 from the package's own, of their range.
    mean_iou : float
        Of masks with weights in fp16 to those in float32.
    """

    encoder: bytes
    decoder: bytes
    parity: float
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
    whole = to_graphs(sam)
    points = gate_points(side)
    found = [run_graphs(_content(whole), view, points) for view in views]
    parity = max(_deviation(sam, view, points, *masks) for view, masks in zip(views, found, strict=True))
    if not parity <= PARITY:  # NaN is a miss too
        raise BundleError(
            f"ONNX Runtime differs from the package by {parity:.3g} of the range of the logits, {PARITY:g} is allowed",
            file=files[1],
            fix="report the torch and onnx versions",
        )
    encoder, decoder = _content([store_fp16(graph, keep) for graph in whole])
    check_segmenter(encoder, decoder, files, side)
    halved = [run_graphs((encoder, decoder), view, points) for view in views]
    pairs = zip(found, halved, strict=True)
    mean_iou = float(np.mean([mask_iou(one[0], two[0]) for one, two in pairs]))
    if not mean_iou >= LEAST_IOU:
        raise BundleError(
            f"with weights in fp16 masks have a mean IoU of {mean_iou:.4f} with those in float32,"
            f" {LEAST_IOU:g} is needed",
            file=files[0],
            fix="name in `keep` what must stay float32, or use another checkpoint",
        )
    return SegmenterExport(encoder, decoder, parity, mean_iou)


def stated_segmenter(sam: Sam) -> SegmenterInput:
    """Return what a manifest states of a segmenter; the limits are the defaults of the package's mask generator."""
    architecture = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}.get(_width(sam), "small")
    return SegmenterInput.model_validate(
        {
            "architecture": architecture,
            "view_px": sam.image_encoder.img_size,
            "min_quality": 0.88,
            "min_stability": 0.95,
        }
    )


def _width(sam: Sam) -> int:
    """Channels of a ViT, 0 for another encoder."""
    encoder = sam.image_encoder
    return encoder.patch_embed.proj.out_channels if isinstance(encoder, ImageEncoderViT) else 0


def to_graphs(sam: Sam) -> tuple[ModelProto, ModelProto]:
    """Trace encoder and decoder in float32, see `export.segmenter_graphs` for what they take and give."""
    weights = sum(value.numel() for value in sam.state_dict().values()) * 4
    if weights > MAX_SEGMENTER_BYTES:
        raise BundleError(
            f"{weights / 1e9:.2f} GB of weights in float32, protobuf allows 2.15 GB",
            file=SEGMENTER_FILES[0],
            fix="give vit_b or vit_l, or train a small segmenter from this one: lithostream train segmenter",
        )
    side = sam.image_encoder.img_size
    encoder = ViewEncoder(sam).eval()
    example = (torch.zeros((1, side, side, 3), dtype=torch.uint8), torch.tensor([side, side]))
    first = _traced(encoder, example, ("view", "valid"), IMAGE_SIDE, None)
    with torch.no_grad():
        shared = encoder(*example)
    free = {0: torch.export.Dim("prompts")}
    prompts = (torch.zeros((2, 2)), torch.zeros((2, 4)))
    names = (*IMAGE_SIDE, "points", "boxes")
    shapes = (*(None for _ in IMAGE_SIDE), free, free)
    second = _traced(PromptDecoder(sam).eval(), (*shared, *prompts), names, ("logits", "quality"), shapes)
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
    return graph


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
        name, kept = tensor.name, tensor.name.startswith(tuple(keep))
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL or kept:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise BundleError(
                "a weight is beyond what fp16 holds",
                place=name,
                fix="name it in `keep`, or use another checkpoint",
            )
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *made.graph.node]
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)
    return made


def _content(graphs: Sequence[ModelProto]) -> tuple[bytes, bytes]:
    encoder, decoder = (graph.SerializeToString(deterministic=True) for graph in graphs)
    return encoder, decoder


def gate_views(side: int) -> Views:
    """Two pieces of generated cores, as views [2, S, S, 3]."""
    scale = side / 8
    cores = [generate(seed, length_cm=14, width_cm=8, px_per_cm=scale).image for seed in (3100, 3101)]
    return np.stack([np.ascontiguousarray(core[side // 4 :][:side, :side]) for core in cores])


def gate_points(side: int) -> Floats:
    """Points [P, 2] on a grid, between pixels."""
    places = (np.arange(GATE_SIDE) + 0.5) * side / GATE_SIDE
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2).astype(np.float32)


def run_graphs(graphs: tuple[bytes, bytes], view: Views, points: Floats) -> tuple[Floats, Floats]:
    """Logits and quality of points on a whole view, by ONNX Runtime."""
    encoder, decoder = (ort.InferenceSession(one, providers=["CPUExecutionProvider"]) for one in graphs)
    given = {"view": view[None], "valid": np.array(view.shape[:2])}
    shared = dict(zip(IMAGE_SIDE, encoder.run(IMAGE_SIDE, given), strict=True))
    boxes = np.zeros((len(points), 4), np.float32)
    logits, quality = decoder.run(("logits", "quality"), {**shared, "points": points, "boxes": boxes})
    return logits, quality


def package_masks(
    sam: Sam, view: Views, points: Floats, boxes: Floats | None = None
) -> tuple[Floats, Floats]:
    """Logits [P, 3, S / 4, S / 4] and quality [P, 3] by the package's modules; views under S px are padded."""
    with torch.no_grad():
        pixels = torch.from_numpy(view).permute(2, 0, 1).float()
        embedding = sam.image_encoder(sam.preprocess(pixels[None]))
        given = (torch.from_numpy(points)[:, None], torch.ones((len(points), 1)))
        corners = None if boxes is None else torch.from_numpy(boxes)
        sparse, dense = sam.prompt_encoder(points=given, boxes=corners, masks=None)
        position = sam.prompt_encoder.get_dense_pe()
        logits, quality = sam.mask_decoder(embedding, position, sparse, dense, True)
    return logits.numpy(), quality.numpy()


def _deviation(sam: Sam, view: Views, points: Floats, logits: Floats, quality: Floats) -> float:
    wanted = package_masks(sam, view, points)
    gap = np.abs(logits - wanted[0]).max() / np.ptp(wanted[0])
    return float(max(gap, np.abs(quality - wanted[1]).max() / max(1.0, float(np.ptp(wanted[1])))))


def mask_iou(one: Floats, two: Floats) -> Floats:
    """IoU of the masks of two arrays of logits [..., H, W]; 1 where both are empty."""
    common = np.count_nonzero((one > 0) & (two > 0), axis=(-2, -1))
    both = np.count_nonzero((one > 0) | (two > 0), axis=(-2, -1))
    return np.where(both > 0, common / np.maximum(both, 1), 1.0).astype(np.float32)
