"""How well one point finds an object of scenes that were not trained on, beside superpixels."""

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam

from lithostream.engine.config import StrictModel
from lithostream.kernels.superpixels import slic
from lithostream.training.segmenter.batch import answer, images
from lithostream.training.segmenter.fields import Bools, Bytes, Floats
from lithostream.training.segmenter.prompts import MASK_STRIDE, draw_prompts, mask_iou
from lithostream.training.segmenter.scenes import scene

HELD_OUT = 2**40  # seeds from here on are never trained on
PROMPTS = 16
SEGMENTS = (20, 60, 200)  # superpixels of a view; the best number counts for the baseline


class SegmenterScore(StrictModel):
    """Mean IoU over the objects of held-out scenes, each asked for by one point inside.

    Attributes
    ----------
    scenes, objects : int
    best_of_three : float
        Mask nearest to the object.
    chosen : float
        Mask of the highest predicted IoU.
    quality_error : float
        Mean absolute error of the predicted IoU.
    superpixel : float
        Superpixel under the point, for the best number of superpixels.
    """

    scenes: int
    objects: int
    best_of_three: float
    chosen: float
    quality_error: float
    superpixel: float


def score(sam: Sam, scenes: int, size: int = 512) -> SegmenterScore:
    """Measure a network that takes views of 512 px on held-out scenes."""
    best, chosen, errors, pixels = [], [], [], []
    device = sam.pixel_mean.device
    for seed in range(HELD_OUT, HELD_OUT + scenes):
        made, rng = scene(seed, size), np.random.default_rng(seed)
        prompts = draw_prompts(rng, made, PROMPTS, 0.0, 0.0)
        with torch.no_grad():
            embedding = sam.image_encoder(images(sam, [made.rgb], device))
            logits, quality = answer(sam, embedding, [prompts])
        found, worth = logits[0, :, 1:].cpu().numpy() > 0, quality[0, :, 1:].cpu().numpy()
        wanted = prompts.masks >= 0.5
        real = wanted.any(axis=(1, 2))
        ious = mask_iou(found, wanted[:, None])[real]
        pick = worth[real].argmax(axis=1)
        best.append(ious.max(axis=1))
        chosen.append(ious[np.arange(len(pick)), pick])
        errors.append(np.abs(ious - worth[real]).ravel())
        pixels.append(_superpixels(made.rgb, prompts.points[real], wanted[real]))
    return SegmenterScore(
        scenes=scenes,
        objects=sum(map(len, best)),
        best_of_three=float(np.concatenate(best).mean()),
        chosen=float(np.concatenate(chosen).mean()),
        quality_error=float(np.concatenate(errors).mean()),
        superpixel=float(np.concatenate(pixels, axis=1).mean(axis=1).max()),
    )


def _superpixels(rgb: Bytes, points: Floats, wanted: Bools) -> npt.NDArray[np.float64]:
    """IoU of the superpixel under each point, float64 [len(SEGMENTS), P]."""
    at = points[:, 1].astype(int), points[:, 0].astype(int)
    rows = []
    for count in SEGMENTS:
        label = slic(rgb, n_segments=count, compactness=10.0)
        found = label[None, 2::MASK_STRIDE, 2::MASK_STRIDE] == label[at][:, None, None]
        rows.append(mask_iou(found, wanted))
    return np.stack(rows)
