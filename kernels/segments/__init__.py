"""Statistics of labelled segments, in one pass over the image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.kernels import _native
from lithostream.kernels.arrays import check_array, on_gpu, output
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


def segment_stats(
    labels: npt.NDArray[np.int32],
    channels: npt.NDArray[np.float32 | np.uint8],
    *,
    out: SegmentStats | None = None,
    stream: object | None = None,
) -> SegmentStats:
    """Count, mean, variance, box and centroid of every label.

    Parameters
    ----------
    labels : int32 [H, W]
        1..K; 0 belongs to no segment, and K is the largest label, or the length of `out`.
    channels : float32 or uint8 [H, W, C]
        Values to pool; one that is not finite is left out of its channel's statistics.
    out : SegmentStats, optional
        C-contiguous arrays to fill; none may overlap an input.
    stream : cupy.cuda.Stream, optional
        CuPy stream to queue the work on; NumPy arrays take none.

    Returns
    -------
    SegmentStats
        K rows.

    Raises
    ------
    ContractError
        Naming the argument that does not fit, a label below 0 or beyond `out` included.
    DeviceMismatchError, BackendUnavailableError
        If some arrays lie on a GPU, or all do and their GPU cannot be used.

    Notes
    -----
    Labels are read twice, channels once: 8 + 4 C bytes per pixel, or 8 + C of uint8, and 5 operations in double per
    value. Sums are taken about a value of the segment (Chan, Golub, LeVeque 1983, Algorithms for computing the sample
    variance, doi 10.1080/00031305.1983.10483115), so no offset cancels, in bands of 32 rows that are joined from top
    to bottom, so the bits do not depend on the threads.

    Scratch: 40 + 32 C bytes per segment, 4 per segment and thread, 44 + 32 C per thread and segment of a band. An
    input that is not C-contiguous is copied. On a GPU the last digits differ (relative 1e-12) and are as
    repeatable: see `lithostream.kernels.segments.cuda`.
    """
    parts = {} if out is None else {f"out.{n}": part for n, part in _parts(out).items()}
    gpu = on_gpu(stream=stream, labels=labels, channels=channels, **parts)
    check_array("labels", labels, dtype=np.int32, shape=(None, None))
    dtype = np.uint8 if getattr(channels, "dtype", None) == np.uint8 else np.float32
    check_array("channels", channels, dtype=dtype, shape=(*labels.shape, None))
    if gpu:
        from lithostream.kernels.segments import cuda

        return SegmentStats(*cuda.segment_stats(labels, channels, out, stream))
    labels = np.ascontiguousarray(labels)
    stats = outputs(out, _native.label_range(labels), channels.shape[2], np.empty)
    _native.segment_stats(labels, np.ascontiguousarray(channels), *stats)
    return stats


def outputs(
    out: SegmentStats | None, found: tuple[int, int], channels: int, empty: Callable[..., Any]
) -> SegmentStats:
    """Return the arrays to fill, once the lowest and highest label `found` are proven to fit them."""
    lowest, highest = found
    if lowest < 0:
        raise ContractError(f"labels: expected 0 or above, got {lowest}")
    given = {} if out is None else _parts(out)
    count = (
        highest if out is None else len(check_array("out.count", out.count, dtype=np.int64, shape=(None,)))
    )
    shapes = ((count,), (count, channels), (count, channels), (count, 4), (count, 2))
    kinds: tuple[type[np.generic], ...] = (np.int64, np.float64, np.float64, np.int32, np.float64)
    stats = SegmentStats(
        *(
            output(f"out.{name}", given.get(name), dtype=kind, shape=shape, empty=empty)
            for name, kind, shape in zip(SegmentStats._fields, kinds, shapes, strict=True)
        )
    )
    if highest > count:
        raise ContractError(f"labels: expected at most {count}, the length of out, got {highest}")
    return stats


def _parts(out: SegmentStats) -> dict[str, Any]:
    """Name the arrays of `out`."""
    if not isinstance(out, SegmentStats):
        raise ContractError(f"out: expected SegmentStats, got {type(out).__name__}")
    return out._asdict()
