"""Region of interest: which pixels of a core image are core.

A colour rule tells what each pixel shows (`rules`), then geometry decides, all of it from pixels nearby:

1. A dark place no wider than `crack_px` belongs to the core; one that holds a wider square is a void.
2. Foreign matter (foam, pins, caps, labels) is closed over ink and slits narrower than a crack, then grown by a
   rim of a quarter of a crack for its shadow and blurred border.
3. Lateral limits: first and last run of `crack_px` solid pixels, median over the rows within `crack_px`, drawn in
   by the same rim, since a split core is smeared along its liner. Outside lies the frame.
4. A row counts when one stretch of it, not interrupted by a foreign body wider than a crack, holds enough core.
   Two pieces beside a foam block do not add up, two pieces beside a plug hole do. Enough is a share of the width
   between the limits, or of half the picture where they enclose less, so a scrap in a dark frame is no row.
5. A piece of core shorter than `min_piece_px` between rows without core is debris, or a row of grey patches of a
   colour card. At the edges of the image nobody knows how a piece goes on: it stays.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba.core.dispatcher import Dispatcher

from lithostream.kernels.arrays import check_array, on_gpu, output
from lithostream.kernels.errors import ContractError
from lithostream.kernels.roi.boxes import Box, find_boxes, pixels
from lithostream.kernels.roi.cpu import core_mask
from lithostream.kernels.roi.rules import RULES, Rule, classify, with_rule

__all__ = ["RULES", "CoreBoxes", "Roi", "Rule", "core_boxes", "core_roi"]

OUTSIDE: Final = 3
"""Class code of a pixel that `alpha` takes out: neither core, nor dark, nor foreign."""


class Roi(NamedTuple):
    """The core part of an image.

    Attributes
    ----------
    mask : bool [H, W]
        Pixels that are core.
    rows : bool [H]
        Rows that hold core.
    box : (y0, x0, y1, x1) or None
        Smallest half-open rectangle around the mask; None where there is no core.
    """

    mask: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int] | None


class CoreBoxes(NamedTuple):
    """Where core lies in an image.

    Attributes
    ----------
    boxes : list of (y0, x0, y1, x1)
        Half-open rectangles from top to bottom; no row lies in two.
    rows : bool [H]
        Rows that hold enough core.
    """

    boxes: list[Box]
    rows: npt.NDArray[np.bool_]


def core_roi(
    image: npt.NDArray[np.uint8],
    *,
    rule: str | Rule = "sediment",
    crack_px: int,
    min_row_fraction: float = 0.5,
    min_piece_px: int = 1,
    alpha: npt.NDArray[np.bool_] | None = None,
    out: npt.NDArray[np.bool_] | None = None,
    stream: object | None = None,
) -> Roi:
    """Find the pixels of a core image that show core.

    A row of the mask depends on the `2 * crack_px + min_piece_px` image rows above and below it, so a window with
    that much halo gives the same mask as the whole image. Cost: linear in the pixels.

    Parameters
    ----------
    image : uint8 [H, W, 3]
        Rows along the core, any strides.
    rule : str or compiled function
        A key of `RULES`, or an own `numba.njit` function of (r, g, b) that returns a class code.
    crack_px : int
        Widest dark slit that still counts as core, at least 1; also the scale of every other distance.
    min_row_fraction : float
        Share of the width, 0..1, that the best stretch of a row must hold.
    min_piece_px : int
        Fewest consecutive rows of a piece of core.
    alpha : bool [H, W], optional
        False where a pixel is outside the picture and thus never core.
    out : bool [H, W], optional
        C-contiguous array for the mask; must not overlap `image` or `alpha`.
    stream : cupy.cuda.Stream, optional
        CuPy stream to queue the work on; NumPy arrays take none.

    Raises
    ------
    ContractError
        Where an argument breaks the contract above.
    DeviceMismatchError, BackendUnavailableError
        If some arrays lie on a GPU, or all do and their GPU cannot be used.

    Notes
    -----
    3 bytes per pixel are read and 1 is written. Scratch: 2 bytes per pixel, with `out` as well, 3 more to copy an
    image whose rows are no runs of 3 W bytes, such as a transposed one, and a few rows. On a GPU: 9/8 byte per
    pixel and 48 per row, no copy, and the host waits once, for the box.
    """
    gpu = on_gpu(stream=stream, image=image, alpha=alpha, out=out)
    check_array("image", image, dtype=np.uint8, shape=(None, None, 3))
    if crack_px < 1:
        raise ContractError(f"crack_px: expected at least 1, got {crack_px}")
    if min_piece_px < 1:
        raise ContractError(f"min_piece_px: expected at least 1, got {min_piece_px}")
    if not 0 <= min_row_fraction <= 1:
        raise ContractError(f"min_row_fraction: expected 0..1, got {min_row_fraction}")
    height, width, _ = image.shape
    if alpha is not None:
        check_array("alpha", alpha, dtype=np.bool_, shape=(height, width))
    own = _compiled(rule)
    if gpu:
        from lithostream.kernels.roi import cuda

        return Roi(*cuda.core_roi(image, own, crack_px, min_row_fraction, min_piece_px, alpha, out, stream))
    mask = output("out", out, dtype=np.bool_, shape=(height, width))
    classes = np.empty((height, width), np.uint8)
    with_rule(classify, own)(*pixels(image), classes)
    if alpha is not None:
        classes[~alpha] = OUTSIDE
    core_mask(classes, crack_px, min_row_fraction, min_piece_px, mask)
    return bounded(mask)


def core_boxes(
    image: npt.NDArray[np.uint8],
    *,
    rule: str | Rule = "sediment",
    min_row_fraction: float = 0.0,
    min_gap_px: int | None = None,
    stream: object | None = None,
) -> CoreBoxes:
    """Find the rows of an image that hold core, and the boxes around them, from the colour rule alone.

    A row is valid when it holds a core pixel and at least `min_row_fraction` of its pixels are core; dark and
    foreign pixels are not. Valid rows with fewer than `min_gap_px` rows between them that are not valid belong
    together. Their box is the smallest rectangle around the core pixels of the valid rows. With the default
    fraction and gap the one box is OpenCV's `boundingRect` of the rule's mask.

    Parameters
    ----------
    image : uint8 [H, W, 3]
        Rows along the core or across it; transpose a photograph whose rows of core run from top to bottom.
    rule : str or compiled function
        As in `core_roi`.
    min_row_fraction : float
        Share of the pixels of a row, 0..1.
    min_gap_px : int, optional
        Rows between two boxes, at least 1; without it all valid rows share one box.
    stream : cupy.cuda.Stream, optional
        CuPy stream to queue the work on; NumPy arrays take none.

    Returns
    -------
    CoreBoxes
        Boxes, none where no row is valid, and the valid rows.

    Raises
    ------
    ContractError
        Where an argument breaks the contract above.
    BackendUnavailableError
        If the image lies on a GPU that cannot be used.

    Notes
    -----
    Equal to a pass over all pixels, and reads but some: of a row that is not valid all (3 W bytes), of a valid one
    as many as tell so, and those outside the limits that the rows above it have set, which must be looked at. Only
    an image whose rows are no runs of 3 W bytes, such as a transposed one, is copied first. One thread does it all,
    without the interpreter lock. A GPU reads all pixels, and the host waits once, for 16 bytes per row.
    """
    gpu = on_gpu(stream=stream, image=image)
    check_array("image", image, dtype=np.uint8, shape=(None, None, 3))
    if not 0 <= min_row_fraction <= 1:
        raise ContractError(f"min_row_fraction: expected 0..1, got {min_row_fraction}")
    if min_gap_px is not None and min_gap_px < 1:
        raise ContractError(f"min_gap_px: expected at least 1 or None, got {min_gap_px}")
    height, width, _ = image.shape
    need = max(1, math.ceil(min_row_fraction * width))
    gap_px = height + 1 if min_gap_px is None else min_gap_px
    if gpu:
        from lithostream.kernels.roi import cuda

        return CoreBoxes(*cuda.core_boxes(image, _compiled(rule), need, gap_px, stream))
    return CoreBoxes(*find_boxes(image, _compiled(rule), need, gap_px))


def bounded(mask: npt.NDArray[np.bool_]) -> Roi:
    """Add rows and box to a mask."""
    rows: npt.NDArray[np.bool_] = np.any(mask, axis=1)
    y, x = np.flatnonzero(rows), np.flatnonzero(mask.any(axis=0))
    box = (int(y[0]), int(x[0]), int(y[-1]) + 1, int(x[-1]) + 1) if len(y) else None
    return Roi(mask, rows, box)


def _compiled(rule: str | Rule) -> Rule:
    if isinstance(rule, str):
        if rule not in RULES:
            raise ContractError(f"rule: expected one of {sorted(RULES)}, got {rule!r}")
        return RULES[rule]
    if not isinstance(rule, Dispatcher):
        raise ContractError(f"rule: expected a name or a function compiled with numba.njit, got {rule!r}")
    return rule
