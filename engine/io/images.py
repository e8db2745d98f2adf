"""Images of core sections: opened by content, turned so that rows run down-core, served in slabs.

A TIFF whose rows already run down-core streams strip by strip. All else is decoded whole, under a cap on
pixels, and then turned: by its orientation tag first, and then so that depth runs down the rows. Depth
along x is a plain transposition (the left edge becomes the top, the top edge becomes the left: handedness
changes, as in the mirror, but each pixel keeps its depth); reversed depth flips the rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import DepthAxis
from lithostream.engine.errors import SourceError
from lithostream.engine.io.jpeg import open_jpeg
from lithostream.engine.io.pixels import Band, Picture, Pixels, check_whole, damaged
from lithostream.engine.io.png import open_png
from lithostream.engine.io.tiff import open_tiff

SUFFIXES = {".tif": "TIFF", ".tiff": "TIFF", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SIGNATURES = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
OPENERS: dict[str, Callable[[Path, int | None], Picture]] = {
    "TIFF": open_tiff,
    "PNG": open_png,
    "JPEG": open_jpeg,
}

Mask = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Slab:
    """A run of image rows.

    Attributes
    ----------
    row_px : int
        First row.
    rgb : uint8 [H, W, 3]
    alpha : bool [H, W], optional
        False where there is no image.
    lost : bool [H], optional
        Rows that a live source never got: black, and no image in `alpha`.
    """

    row_px: int
    rgb: Pixels
    alpha: Mask | None
    lost: Mask | None = None


class Turn(NamedTuple):
    """Transpose first, then flip."""

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    def transposed(self) -> "Turn":
        """Transpose what this turn gives."""
        return Turn(not self.transpose, self.flip_cols, self.flip_rows)

    def reversed(self) -> "Turn":
        """Flip the rows of what this turn gives."""
        return self._replace(flip_rows=not self.flip_rows)

    def applied(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """View of an array [H, W, ...] after the turn."""
        turned = array.swapaxes(0, 1) if self.transpose else array
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_cols else 1]


# TIFF 6.0, tag 274: where row 0 and column 0 of the file lie in the picture.
ORIENTATIONS = {
    1: Turn(),
    2: Turn(flip_cols=True),
    3: Turn(flip_rows=True, flip_cols=True),
    4: Turn(flip_rows=True),
    5: Turn(transpose=True),
    6: Turn(transpose=True, flip_cols=True),
    7: Turn(transpose=True, flip_rows=True, flip_cols=True),
    8: Turn(transpose=True, flip_rows=True),
}


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image whose header has been checked and whose rows run down-core.

    Attributes
    ----------
    path : Path
    height_px, width_px : int
    conversions : tuple of str
        The documented rules that turn its samples into these pixels, in words.
    resolution_px_per_cm : float, optional
        Density along depth that the file states (TIFF tags, PNG pHYs, JPEG JFIF), placeholders included.
    open_ended : bool
        The image may still grow: `height_px` is then the most it may hold, and it ends where its slabs stop.
    """

    path: Path
    height_px: int
    width_px: int
    conversions: tuple[str, ...]
    resolution_px_per_cm: float | None
    _picture: Picture
    _turn: Turn
    open_ended: bool = False

    def slabs(self, rows: int) -> Iterator[Slab]:
        """Serve the image from the top, `rows` rows at a time; the last slab may be short.

        Raises
        ------
        DecodeError
            The data are damaged.
        SourceError
            The file can no longer be read.
        """
        if rows < 1:
            raise ValueError(f"a slab of {rows} rows")
        try:
            yield from _in_slabs(self._turned_bands(rows), rows)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _turned_bands(self, rows: int) -> Iterator[Band]:
        """Bands of `rows` rows, or one of all."""
        held = rows if _streams(self._picture, self._turn) else self._picture.height_px
        return (_turned(band, self._turn) for band in self._picture.bands(held))


