"""The picture of a section beside its logs: a small PNG in which all that is not core is dimmed."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lithostream.kernels.arrays import check_array

_BACKDROP = 238  # light grey of a report page
_LEVEL = 3  # photographs are within 1 % of the size at level 6, in 0.4 of its time
_DIM_PCT = 78  # weight of the backdrop over what is not core: still there to see, plainly not used


def write_strip(path: Path, rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> None:
    """Write a strip as PNG; equal pixels give equal bytes.

    Parameters
    ----------
    path : Path
        File to write.
    rgb : uint8 [h, w, 3]
        The section at preview scale, rows down-core.
    mask : bool [h, w]
        Core pixels.

    Raises
    ------
    ContractError
        An array of another type or shape.
    """
    check_array("rgb", rgb, dtype=np.uint8, shape=(None, None, 3))
    check_array("mask", mask, dtype=np.bool_, shape=rgb.shape[:2])
    dimmed = (np.arange(256) * (100 - _DIM_PCT) + _BACKDROP * _DIM_PCT + 50) // 100
    pixels = np.where(mask[:, :, None], rgb, dimmed.astype(np.uint8)[rgb])
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, format="PNG", compress_level=_LEVEL)
