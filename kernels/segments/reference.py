"""Segment statistics in plain NumPy: one segment after the other, two passes in float64."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.segments import SegmentStats


def segment_stats(labels: npt.NDArray[np.int32], channels: npt.NDArray[np.float32]) -> SegmentStats:
    """See `lithostream.kernels.segments.segment_stats`."""
    count = int(labels.max(initial=0))
    stats = SegmentStats(
        np.zeros(count, np.int64),
        np.full((count, channels.shape[2]), np.nan),
        np.full((count, channels.shape[2]), np.nan),
        np.zeros((count, 4), np.int32),
        np.full((count, 2), np.nan),
    )
    for k in range(count):
        ys, xs = np.nonzero(labels == k + 1)
        stats.count[k] = ys.size
        if ys.size == 0:
            continue
        stats.box[k] = ys.min(), xs.min(), ys.max() + 1, xs.max() + 1
        stats.centroid[k] = ys.mean(), xs.mean()
        for c, values in enumerate(channels[ys, xs].astype(np.float64).T):
            finite = values[np.isfinite(values)]
            if finite.size:
                stats.mean[k, c], stats.variance[k, c] = finite.mean(), finite.var()
    return stats
