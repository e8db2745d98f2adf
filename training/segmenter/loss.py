"""Losses of masks, after Kirillov et al. (2023, arXiv 2304.02643, appendix A).

In place of their focal loss stands cross-entropy with as much weight as Dice's: over a few hundred steps from
random weights, focal loss at 20 to 1 leaves the masks alike for every prompt.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

CROSS_ENTROPY, DICE, QUALITY, SINGLE = 2.0, 2.0, 1.0, 0.25


def mask_loss(logits: Tensor, quality: Tensor, wanted: Tensor, exact: Tensor | None = None) -> Tensor:
    """Loss of the masks of P prompts, one number.

    Of the masks of a prompt the one of least loss counts, so that the three may answer with a whole, a part and
    a part of it; their predicted IoU is learned for all. The single mask (the first) learns at a low weight. A
    prompt without an object has masks of any shape, worth 0.

    Parameters
    ----------
    logits : float [P, 4, H, W]
        The single mask, then the three.
    quality : float [P, 4]
        Predicted IoU.
    wanted : float32 [P, H, W]
        Shares in 0 .. 1.
    exact : float32 [P, H, W], optional
        What the IoU is measured against; `wanted` if not given.
    """
    exact = wanted if exact is None else exact
    logits = logits.float()
    each = CROSS_ENTROPY * cross_entropy(logits, wanted[:, None]) + DICE * dice(logits, wanted[:, None])
    has = (exact.amax(dim=(1, 2)) > 0).float()
    best = each[:, 1:].amin(dim=1) + SINGLE * each[:, 0]
    error = (quality.float() - iou(logits.detach() > 0, exact[:, None] >= 0.5)) ** 2
    return (best * has).sum() / has.sum().clamp(min=1) + QUALITY * error.mean()


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the last two axes."""
    each = binary_cross_entropy_with_logits(logits, wanted.expand_as(logits), reduction="none")
    return each.mean(dim=(-2, -1))


def dice(logits: Tensor, wanted: Tensor) -> Tensor:
    """One less Dice's coefficient, over the last two axes."""
    share = torch.sigmoid(logits)
    both = 2 * (share * wanted).sum(dim=(-2, -1)) + 1
    return 1 - both / (share.sum(dim=(-2, -1)) + wanted.sum(dim=(-2, -1)) + 1)


def iou(found: Tensor, wanted: Tensor) -> Tensor:
    """Intersection over union of bool masks over the last two axes; 0 where both are empty."""
    both = (found & wanted).sum(dim=(-2, -1))
    return both / (found | wanted).sum(dim=(-2, -1)).clamp(min=1)
