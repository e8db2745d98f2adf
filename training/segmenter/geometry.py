"""What every pixel of a scene can learn without a prompt: where its object lies, how large it is, where it ends."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lithostream.training.segmenter.fields import Ints
from lithostream.training.segmenter.prompts import MASK_STRIDE

CHANNELS = 5  # x and y of the middle, logarithm of the size, border, inside
REACH = 128.0  # px that one unit of a middle stands for
LEAST = 8.0  # px: what a middle may be off by however small the object is


def geometry(whole: Ints) -> npt.NDArray[np.float32]:
    """Describe the object of every pixel of a mask.

    Parameters
    ----------
    whole : int32 [S, S]
        Objects from 1; 0 is none.

    Returns
    -------
    float32 [5, S / 4, S / 4]
        x and y of the object's middle and the root of its area, px; 1 at its border; 1 inside of any.
    """
    label = whole[MASK_STRIDE // 2 :: MASK_STRIDE, MASK_STRIDE // 2 :: MASK_STRIDE]
    y, x = (MASK_STRIDE * (axis.ravel() + 0.5) for axis in np.indices(label.shape))
    flat = label.ravel()
    count = np.maximum(np.bincount(flat), 1)
    middle = [np.bincount(flat, axis) / count for axis in (x, y)]
    border = np.zeros(label.shape, np.bool_)
    for along, edge in ((label, border), (label.T, border.T)):
        differs = along[1:] != along[:-1]
        edge[1:] |= differs
        edge[:-1] |= differs
    drawn = [middle[0][label], middle[1][label], MASK_STRIDE * np.sqrt(count)[label], border, label > 0]
    return np.stack(drawn).astype(np.float32)


def geometry_loss(found: Tensor, wanted: Tensor, corner: tuple[int, int], view: int) -> Tensor:
    """Loss of what the pixels say about their objects, one number.

    Parameters
    ----------
    found : float [B, 5, H, W]
        Middle from that of the view in units of `REACH`, logarithm of the size in px, logits of border and inside.
    wanted : float32 [B, 5, H, W]
        What `geometry` gives.
    corner : (int, int)
        y and x of the scene in the view, px.
    view : int
        Edge of the view, px.
    """
    shift = torch.tensor([corner[1] - view / 2, corner[0] - view / 2], device=found.device)
    size, inside = wanted[:, 2], wanted[:, 4]
    off = (found[:, :2] * REACH - (wanted[:, :2] + shift[:, None, None])).abs().sum(dim=1) / (size + LEAST)
    each = off + (found[:, 2] - size.log()).abs()
    edges = binary_cross_entropy_with_logits(found[:, 3:], wanted[:, 3:])
    return (each * inside).sum() / inside.sum().clamp(min=1) + edges
