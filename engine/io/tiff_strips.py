"""Strips and tiles of a TIFF: read and decoded, to exactly their declared size."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import imagecodecs
import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import DecodeError
from lithostream.engine.io.jpeg import decode_strictly
from lithostream.engine.io.pixels import Samples, damaged
from lithostream.engine.io.tiff_layout import JPEG, UNCOMPRESSED, Ints, Layout

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
PIECE_BYTES = 1 << 18  # about as much is decoded at once


def split_rows(layout: Layout) -> Layout:
    """Cut high uncompressed strips into pieces, so that a file in one strip can be read in parts."""
    piece = max(1, PIECE_BYTES // (layout.row_bytes * layout.offsets.shape[0]))
    if layout.compression != UNCOMPRESSED or layout.tile or np.diff(layout.edges).max() <= piece:
        return layout
    tops, bases = layout.edges[:-1], layout.edges[1:]
    starts = np.concatenate([np.arange(top, base, piece) for top, base in zip(tops, bases, strict=True)])
    strip = np.searchsorted(tops, starts, side="right") - 1
    edges = np.append(starts, layout.edges[-1])
    offsets = layout.offsets[:, strip] + ((starts - tops[strip]) * layout.row_bytes)[:, None]
    counts = np.broadcast_to((np.diff(edges) * layout.row_bytes)[:, None], offsets.shape)
    return replace(layout, edges=edges, offsets=offsets, counts=counts, numbers=layout.numbers[:, strip])


def pieces(layout: Layout, rows: int) -> Ints:
    """Row edges of what is decoded at once: whole strips or rows of tiles, that end with each `rows` rows if they can."""
    inner = np.arange(
        0, min(rows, layout.height_px), max(1, PIECE_BYTES // (layout.width_px * layout.pixel_bytes))
    )
    wanted = (np.arange(0, layout.height_px, rows)[:, None] + inner).ravel()
    found = np.searchsorted(layout.edges, np.append(wanted[wanted < layout.height_px], layout.height_px))
    edges: Ints = layout.edges[np.unique(found)]
    return edges


def samples(layout: Layout) -> Iterator[Samples]:
    """Decode from the top row to the last, a piece at a time; see `decode_rows`.

    Raises
    ------
    DecodeError
        Naming the strip or tile and its rows.
    """
    with layout.path.open("rb", buffering=0) as file:
        for top, base in pairwise(pieces(layout, layout.height_px).tolist()):
            yield decode_rows(file.fileno(), layout, top, base)


def decode_rows(fd: int, layout: Layout, top: int, base: int, out: Samples | None = None) -> Samples:
    """Read and decode some rows and keep what is stored.

    Parameters
    ----------
    fd : int
        The open file. It is read by position, so that threads can share it.
    layout : Layout
    top, base : int
        A span of `pieces`; any, where the layout is `copied`.
    out : [base - top, W, S], optional
        Of the type of `layout.dtype` in the machine's byte order; contiguous.

    Returns
    -------
    [base - top, W, S]
        `out`, or new.
    """
    if out is None:
        shape = base - top, layout.width_px, layout.pixel_samples
        out = np.empty(shape, layout.dtype.newbyteorder("="))
    if layout.copied:
        _copy_rows(fd, layout, top, base, out)
        return out
    bands = range(*np.searchsorted(layout.edges, [top, base]).tolist())
    cols = layout.shape(0)[1]
    for plane, band, across in np.ndindex(layout.offsets.shape[0], len(bands), layout.offsets.shape[2]):
        first, last = layout.edges[bands[band] : bands[band] + 2] - top
        left, deep = across * cols, plane * layout.samples
        target = out[first:last, left : left + cols, deep : deep + layout.samples]
        _segment(fd, layout, (plane, bands[band], across), target)
    return out


def _copy_rows(fd: int, layout: Layout, top: int, base: int, out: Samples) -> None:
    """Read rows to where they belong, those that lie back to back in the file at once."""
    first, end = (
        int(np.searchsorted(layout.edges, top, "right")) - 1,
        int(np.searchsorted(layout.edges, base)),
    )
    tops = layout.edges[first:end]
    ends = (layout.edges[first : end + 1].clip(top, base) - top) * layout.row_bytes
    places = layout.offsets[0, first:end, 0] + ends[:-1] - (tops - top) * layout.row_bytes
    breaks = np.flatnonzero(np.diff(places) != np.diff(ends[:-1])) + 1
    raw = out.reshape(-1).view(np.uint8)
    for left, right in pairwise([0, *breaks.tolist(), end - first]):
        start, stop, place = int(ends[left]), int(ends[right]), int(places[left])
        read = _read(fd, place, raw[start:stop])
        if start + read < stop:
            cut = first + int(np.searchsorted(ends, start + read, "right")) - 1
            raise _cut_short(layout, (0, cut, 0), max(0, place + read - int(layout.offsets[0, cut, 0])))
    if not layout.dtype.isnative:
        out.byteswap(inplace=True)


def _read(fd: int, place: int, out: npt.NDArray[np.uint8]) -> int:
    """Read from a place into memory and return how many bytes there were."""
    done = 0
    while done < len(out) and (got := os.preadv(fd, [out.data[done:]], place + done)):
        done += got
    return done


def _cut_short(layout: Layout, index: tuple[int, int, int], left: int) -> DecodeError:
    return damaged(layout.path, f"{left} bytes left of {layout.counts[index]}", layout.place(*index))


def _segment(fd: int, layout: Layout, index: tuple[int, int, int], out: Samples) -> None:
    """Read and decode one strip or tile; what of a tile lies outside `out` is border."""
    data = np.empty(int(layout.counts[index]), np.uint8)
    read = _read(fd, int(layout.offsets[index]), data)
    if read != len(data):
        raise _cut_short(layout, index, read)
    rows, cols = layout.shape(index[1])
    inside = np.s_[: out.shape[0], : out.shape[1]]
    if layout.compression == JPEG:
        out[...] = _jpeg_segment(data.tobytes(), layout, index, (rows, cols))[inside]
        return
    raw = _inflated(data, rows * layout.row_bytes, layout, index)
    if layout.bits == 1:
        lines = np.frombuffer(raw, np.uint8).reshape(rows, layout.row_bytes)
        bits = np.unpackbits(lines, axis=1, count=cols * layout.samples)
        out[...] = bits.reshape(rows, cols, layout.samples)[inside]
        return
    stored = np.frombuffer(raw, layout.dtype).reshape(rows, cols, layout.samples)
    if not layout.differenced:
        out[...] = stored[inside]
        return
    native = stored.astype(layout.dtype.newbyteorder("="), copy=False)[inside]
    imagecodecs.delta_decode(native, axis=1, out=out)


def _inflated(
    data: npt.NDArray[np.uint8], size: int, layout: Layout, index: tuple[int, int, int]
) -> bytes | bytearray | npt.NDArray[np.uint8]:
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
