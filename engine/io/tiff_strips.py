"""Strips and tiles of a TIFF: read and decoded one row of them at a time, to exactly their declared size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from lithostream.engine.io.jpeg import decode_strictly
from lithostream.engine.io.pixels import Band, Meaning, Samples, damaged

UNCOMPRESSED, JPEG = 1, 7
CODECS: dict[int, Callable[..., bytes | bytearray]] = {
    5: imagecodecs.lzw_decode,
    8: imagecodecs.deflate_decode,
    32946: imagecodecs.deflate_decode,
    32773: imagecodecs.packbits_decode,
    50000: imagecodecs.zstd_decode,
}
CODEC_ERRORS = (
    imagecodecs.LzwError,
    imagecodecs.DeflateError,
    imagecodecs.PackbitsError,
    imagecodecs.ZstdError,
)
# Bytes that one stored byte can become, at the most: the bound on what a header may promise.
MOST_GROWTH = {UNCOMPRESSED: 1, 5: 4096, JPEG: 2048, 8: 1032, 32946: 1032, 32773: 64, 50000: 1 << 16}
PIECE_BYTES = 1 << 18  # uncompressed strips are read in pieces of about this size

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples of an image lie: P planes, B bands of rows, A segments across.

    Attributes
    ----------
    path : Path
    width_px : int
    samples : int
        Samples of a pixel within one plane.
    dtype : np.dtype
        Of a stored sample, byte order included.
    bits, compression : int
    differenced : bool
        Rows hold differences of neighbouring pixels.
    edges : int64 [B + 1]
        Row edges of the bands.
    tile : (rows, cols), optional
        Size of a tile; absent for strips.
    offsets, counts, numbers : int64 [P, B, A]
        Where each segment starts, its bytes, and its number in the file.
    jpeg_tables : bytes, optional
    ycbcr : bool
        JPEG segments hold luma and chroma.
    """

    path: Path
    width_px: int
    samples: int
    dtype: np.dtype[np.generic]
    bits: int
    compression: int
    differenced: bool
    edges: Ints
    tile: tuple[int, int] | None
    offsets: Ints
    counts: Ints
    numbers: Ints
    jpeg_tables: bytes | None
    ycbcr: bool

    def shape(self, band: int) -> tuple[int, int]:
        """Rows and columns of a segment as stored; tiles reach over the border of the image."""
        return self.tile or (int(self.edges[band + 1] - self.edges[band]), self.width_px)

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row of a segment."""
        return -(-self.shape(0)[1] * self.samples * self.bits // 8)

    def place(self, plane: int, band: int, across: int) -> str:
        """Name a segment for a message."""
        kind = "strip" if self.tile is None else "tile"
        first, last = self.edges[band], self.edges[band + 1] - 1
        return f"{kind} {self.numbers[plane, band, across]}, rows {first} to {last}"

    def check_extent(self) -> None:
        """Refuse segments that lie outside the file, overlap, or hold too few or too many bytes.

        Raises
        ------
        DecodeError
            Naming the first such segment and its rows.
        """
        size = self.path.stat().st_size
        outside = (self.offsets < 8) | (self.counts < 1) | (self.counts > size - self.offsets)
        for index in np.argwhere(outside)[:1]:
            start, count = self.offsets[tuple(index)], self.counts[tuple(index)]
            reason = f"{count} bytes at {start} do not lie in this file of {size} bytes: it is cut short"
            raise damaged(self.path, reason, self.place(*index))
        if self.counts.sum() > size:
            raise damaged(self.path, "strips or tiles overlap: together they exceed the file", "header")
        if self.compression != UNCOMPRESSED:
            return
        rows = np.diff(self.edges) if self.tile is None else np.full(len(self.edges) - 1, self.tile[0])
        needed = rows[:, None] * self.row_bytes
        # Some software pads the last strip to full height.
        padded = rows.max() * self.row_bytes
        wrong = (self.counts != needed) & (
            (self.counts != padded) | (np.arange(len(rows)) < len(rows) - 1)[:, None]
        )
        for index in np.argwhere(wrong)[:1]:
            reason = f"{self.counts[tuple(index)]} bytes stored, {needed[index[1], 0]} needed"
            raise damaged(self.path, reason, self.place(*index))


def split_rows(layout: Layout) -> Layout:
    """Cut high uncompressed strips into pieces, so that a file in one strip can be read in parts."""
    piece = max(1, PIECE_BYTES // layout.row_bytes)
    if layout.compression != UNCOMPRESSED or layout.tile or np.diff(layout.edges).max() <= piece:
        return layout
    tops, bases = layout.edges[:-1], layout.edges[1:]
    starts = np.concatenate([np.arange(top, base, piece) for top, base in zip(tops, bases, strict=True)])
    strip = np.searchsorted(tops, starts, side="right") - 1
    edges = np.append(starts, layout.edges[-1])
    offsets = layout.offsets[:, strip] + ((starts - tops[strip]) * layout.row_bytes)[:, None]
    counts = np.broadcast_to((np.diff(edges) * layout.row_bytes)[:, None], offsets.shape)
    return replace(layout, edges=edges, offsets=offsets, counts=counts, numbers=layout.numbers[:, strip])


def bands(layout: Layout, meaning: Meaning) -> Iterator[Band]:
    """Decode from the top row to the last, one strip or row of tiles at a time.

    Raises
    ------
    DecodeError
        Naming the strip or tile and its rows.
    """
    for band, found in enumerate(samples(layout)):
        yield meaning.to_band(found, layout.path, layout.place(0, band, 0))


def samples(layout: Layout) -> Iterator[Samples]:
    """Decode as `bands` does, but keep what is stored: `layout.dtype` [rows, W, S] in the machine's byte order."""
    with layout.path.open("rb") as file:
        for band in range(len(layout.edges) - 1):
            rows = layout.edges[band + 1] - layout.edges[band]
            planes = [
                np.concatenate(
                    [
                        _segment(file, layout, (plane, band, across))
                        for across in range(layout.offsets.shape[2])
                    ],
                    axis=1,
                )[:rows, : layout.width_px]
                for plane in range(layout.offsets.shape[0])
            ]
            yield planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)


