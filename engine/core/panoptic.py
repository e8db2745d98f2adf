"""How well segments agree with objects drawn by hand."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels.arrays import check_array


class PanopticQuality(NamedTuple):
    """Agreement of segments and objects; `quality` is the product of the next two.

    Attributes
    ----------
    quality : float
        PQ, 0..1; NaN where there is neither an object nor a segment to judge.
    segmentation : float
        SQ: mean IoU of the matches; 0 without a match.
    recognition : float
        RQ: F1 of finding them.
    matched, missed, invented : int
        Objects with a segment of IoU above 0.5; objects without; segments without.
    """

    quality: float
    segmentation: float
    recognition: float
    matched: int
    missed: int
    invented: int


def panoptic_quality(
    truth: npt.NDArray[np.int32],
    predicted: npt.NDArray[np.int32],
    *,
    void: npt.NDArray[np.bool_] | None = None,
    count_background: bool = False,
) -> PanopticQuality:
    """Score a segmentation that gives every pixel one label, without classes.

    An object and a segment match if their IoU is above 0.5; so each has at most one match. Void pixels count neither
    in a segment's area nor in its IoU, and an unmatched segment more than half void is left out.

    Background, the pixels that are no object, is known not to be one and is not void: a segment that spills into it
    loses IoU. But segments here carry no class, and cutting up a box's walls is no error of segments of rock. So
    unmatched segments that lie to more than half on background are taken as background, unless `count_background`.

    Parameters
    ----------
    truth : int32 [H, W]
        Objects 1, 2, ...; 0 is background.
    predicted : int32 [H, W]
        Segments 1, 2, ...; 0 is none. Numbers may be missing.
    void : bool [H, W], optional
        Pixels of which nothing is known.
    count_background : bool
        Segments on background are inventions too.

    Raises
    ------
    ContractError
        Arrays that do not fit.

    Notes
    -----
    Source: Kirillov et al. (2019), Panoptic segmentation, arXiv 1801.00868, section 4.
    """
    check_array("truth", truth, dtype=np.int32, shape=(None, None))
    check_array("predicted", predicted, dtype=np.int32, shape=truth.shape)
    void = np.zeros(truth.shape, np.bool_) if void is None else void
    check_array("void", void, dtype=np.bool_, shape=truth.shape)
    code = np.where(void, 0, truth.astype(np.int64) + 1)  # 0 void, 1 background, then the objects
    pairs, count = np.unique((code << 32) | predicted, return_counts=True)
    object_, segment = pairs >> 32, pairs & 0xFFFFFFFF
    areas = np.bincount(object_, count)
    seen = np.bincount(segment, np.where(object_ > 0, count, 0))
    whole = np.bincount(segment, count)
    is_pair = (object_ > 1) & (segment > 0)
    union = areas[object_] + seen[segment] - count
    iou = np.where(is_pair, count / np.maximum(union, 1), 0.0)
    match = iou > 0.5
    beside = np.bincount(segment, np.where(object_ <= (0 if count_background else 1), count, 0))
    unmatched = np.setdiff1d(np.unique(segment[segment > 0]), segment[match])
    invented = int(np.count_nonzero(beside[unmatched] <= 0.5 * whole[unmatched]))
    found = int(np.count_nonzero(match))
    missed = int(np.count_nonzero(areas[2:])) - found
    half = found + 0.5 * (missed + invented)
    if half == 0:
        return PanopticQuality(float("nan"), float("nan"), float("nan"), 0, 0, 0)
    segmentation, recognition = float(iou[match].sum()) / max(found, 1), found / half
    return PanopticQuality(segmentation * recognition, segmentation, recognition, found, missed, invented)
