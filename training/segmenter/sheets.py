"""Photographs of real core as materials of generated scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from lithostream.engine.errors import SourceError
from lithostream.engine.io.images import open_image
from lithostream.kernels import core_roi
from lithostream.training.segmenter.fields import Bytes, Floats, Random, coordinates

SHARE: Final = 0.4  # of the materials, where there are photographs
LEAST_PX: Final = 32  # edge of a photograph's core that shows a texture
SLAB_ROWS: Final = 4096


def read_sheets(paths: Sequence[Path]) -> tuple[Bytes, ...]:
    """Cut the longest piece of core out of each photograph, uint8 [H, W, 3].

    Parameters
    ----------
    paths : sequence of Path
        Images of core along either axis, of any kind that is read.

    Raises
    ------
    SourceError
        A photograph cannot be read, or shows no piece of core of `LEAST_PX` px.
    """
    return tuple(_core_of(path) for path in paths)


def cut(rng: Random, sheets: Sequence[Bytes], size: int) -> Floats:
    """Draw a material, float32 [size, size, 3] in 0 .. 255: a cut-out of a sheet, enlarged, and mirrored to fill.

    Its brightness and contrast are drawn, since one core has one light and objects of a scene differ.
    """
    sheet = sheets[int(rng.integers(len(sheets)))]
    edge = int(rng.integers(LEAST_PX, min(min(sheet.shape[:2]), size) + 1))
    top, left = (int(rng.integers(length - edge + 1)) for length in sheet.shape[:2])
    part = sheet[top : top + edge, left : left + edge].astype(np.float32)
    zoom = 10 ** rng.uniform(0.0, 0.6)
    rows, columns = coordinates(size)
    if rng.random() < 0.5:
        rows, columns = columns, rows
    image = _between(part, _mirrored(rows / zoom, edge), _mirrored(columns / zoom, edge))
    mean = image.mean(axis=(0, 1))
    return np.asarray(
        mean * rng.uniform(0.7, 1.6) + (image - mean) * 10 ** rng.uniform(-0.2, 0.3), np.float32
    )


def _core_of(path: Path) -> Bytes:
    source = open_image(path)
    rgb = np.concatenate([slab.rgb for slab in source.slabs(SLAB_ROWS)])
    if rgb.shape[1] > rgb.shape[0]:
        rgb = np.ascontiguousarray(rgb.transpose(1, 0, 2))
    found = core_roi(rgb, crack_px=max(1, rgb.shape[1] // 20))
    ends = np.flatnonzero(np.diff(found.rows, prepend=False, append=False))
    if not len(ends):
        raise _no_core(path)
    pieces = ends.reshape(-1, 2)
    top, base = pieces[np.argmax(pieces[:, 1] - pieces[:, 0])]
    columns = np.flatnonzero(found.mask[top:base].mean(axis=0) > 0.5)
    if base - top < LEAST_PX or len(columns) < LEAST_PX:
        raise _no_core(path)
    return np.ascontiguousarray(rgb[top:base, columns[0] : columns[-1] + 1])


def _no_core(path: Path) -> SourceError:
    return SourceError(
        f"shows no piece of core of {LEAST_PX} px", file=path, fix="leave it out of the textures"
    )


def _mirrored(places: Floats, length: int) -> Floats:
    """Bring places into 0 .. length - 1 by turning back at either end, so that there is no seam."""
    period = 2.0 * (length - 1)
    inside = np.mod(places, period)
    return np.asarray(np.minimum(inside, period - inside), np.float32)


def _between(part: Floats, rows: Floats, columns: Floats) -> Floats:
    """Interpolate [h, w, 3] linearly at places."""
    last = len(part) - 2
    y, x = (np.minimum(places.astype(np.int64), last) for places in (rows, columns))
    v, u = (rows - y)[..., None], (columns - x)[..., None]
    above = part[y, x] * (1 - u) + part[y, x + 1] * u
    below = part[y + 1, x] * (1 - u) + part[y + 1, x + 1] * u
    return np.asarray(above * (1 - v) + below * v, np.float32)
