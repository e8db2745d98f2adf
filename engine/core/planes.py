"""Planes beside colour, cut on the grid of the colour image."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import Plane, Section
from lithostream.engine.errors import ScaleError, SourceError
from lithostream.engine.io.planes import PlaneImage, Stored, read_plane
from lithostream.engine.manifest import PlaneInput, TileInput

# Sums in float64 are exact to far below this: a level that lies between two bytes rounds up wherever it is.
TIE = 1e-6
OVERHANG_PX = 0.5  # a scan of whole pixels is this much shorter than what it shows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class PlaneTiles(NamedTuple):
    """A plane on R x C cells.

    Attributes
    ----------
    pixels : uint8 [R, C, S, S]
        Means over the area of each output pixel; of no meaning where a cell is not covered.
    covered : bool [R, C]
        Cells that lie on the plane whole, by a number everywhere.
    """

    pixels: npt.NDArray[np.uint8]
    covered: npt.NDArray[np.bool_]


def wanted_planes(section: Section, tile: TileInput) -> tuple[Plane, ...]:
    """Planes of a section that a model takes, in the order of its channels.

    Raises
    ------
    SourceError
        The section has none of that name.
    """
    known, names = {plane.name: plane for plane in section.planes}, [plane.name for plane in tile.planes]
    for name in names:
        if name not in known:
            raise SourceError(
                f"section {section.name} has no plane {name!r}, which the model needs beside colour",
                file=section.image,
                fix=f'add [[section.plane]] with name = "{name}", file, px_per_cm and top_cm'
                " to the section in its manifest",
            )
    return tuple(known[name] for name in names)


def open_planes(section: Section, tile: TileInput) -> tuple[PlaneImage, ...]:
    """Decode the planes that a model takes, in the order of its channels; samples outside its range are noted.

    Raises
    ------
    SourceError
        As `wanted_planes` and `read_plane`; a tile smaller than a plane's pixel is a `ScaleError`.
    """
    planes = wanted_planes(section, tile)
    for plane in planes:
        if tile.tile_cm * plane.px_per_cm < 1:
            raise ScaleError(
                f"a tile is {tile.tile_cm * plane.px_per_cm:.2f} px of plane {plane.name!r}"
                f" at {plane.px_per_cm:g} px/cm",
                file=plane.image,
                fix="check the scale; such an image is too coarse for this model",
            )
    return tuple(_noted(read_plane(plane), wanted) for plane, wanted in zip(planes, tile.planes, strict=True))


def levels(samples: Stored, wanted: PlaneInput) -> Floats:
    """Put samples on the model's scale from `low` = 0 to `high` = 255, clamped: float64; NaN stays NaN."""
    low, high = wanted.low, wanted.high
    scaled: Floats = (np.clip(samples.astype(np.float64), low, high) - low) * 255.0 / (high - low)
    return scaled


def plane_tiles(
    image: PlaneImage, wanted: PlaneInput, row_cm: Floats, col_cm: Floats, size_px: int
) -> PlaneTiles:
    """Cut a plane into the cells of a grid and bring each to `size_px` by exact area resampling.

    Parameters
    ----------
    image : PlaneImage
    wanted : PlaneInput
        The model's range of samples.
    row_cm : float64 [R + 1]
        Edges of the cells as section offsets.
    col_cm : float64 [C + 1]
        Edges across the core, from the middle of the image.
    size_px : int
        S, edge of a tile.

    Notes
    -----
    A cell may reach over the plane's edge by half a plane pixel, for which the pixel at the edge stands.
    """
    plane, (height, width) = image.plane, image.samples.shape
    rows = (row_cm - plane.top_cm) * plane.px_per_cm
    cols = col_cm * plane.px_per_cm + width / 2
    covered = np.outer(_on_plane(rows, height), _on_plane(cols, width))
    shape = (*covered.shape, size_px, size_px)
    if not covered.any():
        return PlaneTiles(np.zeros(shape, np.uint8), covered)
    first, last = max(0, int(rows[0])), min(height, int(np.ceil(rows[-1])))
    scaled = levels(image.samples[first:last], wanted)
    unknown = np.isnan(scaled)
    if unknown.any():
        share = _resampled(unknown.astype(np.float64), rows - first, cols, size_px)
        covered &= share.max(axis=(2, 3)) < TIE
        scaled[unknown] = 0.0
    means = np.clip(_resampled(scaled, rows - first, cols, size_px), 0.0, 255.0)
    return PlaneTiles(np.floor(means + (0.5 + TIE)).astype(np.uint8), covered)


def _noted(image: PlaneImage, wanted: PlaneInput) -> PlaneImage:
    """Add how many samples lie outside the model's range or are no number."""
    samples, low, high = image.samples, wanted.low, wanted.high
    counts = {
        f"below {low:g} taken as {low:g}": np.count_nonzero(samples < low),
        f"above {high:g} taken as {high:g}": np.count_nonzero(samples > high),
        "not a number: tiles on them are left out": np.count_nonzero(np.isnan(samples)),
    }
    notes = (
        f"plane {wanted.name}: {count} of {samples.size} samples {what}"
        for what, count in counts.items()
        if count
    )
    return replace(image, notes=(*image.notes, *notes))


def _on_plane(edges: Floats, length_px: int) -> npt.NDArray[np.bool_]:
    """Cells between `edges`, in plane pixels, that lie within the plane, bool [cells]."""
    inside = (edges >= -OVERHANG_PX - TIE) & (edges <= length_px + OVERHANG_PX + TIE)
    return np.asarray(inside[:-1] & inside[1:])


def _resampled(scaled: Floats, rows: Floats, cols: Floats, size_px: int) -> Floats:
    """Means over the output pixels of cells, float64 [R, C, S, S]."""
    down = _means(scaled, _split(rows, size_px))
    both = _means(down.T, _split(cols, size_px)).T
    shape = (len(rows) - 1, size_px, len(cols) - 1, size_px)
    return np.asarray(both.reshape(shape).swapaxes(1, 2))


def _split(edges: Floats, parts: int) -> Floats:
    """Edges of `parts` equal parts of each cell, float64 [cells * parts + 1]."""
    steps = np.arange(parts) / parts
    inner = edges[:-1, None] + np.diff(edges)[:, None] * steps
    return np.append(inner.ravel(), edges[-1])


def _means(values: Floats, edges: Floats) -> Floats:
    """Means of `values` [L, K] between edges [E + 1] in pixels along the first axis, float64 [E, K].

    Differences of the integral, which goes on beyond the ends with the first and last value.
    """
    before = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    pixel: Ints = np.clip(np.floor(edges), 0, len(values) - 1).astype(np.int64)
    integral = before[pixel] + (edges - pixel)[:, None] * values[pixel]
    return np.asarray(np.diff(integral, axis=0) / np.diff(edges)[:, None])
