"""Pixels of a raster stack, box by box, as predictors and what is missing of them."""

from contextlib import ExitStack
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lithostream.engine.io.raster import Band, RasterStack, raster_errors
from lithostream.engine.maps.windows import Box

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


class StackReader:
    """Reads boxes of a stack; serves one thread, inside `with`."""

    def __init__(self, stack: RasterStack) -> None:
        self._stack, self._opened = stack, ExitStack()

    def __enter__(self) -> Self:
        library = self._opened.enter_context(raster_errors(self._stack.path))
        files = dict.fromkeys(band.file for band in self._stack.bands)
        self._sets = {file: self._opened.enter_context(library.open(file)) for file in files}
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def read(self, box: Box) -> tuple[Floats, Bools]:
        """Return the predictors, float32 [P, h, w], and which pixels have them all, bool [h, w].

        Raises
        ------
        DecodeError
            A block is damaged.
        """
        values = np.empty((len(self._stack.bands), *box.shape), np.float32)
        valid = np.ones(box.shape, np.bool_)
        window = ((box.top, box.bottom), (box.left, box.right))
        for band, into in zip(self._stack.bands, values, strict=True):
            with raster_errors(band.file):
                _read_band(self._sets[band.file], band, window, into, valid)
        return values, valid


def _read_band(raster: Any, band: Band, window: Any, into: Floats, valid: Bools) -> None:
    """Read a band into `into` as float32, with its scale and offset, and take what is missing out of `valid`."""
    number = band.number
    stored = raster.read(number, window=window)
    nodata = raster.nodatavals[number - 1]
    if nodata is not None and _holds(stored.dtype, nodata):
        valid &= stored != stored.dtype.type(nodata)
    if any(flag.name in ("per_dataset", "alpha") for flag in raster.mask_flag_enums[number - 1]):
        valid &= raster.read_masks(number, window=window) > 0
    scale, offset = raster.scales[number - 1], raster.offsets[number - 1]
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, so missing
        into[:] = stored if (scale, offset) == (1.0, 0.0) else stored * scale + offset
    valid &= np.isfinite(into)
    if band.predictor.non_negative:
        valid &= into >= 0


def _holds(kind: np.dtype[Any], nodata: float) -> bool:
    """Tell whether a type can hold a value at all; NaN is missing anyway."""
    if kind.kind == "f":
        return not np.isnan(nodata)
    limits = np.iinfo(kind)
    return float(nodata).is_integer() and limits.min <= nodata <= limits.max
