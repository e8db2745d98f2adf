"""Run Segment Anything on scenes that are cut-outs of its view."""

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from lithostream.training.segmenter.fields import Bytes
from lithostream.training.segmenter.prompts import Prompts


def images(sam: Sam, rgb: list[Bytes], device: torch.device) -> Tensor:
    """Normalised scenes float32 [B, 3, S, S]."""
    stacked = torch.from_numpy(np.stack(rgb)).to(device).permute(0, 3, 1, 2).float()
    return ((stacked - sam.pixel_mean) / sam.pixel_std).contiguous(memory_format=torch.channels_last)


def answer(sam: Sam, embedding: Tensor, prompts: Prompts, corner: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks and quality of the prompts of one scene.

    A smaller scene takes the place in the view that starts at `corner`, so that the positions mean the same as
    in a whole view.

    Parameters
    ----------
    sam : Sam
    embedding : float [1, C, S / 16, S / 16]
    prompts : Prompts
    corner : (int, int)
        Row and column of the scene in the embedding of a view.

    Returns
    -------
    logits : float [P, 4, S / 4, S / 4]
    quality : float [P, 4]
        In the order of `prompts`.
    """
    encoder, device = sam.prompt_encoder, embedding.device
    stride = encoder.input_image_size[0] / encoder.image_embedding_size[0]
    top, left = corner
    rows, columns = embedding.shape[-2:]
    place = encoder.get_dense_pe()[..., top : top + rows, left : left + columns]
    move = torch.tensor([left, top], device=device) * stride
    points = (torch.from_numpy(prompts.points).to(device) + move)[:, None]
    boxes = torch.from_numpy(prompts.boxes).to(device) + move.repeat(2)
    one = torch.ones(points.shape[:2], device=device)
    from_points, dense = encoder(points=(points, one), boxes=None, masks=None)  # with a token for "no more"
    from_boxes, _ = encoder(points=None, boxes=boxes, masks=None)  # two corners: as many tokens
    sparse = torch.where(torch.from_numpy(prompts.is_box).to(device)[:, None, None], from_boxes, from_points)
    logits, quality = sam.mask_decoder.predict_masks(embedding, place, sparse, dense[..., :rows, :columns])
    return logits, quality
