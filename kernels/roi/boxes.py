"""Core boxes on the host: the scan of `rules`, over an image seen as one run of bytes."""

import numpy as np
import numpy.typing as npt

from lithostream.kernels.roi.rules import CHUNK, Rule, scan, with_rule

Bytes = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


def pixels(image: Bytes) -> tuple[Bytes, int]:
    """Return an image as one run of read-only bytes and the distance of its rows; a copy only if it must be."""
    height, width, _ = image.shape
    in_rows = image.strides[1:] == (3, 1) and image.strides[0] >= 3 * width > 0
    if image.flags.c_contiguous or not in_rows:
        flat, pitch = np.ascontiguousarray(image).reshape(-1).view(), 3 * width
    else:
        pitch = image.strides[0]
        flat = np.lib.stride_tricks.as_strided(image, ((height - 1) * pitch + 3 * width,), (1,))
    flat.flags.writeable = False  # so that Numba compiles for one type of array
    return flat, pitch


def find_boxes(image: Bytes, rule: Rule, need: int, gap_px: int) -> tuple[list[Box], npt.NDArray[np.bool_]]:
    """Boxes and rows with `need` core pixels; see `lithostream.kernels.roi.core_boxes`."""
    height, width, _ = image.shape
    flat, pitch = pixels(image)
    if flat.size < 3 * CHUNK + 3:  # a chunk must fit
        flat = np.concatenate([flat, np.zeros(3 * CHUNK + 3, np.uint8)])
        flat.flags.writeable = False
    rows = np.zeros(height, np.bool_)
    found = np.empty((1 + height // (gap_px + 1), 4), np.int64)
    count = with_rule(scan, rule)(flat, pitch, width, need, gap_px, rows, found)
    return [(int(y0), int(x0), int(y1), int(x1)) for y0, x0, y1, x1 in found[:count]], rows
