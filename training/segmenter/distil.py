"""A trained Segment Anything as a teacher: the same prompts, its masks."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamPredictor
from torch.nn.functional import interpolate

from lithostream.training.segmenter.checkpoint import load_sam
from lithostream.training.segmenter.config import DistilConfig
from lithostream.training.segmenter.prompts import MASK_STRIDE, Prompts, mask_iou
from lithostream.training.segmenter.scenes import Scene


class SamTeacher:
    """Answer prompts by a network of any size; a scene is scaled to the view of that network.

    Parameters
    ----------
    config : DistilConfig
    folder : Path
        Where the configuration lies: its checkpoint is relative to it.
    device : device

    Raises
    ------
    BundleError
        As `load_sam`.
    """

    def __init__(self, config: DistilConfig, folder: Path, device: torch.device) -> None:
        path = folder / config.checkpoint
        self._predictor = SamPredictor(load_sam(path, config.architecture).to(device))

    def __call__(self, scene: Scene, prompts: Prompts) -> npt.NDArray[np.float32]:
        """Shares float32 [P, S / 4, S / 4]: of the three masks the one nearest to the exact one."""
        predictor, size = self._predictor, scene.rgb.shape[:2]
        predictor.set_image(scene.rgb)
        taught = np.zeros(prompts.masks.shape, np.float32)
        for boxes in (False, True):
            chosen = np.flatnonzero(prompts.is_box == boxes)
            if not len(chosen):
                continue
            points = torch.from_numpy(prompts.points[chosen]).to(predictor.device)[:, None]
            asked = torch.from_numpy(prompts.boxes[chosen]).to(predictor.device)
            logits, _, _ = predictor.predict_torch(
                None if boxes else predictor.transform.apply_coords_torch(points, size),
                None if boxes else torch.ones(points.shape[:2], device=predictor.device),
                predictor.transform.apply_boxes_torch(asked, size) if boxes else None,
                return_logits=True,
            )
            at = interpolate(logits, scale_factor=1 / MASK_STRIDE, mode="area").cpu()
            nearest = mask_iou(at.numpy() > 0, prompts.masks[chosen, None] >= 0.5).argmax(axis=1)
            taught[chosen] = torch.sigmoid(at).numpy()[np.arange(len(chosen)), nearest]
        return taught
