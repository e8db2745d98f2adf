"""Tags of a TIFF or BigTIFF: those that decide what is read, as checked values."""

import struct
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from lithostream.engine.io.pixels import CM_PER_INCH, damaged, unsupported

# What tifffile raises over damaged structure: its own TiffFileError is a ValueError, the rest comes from
# unpacking fields whose type, count or offset is nonsense.
STRUCTURE_ERRORS = (
    ValueError,
    struct.error,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)


class Tag(IntEnum):
    """The tags that decide what is read; all others are left alone."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    MAX_SAMPLE_VALUE = 281
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    IMAGE_DEPTH = 32997
    ICC_PROFILE = 34675
    WHITE_LEVEL = 50717


class Tags:
    """The deciding tags of the one full-size page, none lost on the way.

    Raises
    ------
    DecodeError
        The structure or a deciding tag is damaged, or there is more than one image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tifffile.TiffFile(path) as tif:
                self.byteorder = tif.byteorder
                page = _only_page(path, tif)
                stored = _stored_codes(path, tif, page)
                self._values = {tag: page.tags.valueof(tag) for tag in Tag if tag in stored}
        except STRUCTURE_ERRORS as error:
            raise damaged(path, f"TIFF structure cannot be read: {error}", "header") from error
        for tag, value in self._values.items():
            # The parser steps over a tag that it cannot read; its default would be a guess.
            if value is None:
                raise damaged(path, "its value cannot be read", f"tag {tag.name}")

    def __contains__(self, tag: Tag) -> bool:
        return tag in self._values

    def numbers(self, tag: Tag, default: tuple[int, ...] = ()) -> npt.NDArray[np.int64]:
        """All values of a tag of whole numbers."""
        value = self._values.get(tag, default)
        if isinstance(value, bytes):
            value = tuple(value)
        try:
            array = np.atleast_1d(np.asarray(value)).ravel()
            if array.dtype.kind in "iu" or not array.size:
                return array.astype(np.int64)
        except (ValueError, TypeError, OverflowError):
            pass
        raise damaged(self.path, "its value is not whole numbers", f"tag {tag.name}")

    def number(self, tag: Tag, default: int | None = None) -> int:
        """Return the value of a tag that has one, or the same for each sample."""
        values = self.numbers(tag, () if default is None else (default,))
        if not values.size:
            raise damaged(self.path, "the tag is missing", f"tag {tag.name}")
        if (values != values[0]).any():
            raise unsupported(self.path, f"samples differ: {values.tolist()[:8]}", f"tag {tag.name}")
        return int(values[0])

    def blob(self, tag: Tag) -> bytes | None:
        """Return the bytes of a tag."""
        value = self._values.get(tag)
        if value is not None and not isinstance(value, bytes):
            raise damaged(self.path, "its value is not bytes", f"tag {tag.name}")
        return value

    def density(self, tag: Tag) -> float | None:
        """Pixels per centimetre, where a unit and a positive number are given."""
        value = self._values.get(tag)
        per_cm = {2: CM_PER_INCH, 3: 1.0}.get(self.number(Tag.RESOLUTION_UNIT, 2))
        if per_cm is None or not isinstance(value, tuple) or len(value) != 2 or not all(value):
            return None
        return float(value[0] / value[1] / per_cm)


def _only_page(path: Path, tif: tifffile.TiffFile) -> tifffile.TiffPage:
    """Return the first page, where every further one is a thumbnail or a reduced copy."""
    fix = "save one full-size image per file"
    first = tif.pages.first
    for number in range(1, len(tif.pages)):
        page = tif.pages[number]
        if not (isinstance(page, tifffile.TiffPage) and page.subfiletype & 1):
            raise unsupported(path, f"page {number + 1} is a second full-size image; {fix}", "header")
    if first.subfiletype & 1:
        raise unsupported(path, f"the first page is a thumbnail; {fix}", "header")
    return first


def _stored_codes(path: Path, tif: tifffile.TiffFile, page: tifffile.TiffPage) -> set[int]:
    """Codes of all tags in the file, whether or not the parser could read them."""
    form, file = tif.tiff, tif.filehandle
    file.seek(page.offset)
    (count,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    entries = file.read(count * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    if following and len(tif.pages) == 1:
        raise damaged(path, f"a further page is announced at byte {following} and cannot be read", "header")
    codes = struct.iter_unpack(f"{form.byteorder}H{form.tagsize - 2}x", entries)
    return {code for (code,) in codes}
