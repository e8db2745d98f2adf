"""Label images as tiled TIFF, written while they are made."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from lithostream.engine.core.label_map import NumberedMap

TILE_PX = 256
_CLASSIC_BYTES = 2**31  # beyond, offsets of a classic TIFF could run out


def write_labels(labels: NumberedMap, path: Path, px_per_cm: float) -> None:
    """Write which segment each pixel belongs to: uint32, 0 is no core, else the table's `segment` + 1.

    Equal labels give equal bytes (per tifffile version). Memory holds one window.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    shape = labels.height_px, labels.width_px
    with tifffile.TiffWriter(path, bigtiff=4 * shape[0] * shape[1] > _CLASSIC_BYTES) as file:
        file.write(
            _tiles(labels),
            shape=shape,
            dtype=np.uint32,
            tile=(TILE_PX, TILE_PX),
            photometric="minisblack",
            compression="zlib",
            predictor=True,
            resolution=(px_per_cm, px_per_cm),
            resolutionunit="CENTIMETER",
            software="lithostream",
            metadata=None,
        )


def _tiles(labels: NumberedMap) -> Iterator[npt.NDArray[np.uint32]]:
    """Cut rows into tiles, in the file's order; those at the edges are filled up with 0."""
    width = -(-labels.width_px // TILE_PX) * TILE_PX
    for rows in _bands(labels):
        band = np.zeros((TILE_PX, width), np.uint32)
        band[: len(rows), : labels.width_px] = rows
        for left in range(0, width, TILE_PX):
            yield np.ascontiguousarray(band[:, left : left + TILE_PX])


def _bands(labels: NumberedMap) -> Iterator[npt.NDArray[np.uint32]]:
    """Block the rows of windows anew, as high as a tile; the last may be lower."""
    held = np.zeros((0, labels.width_px), np.uint32)
    for rows in labels.rows():
        held = np.concatenate([held, rows])
        whole = len(held) // TILE_PX * TILE_PX
        yield from held[:whole].reshape(-1, TILE_PX, labels.width_px)
        held = held[whole:]
    if len(held):
        yield held
