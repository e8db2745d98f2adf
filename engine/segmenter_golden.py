"""Golden cases of a segmenter: small windows, prompts on them, and the masks expected of any runtime."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

CELL = 4  # px of a window that one value of a mask stands for
MASKS = 3  # a prompt
MOST = 16  # windows, and prompts on each

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


class SegmenterGolden(NamedTuple):
    """Golden cases.

    Attributes
    ----------
    windows : uint8 [G, h, w, 3]
        Each lies at the top left of a view that is otherwise no image.
    points : float32 [G, P, 2]
    boxes : float32 [G, P, 4]
        Zeros where a point stands alone.
    masks : bool [G, P, 3, h / 4, w / 4]
        Expected where the window is.
    quality : float32 [G, P, 3]
        Expected of the network's own estimate of their IoU.
    """

    windows: npt.NDArray[np.uint8]
    points: Floats
    boxes: Floats
    masks: Bools
    quality: Floats

    def to_bytes(self) -> bytes:
        """Return them as a safetensors file, with masks as bits."""
        bits = np.packbits(self.masks.reshape(*self.masks.shape[:3], -1), axis=-1)
        return save({**self._asdict(), "masks": bits})

    @classmethod
    def from_bytes(cls, content: bytes, view_px: int) -> Self:
        """Read what `to_bytes` gave.

        Raises
        ------
        ValueError
            It is no such file, or an array does not fit.
        """
        try:
            held = load(content)
        except (SafetensorError, KeyError) as error:  # KeyError: a type that NumPy does not have
            raise ValueError(f"not a safetensors file: {error}") from error
        if set(held) != set(cls._fields):
            raise ValueError(f"holds {sorted(held)}, expected {sorted(cls._fields)}")
        windows, points = held["windows"], held["points"]
        if windows.ndim != 4 or points.ndim != 3:
            raise ValueError(f"windows are {windows.shape}, points {points.shape}")
        (cases, height, width, _), asked = windows.shape, points.shape[1]
        if not (0 < cases <= MOST and 0 < asked <= MOST):
            raise ValueError(f"{cases} windows with {asked} prompts each, expected 1 to {MOST} of both")
        if height % CELL or width % CELL or not (0 < height <= view_px and 0 < width <= view_px):
            raise ValueError(f"windows of {height} x {width} px in a view of {view_px}")
        cells = height // CELL * (width // CELL)
        wanted = {
            "windows": (np.uint8, (cases, height, width, 3)),
            "points": (np.float32, (cases, asked, 2)),
            "boxes": (np.float32, (cases, asked, 4)),
            "masks": (np.uint8, (cases, asked, MASKS, -(-cells // 8))),
            "quality": (np.float32, (cases, asked, MASKS)),
        }
        for name, (kind, shape) in wanted.items():
            if held[name].dtype != kind or held[name].shape != shape:
                raise ValueError(f"{name} are {held[name].dtype} {held[name].shape}, expected {shape}")
            if not np.isfinite(held[name]).all():
                raise ValueError(f"{name} are not finite numbers")
        bits = np.unpackbits(held["masks"], axis=-1, count=cells).astype(np.bool_)
        shape = (cases, asked, MASKS, height // CELL, width // CELL)
        return cls(windows, points, held["boxes"], bits.reshape(shape), held["quality"])


def mask_iou(one: Bools, two: Bools) -> Floats:
    """IoU of masks [..., H, W] with others; 1 where both are empty."""
    common = np.count_nonzero(one & two, axis=(-2, -1))
    both = np.count_nonzero(one | two, axis=(-2, -1))
    return np.where(both > 0, common / np.maximum(both, 1), 1.0).astype(np.float32)
