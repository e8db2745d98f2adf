"""Run Segment Anything on many prompts of many scenes at once."""

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from lithostream.training.segmenter.fields import Bytes
from lithostream.training.segmenter.prompts import Prompts


def images(
    sam: Sam, rgb: list[Bytes], device: torch.device, valid: list[tuple[int, int]] | None = None
) -> Tensor:
    """Normalised scenes float32 [B, 3, S, S]; 0 beyond the `valid` rows and columns of each."""
    stacked = torch.from_numpy(np.stack(rgb)).to(device).permute(0, 3, 1, 2).float()
    shown = (stacked - sam.pixel_mean) / sam.pixel_std
    for image, (rows, columns) in zip(shown, valid or [], strict=False):
        image[:, rows:] = 0
        image[..., columns:] = 0
    return shown.contiguous(memory_format=torch.channels_last)


def answer(
    sam: Sam, embedding: Tensor, prompts: list[Prompts], corner: tuple[int, int] = (0, 0)
) -> tuple[Tensor, Tensor]:
    """Masks and quality of as many prompts for each scene.

    A smaller scene takes the place in the view that starts at `corner`, so that the positions mean the same as
    in a whole view.

    Parameters
    ----------
    sam : Sam
    embedding : float [B, C, S / 16, S / 16]
    prompts : list of Prompts
        P of each scene.
    corner : (int, int)
        Row and column of the scenes in the embedding of a view.

    Returns
    -------
    logits : float [B, P, 4, S / 4, S / 4]
    quality : float [B, P, 4]
        In the order of `prompts`.
    """
    (top, left), (rows, columns) = corner, embedding.shape[-2:]
    place = sam.prompt_encoder.get_dense_pe()[..., top : top + rows, left : left + columns]
    nothing = sam.prompt_encoder.no_mask_embed.weight[..., None, None]
    found = []
    for image, each in zip(embedding, prompts, strict=True):
        tokens = _tokens(sam, each, corner, embedding.device)
        dense = nothing.expand(len(tokens), -1, rows, columns)
        found.append(sam.mask_decoder.predict_masks(image[None], place, tokens, dense))
    logits, quality = zip(*found, strict=True)
    return torch.stack(logits), torch.stack(quality)


def _tokens(sam: Sam, prompts: Prompts, corner: tuple[int, int], device: torch.device) -> Tensor:
    """Tokens of prompts, float [P, 2, C]."""
    encoder = sam.prompt_encoder
    stride = encoder.input_image_size[0] / encoder.image_embedding_size[0]
    move = torch.tensor(corner[::-1], device=device) * stride
    points = (torch.from_numpy(prompts.points).to(device) + move)[:, None]
    one = torch.ones(points.shape[:2], device=device)
    from_points, _ = encoder(points=(points, one), boxes=None, masks=None)  # with a token for "no more"
    boxes = torch.from_numpy(prompts.boxes).to(device) + move.repeat(2)
    from_boxes, _ = encoder(points=None, boxes=boxes, masks=None)  # two corners: as many tokens
    chosen: Tensor = torch.where(
        torch.from_numpy(prompts.is_box).to(device)[:, None, None], from_boxes, from_points
    )
    return chosen
