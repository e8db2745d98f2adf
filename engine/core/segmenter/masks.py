"""Masks of a view: which of those a decoder gives are kept.

A view's masks keep the resolution the decoder gives them, a quarter of the view: an outline finer than that is the
superpixels' part.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from lithostream.kernels.arrays import array_module, to_host

OFFSET = 1.0  # of the stability score, in logits: the default of `SamAutomaticMaskGenerator`
OUTSIDE = np.float32(-100.0)  # logit of what is no image: not inside at any threshold

Floats = npt.NDArray[np.float32]


class MaskSet(NamedTuple):
    """Masks of one view, best first.

    Attributes
    ----------
    logits : float32 [M, S / 4, S / 4]
        Above 0 inside.
    quality : float32 [M]
        IoU with the true object, as the network estimates it.
    stability : float32 [M]
        Pixels above +1 over pixels above -1: near 1 where the outline is sharp.
    seed : float32 [M, 2]
        x, y in px of the view of the point that asked.
    prompt : int64 [M]
        Its index.
    capped : bool
        More masks were found than are given.
    """

    logits: Floats
    quality: Floats
    stability: Floats
    seed: Floats
    prompt: npt.NDArray[np.int64]
    capped: bool = False


class Limits(NamedTuple):
    """What a mask must reach.

    Attributes
    ----------
    quality, stability : float
        Least values.
    overlap : float
        Of two masks of a larger IoU the better one stays.
    most : int
        Masks of a view.
    """

    quality: float
    stability: float
    overlap: float = 0.8
    most: int = 1024


def no_masks(side: int) -> MaskSet:
    """Return the set of no mask of `side` px."""
    empty = np.zeros(0, np.float32)
    return MaskSet(
        np.zeros((0, side, side), np.float32),
        empty,
        empty,
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.int64),
    )


def accept(
    logits: Floats, quality: Floats, points: Floats, first: int, valid: tuple[int, int], limits: Limits
) -> MaskSet:
    """Keep the masks of a batch of prompts that are good by themselves.

    Parameters
    ----------
    logits : float32 [P, K, S, S]
    quality : float32 [P, K]
        Both on one device, on which is decided what is kept.
    points : float32 [P, 2]
    first : int
        Index of the first prompt.
    valid : (int, int)
        Rows and columns of the masks that are image; beyond, logits become `OUTSIDE`.
    limits : Limits

    Returns
    -------
    MaskSet
        On the host. In the order of the prompts; empty masks left out, as are NaNs.
    """
    xp = array_module(logits)
    asked, kind = xp.nonzero(quality > limits.quality)
    chosen = logits[asked, kind]
    chosen[:, valid[0] :] = OUTSIDE
    chosen[:, :, valid[1] :] = OUTSIDE
    within = xp.count_nonzero(chosen > OFFSET, axis=(1, 2))
    about = xp.count_nonzero(chosen > -OFFSET, axis=(1, 2))
    stability = (within / xp.maximum(about, 1)).astype(np.float32)
    good = (stability >= limits.stability) & (chosen > 0).any(axis=(1, 2))
    asked, kind = asked[good], kind[good]
    given = to_host(quality[asked, kind])
    asked = to_host(asked)
    return MaskSet(
        to_host(chosen[good]), given, to_host(stability[good]), points[asked], asked + np.int64(first)
    )


def joined(parts: list[MaskSet]) -> MaskSet:
    """Join sets, at least one, in their order."""
    logits, quality, stability, seed, prompt, capped = zip(*parts, strict=True)
    return MaskSet(
        np.concatenate(logits),
        np.concatenate(quality),
        np.concatenate(stability),
        np.concatenate(seed),
        np.concatenate(prompt),
        any(capped),
    )


def suppress(masks: MaskSet, limits: Limits) -> MaskSet:
    """Keep the best of masks that overlap, and of those at most `limits.most`, best first.

    A mask stays unless a better one that stayed has an IoU with it above `limits.overlap`. Of equal quality the one
    of the earlier prompt is better, then the one that comes first.
    """
    order = np.lexsort((masks.prompt, -masks.quality))
    height, width = masks.logits.shape[1:]
    inside = np.packbits((masks.logits > 0).reshape(len(order), height * width), axis=1)
    pad = -inside.shape[1] % 8  # to whole words
    bits = np.pad(inside, ((0, 0), (0, pad))).view(np.uint64)[order]
    kept = order[_best(bits, limits.overlap)]
    capped = masks.capped or len(kept) > limits.most
    return _take(masks, kept[: limits.most])._replace(capped=capped)


def _take(masks: MaskSet, chosen: npt.NDArray[np.int64]) -> MaskSet:
    logits, quality, stability, seed, prompt, capped = masks
    return MaskSet(logits[chosen], quality[chosen], stability[chosen], seed[chosen], prompt[chosen], capped)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]  # numba is untyped
def _best(bits: npt.NDArray[np.uint64], overlap: float) -> npt.NDArray[np.int64]:
    """Places of the masks, given as bits [M, W] and best first, that none before them suppresses."""
    count, words = bits.shape
    areas = np.zeros(count, np.int64)
    kept = np.empty(count, np.int64)
    found = 0
    for one in range(count):
        for word in range(words):
            areas[one] += _ones(bits[one, word])
        stays = True
        for place in range(found):
            other = kept[place]
            small, large = min(areas[one], areas[other]), max(areas[one], areas[other])
            if small <= overlap * large:  # the IoU is at most the ratio of the areas
                continue
            common = 0
            for word in range(words):
                common += _ones(bits[one, word] & bits[other, word])
            if common > overlap * (small + large - common):
                stays = False
                break
        if stays:
            kept[found] = one
            found += 1
    return kept[:found]


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _ones(word: np.uint64) -> np.uint64:
    """Count the bits of a word that are set (Warren, Hacker's Delight, section 5-1)."""
    word = word - ((word >> uint64(1)) & uint64(0x5555555555555555))
    word = (word & uint64(0x3333333333333333)) + ((word >> uint64(2)) & uint64(0x3333333333333333))
    word = (word + (word >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return np.uint64((word * uint64(0x0101010101010101)) >> uint64(56))
