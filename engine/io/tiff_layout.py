"""Where the strips and tiles of a TIFF lie, and that the file holds them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.io.pixels import damaged

UNCOMPRESSED, JPEG = 1, 7
# Bytes that one stored byte can become, at the most: the bound on what a header may promise.
MOST_GROWTH = {UNCOMPRESSED: 1, 5: 4096, JPEG: 2048, 8: 1032, 32946: 1032, 32773: 64, 50000: 1 << 16}

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

    @property
    def height_px(self) -> int:
        """Rows of the image."""
        return int(self.edges[-1])

    @property
    def pixel_samples(self) -> int:
        """Samples of a pixel in all planes."""
        return self.samples * len(self.offsets)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel once it is decoded."""
        return self.pixel_samples * self.dtype.itemsize

    @property
    def copied(self) -> bool:
        """Whether rows lie in the file as they lie in memory, byte order aside."""
        return (
            self.compression == UNCOMPRESSED
            and self.tile is None
            and self.bits > 1
            and len(self.offsets) == 1
        )

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
