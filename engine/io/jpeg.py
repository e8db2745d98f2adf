"""JPEG files: header markers read by hand, pixels decoded strictly.

A lenient decoder paints what is missing of a cut file in grey 128 and says nothing; here every warning of
the decoder is an error.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from lithostream.engine.io.pixels import (
    CM_PER_INCH,
    Band,
    Colour,
    Meaning,
    Picture,
    check_header,
    damaged,
    known_orientation,
    profile_note,
    unsupported,
    white_note,
)

START, END, START_OF_SCAN = 0xD8, 0xD9, 0xDA
JFIF, EXIF, ICC, ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
FRAMES_READ = {0xC0, 0xC1, 0xC2}  # Huffman-coded: baseline, extended, progressive
FRAMES_KNOWN = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A block of 64 pixels takes at least one bit, its DC difference (T.81, G.1.2): 512 pixels in a byte.
MOST_PX_PER_BYTE = 512
DECODED_AS = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB", "CMYK": "CMYK", "YCCK": "CMYK"}
COLOURS: dict[int, Colour] = {1: "grey", 3: "rgb", 4: "cmyk"}
ORIENTATION_TAG = 274


@dataclass(slots=True)
class _Header:
    """What the markers before the first scan say."""

    bits: int = 0
    height_px: int = 0
    width_px: int = 0
    components: int = 0
    cols_per_cm: float | None = None
    rows_per_cm: float | None = None
    orientation: int = 1
    profile: bytes = b""
    adobe: bool = False


def open_jpeg(path: Path, white_level: int | None) -> Picture:
    """Read and check a JPEG header.

    Raises
    ------
    DecodeError
        Damaged, hostile or of a kind that is not read.
    """
    data = path.read_bytes()
    header = _read_header(data, path)
    if header.bits != 8 or header.components not in COLOURS:
        reason = f"{header.components} components of {header.bits} bit; 1, 3 or 4 of 8 bit are read"
        raise unsupported(path, reason, "header")
    check_header(path, header.height_px, header.width_px, header.components, len(data) * MOST_PX_PER_BYTE)
    colour = COLOURS[header.components]
    if colour == "cmyk" and not header.adobe:
        raise unsupported(path, "CMYK without the Adobe marker: more may mean more ink or less", "header")
    rules = {
        "grey repeated into three channels": colour == "grey",
        "CMYK ink (stored inverted, as Adobe does) to RGB by (255 - c)(255 - k) / 255": colour == "cmyk",
    }
    orientation, turned = known_orientation(header.orientation, path)
    white, notes = white_note(8, white_level, "declared")
    notes += tuple(rule for rule, applies in rules.items() if applies)
    meaning = Meaning(colour, 8, white, inverted=colour == "cmyk")
    shape = header.height_px, header.width_px

    def bands(_rows: int) -> Iterator[Band]:
        samples = decode_strictly(path.read_bytes(), path, "image data", shape)
        yield meaning.to_band(samples, path, "image data")

    return Picture(
        *shape,
        orientation,
        header.rows_per_cm,
        header.cols_per_cm,
        notes + profile_note(header.profile or None) + turned,
        streams=False,
        bands=bands,
    )


def decode_strictly(
    data: bytes, path: Path, place: str, shape: tuple[int, int], space: str | None = None
) -> npt.NDArray[np.uint8]:
    """Decode a JPEG stream that must be sound to its end, uint8 [H, W, 1 | 3 | 4].

    Parameters
    ----------
    data : bytes
    path, place
        For messages.
    shape : (int, int)
        Rows and columns it must have.
    space : str, optional
        Colour space it must have.

    Raises
    ------
    DecodeError
    """
    try:
        height, width, found, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if (height, width) != shape or found not in DECODED_AS or found != (space or found):
            reason = f"JPEG of {height} x {width} px in {found}, not {shape[0]} x {shape[1]} px {space or ''}"
            raise damaged(path, reason.rstrip(), place)
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace=DECODED_AS[found], fastdct=False, fastupsample=False, strict=True
        )
    except (ValueError, MemoryError) as error:
        raise damaged(path, f"JPEG data are damaged or cut short: {error}", place) from error
    return pixels


def exif_orientation(block: bytes, path: Path) -> int:
    """Orientation tag of an EXIF block, which is a small TIFF; 1 where it has none.

    Raises
    ------
    DecodeError
        Not an EXIF block.
    """
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[block[:4]]
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(count):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", block, start + 2 + 12 * entry)
            if tag == ORIENTATION_TAG:
                # Stored as one SHORT; anything else is passed on as a value that is refused.
                return int(value) if (kind, number) == (3, 1) else -1
    except (KeyError, struct.error) as error:
        raise damaged(path, "its structure cannot be read", "EXIF block") from error
    return 1


def _read_header(data: bytes, path: Path) -> _Header:
    header = _Header()
    for marker, body in _markers(data, path):
        if marker in FRAMES_KNOWN:
            if header.bits or marker not in FRAMES_READ or len(body) < 6:
                reason = "two frames" if header.bits else f"frame type {marker:#x} (lossless or arithmetic)"
                raise unsupported(path, f"not read: {reason}", "header")
            header.bits, header.height_px, header.width_px, header.components = struct.unpack_from(
                ">BHHB", body
            )
        elif marker == JFIF and body[:5] == b"JFIF\0" and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            per_cm = {1: CM_PER_INCH, 2: 1.0}.get(unit)
            if per_cm and across and down:
                header.cols_per_cm, header.rows_per_cm = across / per_cm, down / per_cm
        elif marker == EXIF and body[:6] == b"Exif\0\0":
            header.orientation = exif_orientation(body[6:], path)
        elif marker == ICC and body[:12] == b"ICC_PROFILE\0":
            header.profile += body[14:]
        elif marker == ADOBE and body[:5] == b"Adobe":
            header.adobe = True
    if not header.bits:
        raise damaged(path, "no frame header before the image data", "header")
    return header


def _markers(data: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield marker segments up to the first scan."""
    at = 2
    while True:
        if data[at : at + 1] != b"\xff" or len(data) < at + 4:
            raise damaged(path, "the chain of JPEG markers breaks or ends", f"byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == START_OF_SCAN:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker < 0xC0 or START - 8 <= marker <= END or length < 2 or at + 2 + length > len(data):
            raise damaged(path, f"marker {marker:#x} of {length} bytes is out of place", f"byte {at}")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length
