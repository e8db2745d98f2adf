"""Statistics of labelled segments on a GPU; the kernels are in `cuda.cu`."""

from typing import Any, Final

import numpy as np

from lithostream.kernels.loader import cupy, gpu_module
from lithostream.kernels.segments import SegmentStats, outputs

THREADS: Final = 256
"""Threads of a block, as kThreads in `cuda.cu`."""

LANES: Final = 32
"""Most channels of a block; the rest of its threads take further pixels."""

BLOCKS: Final = 2048
"""Blocks to share the work, where segments are few; the same on every GPU, since results change with it."""

PIXELS_BYTES: Final = 24
SUMS_BYTES: Final = 32


def segment_stats(labels: Any, channels: Any, out: Any, stream: Any) -> SegmentStats:
    """Return what `lithostream.kernels.segments.segment_stats` returns, for arrays proven there but for `out`.

    The host waits once, for lowest and highest label; the rest is queued. Each segment is read through its box:
    labels once per box that holds the pixel (twice or so for superpixels) and twice more,
    channels once. Segments that are scattered over the image, such as random labels, are slow: K times H * W.
    Scratch: 24 bytes per segment, and 32 per channel of each of `BLOCKS` blocks or of each segment, if more.
    """
    xp = cupy()
    with xp.cuda.get_current_stream() if stream is None else stream:
        kernels = gpu_module("segments")
        labels, channels = xp.ascontiguousarray(labels), xp.ascontiguousarray(channels)
        stats = outputs(out, _label_range(kernels, labels), channels.shape[2], xp.empty)
        if len(stats.count):
            _fill(kernels, labels, channels, stats)
    return stats


def _label_range(kernels: Any, labels: Any) -> tuple[int, int]:
    """Return the lowest and the highest label, 0 among them."""
    found = cupy().zeros(2, np.int32)
    if labels.size:
        blocks = min(BLOCKS, -(-labels.size // THREADS))
        kernels.get_function("label_range")((blocks,), (THREADS,), (labels, np.int64(labels.size), found))
    lowest, highest = found.get().tolist()
    return lowest, highest


def _fill(kernels: Any, labels: Any, channels: Any, stats: SegmentStats) -> None:
    """Queue the kernels that fill `stats`."""
    xp = cupy()
    height, width, count = channels.shape
    segments = len(stats.count)
    stats.box[:, :2], stats.box[:, 2:] = np.iinfo(np.int32).max, 0
    if labels.size:
        tiles = height * -(-width // THREADS)
        kernels.get_function("boxes")((tiles,), (THREADS,), (labels, np.int32(width), stats.box))
    lanes = max(1, min(LANES, count))
    splits = max(1, min(BLOCKS // segments, labels.size // (8 * THREADS)))
    pixels = xp.zeros(segments * PIXELS_BYTES, np.uint8)
    partial = xp.empty(segments * splits * count * SUMS_BYTES, np.uint8)
    kernels.get_function("gather_byte" if channels.dtype == np.uint8 else "gather_float")(
        (segments, splits, max(1, -(-count // lanes))),
        (THREADS // lanes * lanes,),
        (labels, channels, np.int32(width), np.int32(count), np.int32(lanes), stats.box, pixels, partial),
    )
    kernels.get_function("finish")(
        (-(-segments * max(1, count) // THREADS),),
        (THREADS,),
        (np.int32(segments), np.int32(count), np.int32(splits), pixels, partial, *stats),
    )