def _segment(file: BinaryIO, layout: Layout, index: tuple[int, int, int]) -> Samples:
    """Read and decode one strip or tile, [rows, cols, samples]."""
    count = int(layout.counts[index])
    file.seek(int(layout.offsets[index]))
    data = file.read(count)
    if len(data) != count:
        raise damaged(layout.path, f"{len(data)} bytes left of {count}", layout.place(*index))
    rows, cols = layout.shape(index[1])
    if layout.compression == JPEG:
        return _jpeg_segment(data, layout, index, (rows, cols))
    raw = _inflated(data, rows * layout.row_bytes, layout, index)
    if layout.bits == 1:
        lines = np.frombuffer(raw, np.uint8).reshape(rows, layout.row_bytes)
        return np.unpackbits(lines, axis=1, count=cols * layout.samples).reshape(rows, cols, layout.samples)
    stored = np.frombuffer(raw, layout.dtype).reshape(rows, cols, layout.samples)
    samples: Samples = stored.astype(layout.dtype.newbyteorder("="), copy=False)
    return imagecodecs.delta_decode(samples, axis=1) if layout.differenced else samples


def _inflated(data: bytes, size: int, layout: Layout, index: tuple[int, int, int]) -> bytes | bytearray:
    """Undo the compression; anything but `size` bytes is refused."""
    if layout.compression == UNCOMPRESSED:
        return data[:size]
    try:
        # One byte more than declared, so that a surplus shows without being unpacked.
        raw = CODECS[layout.compression](data, out=size + 1)
    except CODEC_ERRORS as error:
        raise damaged(layout.path, f"cannot be decompressed: {error}", layout.place(*index)) from error
    if len(raw) != size:
        found = f"only {len(raw)}" if len(raw) < size else "more"
        raise damaged(layout.path, f"{size} bytes declared, {found} found", layout.place(*index))
    return raw


def _jpeg_segment(
    data: bytes, layout: Layout, index: tuple[int, int, int], shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Decode a JPEG strip or tile with the tables that all of them share.

    The TIFF tag decides the colour space, not the guess a decoder makes from component names: an Adobe
    marker put in front says it (transform 0: RGB, 1: YCbCr).
    """
    tables = layout.jpeg_tables or b"\xff\xd8\xff\xd9"
    if data[:2] != b"\xff\xd8" or tables[:2] != b"\xff\xd8" or tables[-2:] != b"\xff\xd9":
        raise damaged(layout.path, "a JPEG stream or its tables lack their markers", layout.place(*index))
    space = "Gray" if layout.samples == 1 else "YCbCr" if layout.ycbcr else "RGB"
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([layout.ycbcr])
    stream = b"\xff\xd8" + adobe + tables[2:-2] + data[2:]
    return decode_strictly(stream, layout.path, layout.place(*index), shape, space)
