"""Planes beside colour: grey TIFF and PNG files whose samples are kept as stored, decoded whole."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import Plane
from lithostream.engine.errors import DecodeError, SourceError
from lithostream.engine.io.images import down_core, kind_of
from lithostream.engine.io.pixels import check_whole, damaged, known_orientation
from lithostream.engine.io.png import open_png
from lithostream.engine.io.tiff import layout_of
from lithostream.engine.io.tiff_layout import UNCOMPRESSED
from lithostream.engine.io.tiff_strips import CODECS, samples
from lithostream.engine.io.tiff_tags import Tag, Tags

# By sample format (1 unsigned, 2 signed, 3 float) and bits. CT numbers are often signed.
TIFF_SAMPLES: Mapping[tuple[int, int], type[np.generic]] = {
    (1, 8): np.uint8,
    (1, 16): np.uint16,
    (2, 16): np.int16,
    (3, 32): np.float32,
    (3, 64): np.float64,
}
WHOLE = "planes are"

Stored = npt.NDArray[np.integer | np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class PlaneImage:
    """A plane in memory, its rows running down-core.

    Attributes
    ----------
    plane : Plane
    samples : [H, W]
        As stored: 8 or 16 bit, signed 16 bit, or float.
    notes : tuple of str
        How it was turned, and what was done to samples.
    """

    plane: Plane
    samples: Stored
    notes: tuple[str, ...]


def read_plane(plane: Plane) -> PlaneImage:
    """Decode a plane. Values are taken as stored, also where the file says that the smallest one is white.

    Raises
    ------
    SourceError
        The file cannot be read, or is neither TIFF nor PNG.
    DecodeError
        Damaged, hostile, too large, or of a kind that is not read.
    """
    readers = {"TIFF": _tiff, "PNG": _png}
    try:
        kind = kind_of(plane.image)
        if kind not in readers:
            raise _unread(plane.image, f"{kind} does not keep sample values")
        stored, orientation = readers[kind](plane.image)
    except OSError as error:
        raise SourceError(
            f"cannot be read: {error.strerror or error}",
            file=plane.image,
            fix="check the rights and the disk",
        ) from error
    turn, notes = down_core(orientation, plane.depth_axis, plane.depth_reversed)
    return PlaneImage(plane, turn.applied(stored), tuple(f"plane {plane.name}: {note}" for note in notes))


def _tiff(path: Path) -> tuple[Stored, int]:
    tags = Tags(path)
    kind = tags.number(Tag.SAMPLE_FORMAT, 1), tags.number(Tag.BITS, 1)
    compression, predictor = tags.number(Tag.COMPRESSION, 1), tags.number(Tag.PREDICTOR, 1)
    refusals = {
        f"{tags.number(Tag.SAMPLES, 1)} samples a pixel": tags.number(Tag.SAMPLES, 1) != 1,
        f"colour space {tags.number(Tag.PHOTOMETRIC)}": tags.number(Tag.PHOTOMETRIC) not in (0, 1),
        f"{kind[1]}-bit samples of format {kind[0]}": kind not in TIFF_SAMPLES,
        f"compression {compression}": compression not in (UNCOMPRESSED, *CODECS),
        f"predictor {predictor}": predictor not in ((1,) if kind[0] == 3 else (1, 2)),
        "reversed bit order": tags.number(Tag.FILL_ORDER, 1) != 1,
        "more than one depth plane": tags.number(Tag.IMAGE_DEPTH, 1) != 1,
    }
    for reason, refused in refusals.items():
        if refused:
            raise _unread(path, reason)
    check_whole(path, tags.number(Tag.HEIGHT), tags.number(Tag.WIDTH), WHOLE)
    layout = layout_of(tags, kind[1], np.dtype(TIFF_SAMPLES[kind]))
    orientation, _ = known_orientation(tags.number(Tag.ORIENTATION, 1), path)
    return np.concatenate(list(samples(layout)))[..., 0], orientation


def _png(path: Path) -> tuple[Stored, int]:
    picture = open_png(path, None)
    content = path.read_bytes()
    bits, colour_type = struct.unpack_from("BB", content, 24)  # in the header, which `open_png` has checked
    if colour_type != 0 or bits < 8:
        raise _unread(path, f"{bits}-bit samples of colour type {colour_type}")
    check_whole(path, picture.height_px, picture.width_px, WHOLE)
    try:
        stored = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError, MemoryError) as error:
        raise damaged(path, f"PNG data are damaged or cut short: {error}", "image data") from error
    if stored.shape != (picture.height_px, picture.width_px):
        raise _unread(path, f"decoded to {stored.shape}: it is more than grey")
    return stored, picture.orientation


def _unread(path: Path, reason: str) -> DecodeError:
    return DecodeError(
        f"not read as a plane: {reason}",
        file=path,
        place="header",
        fix="save it as grey TIFF (8 or 16 bit, signed 16 bit, float) or grey PNG (8 or 16 bit)",
    )
