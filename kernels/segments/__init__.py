"""Statistics of labelled segments, in one pass over the image."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError

__all__ = ["SegmentStats", "segment_stats"]


class SegmentStats(NamedTuple):
    """Row k describes label k + 1; a label without pixels has count 0, an empty box and NaN elsewhere.

    Attributes
    ----------
    count : int64 [K]
        Pixels of the label, whatever their channels hold.
    mean, variance : float64 [K, C]
        Over the finite values of the channel (population variance); NaN where there are none.
    box : int32 [K, 4]
        (y0, x0, y1, x1), half-open px.
    centroid : float64 [K, 2]
        Mean (y, x) of the pixel indices.
    """

    count: npt.NDArray[np.int64]  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    box: npt.NDArray[np.int32]
    centroid: npt.NDArray[np.float64]


def segment_stats(labels: npt.NDArray[np.int32], channels: npt.NDArray[np.float32]) -> SegmentStats:
    """Count, mean, variance, box and centroid of every label.

    Parameters
    ----------
    labels : int32 [H, W]
        1..K; 0 belongs to no segment, and K is the largest label.
    channels : float32 [H, W, C]
        Values to pool; one that is not finite is left out of its channel's statistics.

    Returns
    -------
    SegmentStats
        K rows.

    Raises
    ------
    ContractError
        Naming the argument that does not fit, a negative label included.

    Notes
    -----
    Cost: one pass, O(H * W * C), and 24 bytes per segment and channel. Copies an input that is not
    C-contiguous. Double, in row order, by Welford's update, which no offset can cancel (Welford 1962, Note
    on a method for calculating corrected sums of squares, doi 10.1080/00401706.1962.10490022).
    """
    check_array("labels", labels, dtype=np.int32, shape=(None, None))
    check_array("channels", channels, dtype=np.float32, shape=(*labels.shape, None))
    if labels.size and labels.min() < 0:
        raise ContractError(f"labels: expected 0 or above, got {labels.min()}")
    count = int(labels.max()) if labels.size else 0
    width = channels.shape[2]
    stats = SegmentStats(
        np.empty(count, np.int64),
        np.empty((count, width)),
        np.empty((count, width)),
        np.empty((count, 4), np.int32),
        np.empty((count, 2)),
    )
    _native.segment_stats(np.ascontiguousarray(labels), np.ascontiguousarray(channels), *stats)
    return stats
