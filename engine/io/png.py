"""PNG files: chunks checked by hand, pixels decoded by libpng, which keeps 16 bits."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np

from lithostream.engine.io.jpeg import exif_orientation
from lithostream.engine.io.pixels import (
    Band,
    Meaning,
    Picture,
    check_header,
    damaged,
    known_orientation,
    profile_note,
    unsupported,
    white_note,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES_STORED = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
MOST_INFLATION = 1032  # of deflate: bytes out for a byte in


def open_png(path: Path, white_level: int | None) -> Picture:
    """Read and check a PNG header and the checksum of every chunk.

    Raises
    ------
    DecodeError
        Damaged, hostile or of a kind that is not read.
    """
    chunks, data_bytes = _read_chunks(path.read_bytes(), path)
    width, height, depth, colour_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    if depth not in (1, 2, 4, 8, 16) or colour_type not in SAMPLES_STORED:
        raise damaged(path, f"bit depth {depth} with colour type {colour_type}", "chunk IHDR")
    if b"acTL" in chunks:
        raise unsupported(path, "an animation: several images in one file", "chunk acTL")
    stored = SAMPLES_STORED[colour_type]
    check_header(path, height, width, stored, data_bytes * MOST_INFLATION * 8 // (depth * stored))
    bits = 16 if depth == 16 else 8
    grey, alpha = colour_type in (0, 4), colour_type in (4, 6) or b"tRNS" in chunks
    colours = 1 if grey else 3
    white, notes = white_note(bits, white_level, "declared")
    meaning = Meaning("grey" if grey else "rgb", bits, white, alpha=colours if alpha else None)
    orientation, turned = (
        known_orientation(exif_orientation(chunks[b"eXIf"], path), path) if b"eXIf" in chunks else (1, ())
    )
    rules = {
        "palette looked up": colour_type == 3,
        f"{depth}-bit grey spread over 0 to 255": grey and depth < 8,
        "grey repeated into three channels": grey,
        "alpha under 50 % is not image": alpha,
    }
    name = chunks[b"iCCP"].split(b"\0")[0].decode("latin-1") if b"iCCP" in chunks else None
    notes += tuple(rule for rule, applies in rules.items() if applies) + profile_note(None, name) + turned
    cols_per_cm, rows_per_cm = _density(chunks.get(b"pHYs"), path)
    shape = height, width, colours + alpha

    def bands(_rows: int) -> Iterator[Band]:
        yield _decode(path, shape, bits, meaning)

    return Picture(height, width, orientation, rows_per_cm, cols_per_cm, notes, streams=False, bands=bands)


def _decode(path: Path, shape: tuple[int, int, int], bits: int, meaning: Meaning) -> Band:
    place = "image data"
    try:
        samples = imagecodecs.png_decode(path.read_bytes())
    except (imagecodecs.PngError, ValueError, MemoryError) as error:
        raise damaged(path, f"PNG data are damaged or cut short: {error}", place) from error
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape != shape or samples.dtype != np.dtype(f"u{bits // 8}"):
        raise damaged(path, f"decoded to {samples.dtype} {samples.shape}, declared {bits}-bit {shape}", place)
    return meaning.to_band(samples, path, place)


def _density(chunk: bytes | None, path: Path) -> tuple[float | None, float | None]:
    """Pixels per centimetre across and down, where the chunk pHYs gives them per metre."""
    if chunk is None:
        return None, None
    if len(chunk) != 9:
        raise damaged(path, f"{len(chunk)} bytes, not 9", "chunk pHYs")
    across, down, unit = struct.unpack(">IIB", chunk)
    return (across / 100, down / 100) if unit == 1 and across and down else (None, None)


def _read_chunks(data: bytes, path: Path) -> tuple[dict[bytes, bytes], int]:
    """Check all chunks up to IEND; return the bodies of all but IDAT, and the bytes in IDAT."""
    chunks: dict[bytes, bytes] = {}
    at, data_bytes = len(SIGNATURE), 0
    while b"IEND" not in chunks:
        if len(data) < at + 12:
            raise damaged(path, "the file ends before its end chunk: it is cut short", f"byte {at}")
        length, kind = struct.unpack_from(">I4s", data, at)
        body = memoryview(data)[at + 8 : at + 8 + length]
        place = f"chunk {kind.decode('latin-1')} at byte {at}"
        if len(data) < at + 12 + length:
            raise damaged(path, f"{length} bytes declared, {len(body)} left: it is cut short", place)
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, at + 8 + length)[0]:
            raise damaged(path, "its checksum does not fit", place)
        if not chunks and (kind != b"IHDR" or length != 13):
            raise damaged(path, "the first chunk is no header", place)
        if kind == b"IDAT":
            data_bytes += length
        else:
            chunks.setdefault(kind, bytes(body))
        at += 12 + length
    return chunks, data_bytes