def open_image(
    path: Path,
    *,
    depth_axis: DepthAxis = "y",
    depth_reversed: bool = False,
    white_level: int | None = None,
) -> ImageSource:
    """Open an image and check its header; pixels are decoded by `ImageSource.slabs`.

    Parameters
    ----------
    path : Path
    depth_axis : {"y", "x"}
        Axis along which depth runs, in the picture as its orientation tag says it should be seen.
    depth_reversed : bool
        Depth runs upwards, or from right to left.
    white_level : int, optional
        Sample value of white, for files of 16-bit samples.

    Raises
    ------
    SourceError
        No such file, or an extension that is not read.
    DecodeError
        Damaged, hostile, not what its extension says, too large, or of a kind that is not read.
    """
    if white_level is not None and not 1 <= white_level <= 65535:
        raise ValueError(f"white_level {white_level} is no 16-bit sample value")
    try:
        picture = OPENERS[kind_of(path)](path, white_level)
    except OSError as error:
        raise _unreadable(path, error) from error
    turn, turned = down_core(picture.orientation, depth_axis, depth_reversed)
    if not _streams(picture, turn):
        reason = "it has to be turned" if picture.streams else "not a TIFF"
        check_whole(path, picture.height_px, picture.width_px, reason)
    height, width = picture.height_px, picture.width_px
    if turn.transpose:
        height, width = width, height
    density = picture.cols_per_cm if turn.transpose else picture.rows_per_cm
    return ImageSource(path, height, width, picture.notes + turned, density, picture, turn)


def read_image(
    path: Path,
    *,
    depth_axis: DepthAxis = "y",
    depth_reversed: bool = False,
    white_level: int | None = None,
) -> tuple[Pixels, Mask | None]:
    """Read a whole image, rgb uint8 [H, W, 3] and alpha bool [H, W]; see `open_image`."""
    source = open_image(path, depth_axis=depth_axis, depth_reversed=depth_reversed, white_level=white_level)
    (slab,) = source.slabs(source.height_px)
    return slab.rgb, slab.alpha


def down_core(orientation: int, depth_axis: DepthAxis, depth_reversed: bool) -> tuple[Turn, tuple[str, ...]]:
    """Turn that makes rows run down-core, and what it does in words; see `open_image`."""
    turn, notes = ORIENTATIONS[orientation], []
    if depth_axis == "x":
        turn = turn.transposed()
        notes.append("depth along x: transposed")
    if depth_reversed:
        turn = turn.reversed()
        notes.append("depth reversed: rows flipped")
    return turn, tuple(notes)


def kind_of(path: Path) -> str:
    """Format that both the extension and the content say.

    Raises
    ------
    SourceError, DecodeError
        The extension is not read, or is not what the content says.
    """
    promised = SUFFIXES.get(path.suffix.lower())
    if promised is None:
        raise SourceError(
            f"extension {path.suffix!r} is not one of {', '.join(SUFFIXES)}",
            file=path,
            fix="give a TIFF, PNG or JPEG file",
        )
    with path.open("rb") as file:
        head = file.read(4)
    found = next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), None)
    if found is None:
        raise damaged(path, f"neither TIFF, PNG nor JPEG: it starts with {head!r}", "byte 0")
    if found != promised:
        raise damaged(
            path, f"extension {path.suffix!r} says {promised}, the content is {found}; rename it", "byte 0"
        )
    return found


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"cannot be read: {error.strerror or error}", file=path, fix="check the name, the rights and the disk"
    )


def _streams(picture: Picture, turn: Turn) -> bool:
    """Whether rows come from the file in the order in which they are served."""
    return picture.streams and not (turn.transpose or turn.flip_rows)


def _turned(band: Band, turn: Turn) -> Band:
    """View of a band after the turn."""
    alpha = None if band.alpha is None else turn.applied(band.alpha)
    return Band(turn.applied(band.rgb), alpha)


def _in_slabs(bands: Iterator[Band], rows: int) -> Iterator[Slab]:
    """Cut bands, whose heights but the last are multiples of `rows`, into slabs; contiguous ones are not copied."""
    first = 0
    for band in bands:
        for start in range(0, len(band.rgb), rows):
            yield _slab(band, slice(start, start + rows), first)
        first += len(band.rgb)


def _slab(band: Band, rows: slice, first: int) -> Slab:
    alpha = None if band.alpha is None else np.ascontiguousarray(band.alpha[rows])
    return Slab(first + rows.start, np.ascontiguousarray(band.rgb[rows]), alpha)
