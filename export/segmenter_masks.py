"""Who answers prompts while a segmenter is exported: the package's own modules, or graphs by ONNX Runtime."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from segment_anything.modeling import Sam

from lithostream.engine.core.synthetic import generate
from lithostream.engine.graph_segmenter import IMAGE_SIDE
from lithostream.engine.segmenter_golden import CELL, MOST, SegmenterGolden
from lithostream.training.segmenter.evaluate import HELD_OUT
from lithostream.training.segmenter.scenes import scene

GATE_SIDE = 6  # points of the gates on an edge of a view
GOLDEN_SEEDS = (HELD_OUT + 2**20, HELD_OUT + 2**20 + 1)  # scenes that are neither trained nor scored on
GOLDEN_PX = (
    128,
    96,
)  # of a golden window, at most; another width, so that the two cannot be taken for each other

Floats = npt.NDArray[np.float32]
Views = npt.NDArray[np.uint8]
Answer = Callable[[Views, Floats, Floats | None], tuple[Floats, Floats]]
"""From a view uint8 [h, w, 3] of at most S px, points [P, 2] and boxes [P, 4] to logits [P, 3, S / 4, S / 4] and quality [P, 3]."""


def gate_views(side: int) -> Views:
    """Two pieces of generated cores, as views [2, S, S, 3]."""
    scale = side / 8
    cores = [generate(seed, length_cm=14, width_cm=8, px_per_cm=scale).image for seed in (3100, 3101)]
    return np.stack([np.ascontiguousarray(core[side // 4 :][:side, :side]) for core in cores])


def gate_points(side: int) -> Floats:
    """Points [P, 2] on a grid, between pixels."""
    places = (np.arange(GATE_SIDE) + 0.5) * side / GATE_SIDE
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2).astype(np.float32)


def package_masks(
    sam: Sam, view: Views, points: Floats, boxes: Floats | None = None
) -> tuple[Floats, Floats]:
    """Answer by the package's modules, see `Answer`."""
    with torch.no_grad():
        pixels = torch.from_numpy(view).permute(2, 0, 1).float()
        embedding = sam.image_encoder(sam.preprocess(pixels[None]))
        given = (torch.from_numpy(points)[:, None], torch.ones((len(points), 1)))
        corners = None if boxes is None else torch.from_numpy(boxes)
        sparse, dense = sam.prompt_encoder(points=given, boxes=corners, masks=None)
        position = sam.prompt_encoder.get_dense_pe()
        logits, quality = sam.mask_decoder(embedding, position, sparse, dense, True)
    return logits.numpy(), quality.numpy()


def graph_masks(graphs: Sequence[bytes], side: int) -> Answer:
    """Open the two graphs of a segmenter that takes views of `side` px."""
    encoder, decoder = (ort.InferenceSession(one, providers=["CPUExecutionProvider"]) for one in graphs)

    def answer(view: Views, points: Floats, boxes: Floats | None) -> tuple[Floats, Floats]:
        whole = np.zeros((1, side, side, 3), np.uint8)
        whole[0, : view.shape[0], : view.shape[1]] = view
        found = encoder.run(IMAGE_SIDE, {"view": whole, "valid": np.array(view.shape[:2])})
        asked = {
            "points": points,
            "boxes": np.zeros((len(points), 4), np.float32) if boxes is None else boxes,
        }
        logits, quality = decoder.run(
            ("logits", "quality"), {**dict(zip(IMAGE_SIDE, found, strict=True)), **asked}
        )
        return logits, quality

    return answer


def golden_cases(answer: Answer, side: int) -> SegmenterGolden:
    """Ask about windows of generated scenes: half of the prompts points alone, half with a box."""
    height, width = (min(edge, side) for edge in GOLDEN_PX)
    rng = np.random.default_rng(GOLDEN_SEEDS)
    edges = np.array([width, height])
    points = rng.uniform(0, edges, (len(GOLDEN_SEEDS), MOST, 2)).astype(np.float32)
    reach = rng.uniform(0.05, 0.35, points.shape) * edges
    boxes = np.concatenate([points - reach, points + reach], axis=-1).astype(np.float32)
    boxes[:, : MOST // 2] = 0
    windows, masks, qualities = [], [], []
    for seed, asked, boxed in zip(GOLDEN_SEEDS, points, boxes, strict=True):
        window = np.ascontiguousarray(scene(seed, max(GOLDEN_PX)).rgb[:height, :width])
        alone, with_box = slice(None, MOST // 2), slice(MOST // 2, None)
        found = [answer(window, asked[alone], None), answer(window, asked[with_box], boxed[with_box])]
        logits, quality = (np.concatenate(part) for part in zip(*found, strict=True))
        windows.append(window)
        masks.append(logits[..., : height // CELL, : width // CELL] > 0)
        qualities.append(quality)
    return SegmenterGolden(np.stack(windows), points, boxes, np.stack(masks), np.stack(qualities))
