r"""The stream of a live line scan as bytes: a header line, records of one scan line each, an end mark.

`docs/live-lines.md` states it for whoever writes a sender. One section is

    {"lithostream_lines":1,"name":"GC01-1","width_px":2048,"channels":3,"px_per_cm":200.0,"counts_per_line":5.0}\n
    record: encoder count, int64 little-endian, then width_px * channels bytes
    ...
    end mark: the eight bytes of the count -2**63, and no pixels

and another section may follow at once. The end mark is the one int64 that no encoder reaches, so counts may
be negative; it carries no pixels, so a sender that pads it is told so at the next byte, where one that forgot
to pad would leave its reader waiting.
"""

from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, ValidationError, field_validator

from lithostream.engine.config import StrictModel, explain
from lithostream.engine.core.section import Section
from lithostream.engine.errors import DecodeError
from lithostream.engine.io.names import safe_name
from lithostream.engine.io.pixels import SIDE_CAP_PX, Pixels

MAGIC = b'{"lithostream_lines"'
HEADER_CAP = 65_536  # bytes, the newline included
WIDTH_CAP_PX = 65_536
COUNT_BYTES = 8
END_COUNT = -(2**63)
END_MARK = END_COUNT.to_bytes(COUNT_BYTES, "little", signed=True)
COUNT_CAP = 2**62  # differences of counts below it fit into 64 bits
FIX = "correct the program that sends the lines; docs/live-lines.md states the format"

Counts = npt.NDArray[np.int64]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class LineHeader(StrictModel):
    """What a sender says of a section before its first line.

    Attributes
    ----------
    lithostream_lines : 1
        Version of the format; the first key of the line.
    name : str
        Of the section, any text.
    width_px, channels : int
        Pixels of a line; 1 for grey, 3 for red, green, blue.
    px_per_cm : float
        Scale along and across the core: pixels are square.
    counts_per_line : float
        Encoder counts between two lines; negative where counts fall as the scan goes on.
    max_lines : int, optional
        A scan never holds more.
    top_cm : float
        Section offset of the first line's upper edge, cm.
    hole, core, section, hole_top_m, depth_scale, scanner
        As in `Section`.
    """

    model_config = ConfigDict(strict=True)

    lithostream_lines: Literal[1]
    name: Label
    width_px: int = Field(ge=1, le=WIDTH_CAP_PX)
    channels: Literal[1, 3]
    px_per_cm: Finite = Field(ge=1, le=20_000)
    counts_per_line: Finite
    max_lines: int | None = Field(default=None, ge=1, le=SIDE_CAP_PX)
    top_cm: Finite = Field(default=0.0, ge=-1e6, le=1e6)
    hole: Label | None = None
    core: Label | None = None
    section: Label | None = None
    hole_top_m: Finite | None = Field(default=None, ge=-1e5, le=1e5)
    depth_scale: Label | None = None
    scanner: Label | None = None

    @field_validator("counts_per_line")
    @classmethod
    def _steps(cls, value: float) -> float:
        if not 1e-3 <= abs(value) <= 1e9:
            raise ValueError("counts between two lines are 0.001 to 1e9, or that below zero")
        return value

    @property
    def record_bytes(self) -> int:
        """Bytes of one line: its count and its pixels."""
        return COUNT_BYTES + self.width_px * self.channels

    @property
    def most_lines(self) -> int:
        """Lines that a section holds at the most, lost ones included."""
        return self.max_lines or SIDE_CAP_PX

    def to_line(self) -> bytes:
        """Return the header as it is sent, the newline included."""
        return self.model_dump_json(exclude_none=True).encode() + b"\n"

    def to_section(self, image: Path) -> Section:
        """Record of the section whose lines lie in `image`; the header is the scanner's own word, a sidecar."""
        return Section(
            name=safe_name(self.name),
            image=image,
            px_per_cm=self.px_per_cm,
            scale_source="sidecar",
            top_cm=self.top_cm,
            hole=self.hole,
            core=self.core,
            section=self.section,
            hole_top_m=self.hole_top_m,
            depth_scale=self.depth_scale,
            depth_method=None if self.hole_top_m is None else "section offset + hole_top_m",
            scanner=self.scanner,
        )


def parse_header(line: bytes, file: Path | str) -> LineHeader:
    """Read a header line, with or without its newline.

    Raises
    ------
    DecodeError
        Not a header, naming the key.
    """
    check_magic(line, file)
    try:
        return LineHeader.model_validate_json(line)
    except ValidationError as error:
        said = explain(error, LineHeader, None)
        place = f"header: {said.place}" if said.place else "header"
        fix = said.fix if said.fix.startswith("did you mean") else FIX
        raise DecodeError(_short(said.reason), file=file, place=place, fix=fix) from error


def take_header(data: bytes, file: Path | str) -> tuple[bytes, bytes] | None:
    """Split what has arrived into the header line with its newline, and what follows; None while it is not whole.

    Raises
    ------
    DecodeError
        It is no header, or has no newline within 64 KiB.
    """
    check_magic(data, file)
    end = data.find(b"\n", 0, HEADER_CAP) + 1
    if not end and len(data) >= HEADER_CAP:
        raise DecodeError(f"no newline within {HEADER_CAP} bytes", file=file, place="header", fix=FIX)
    return (data[:end], data[end:]) if end else None


def check_magic(data: bytes, file: Path | str) -> None:
    """Refuse bytes that cannot be the beginning of a header."""
    head = data[: len(MAGIC)]
    if not MAGIC.startswith(head):
        raise DecodeError(
            f"a section starts with {MAGIC.decode()!r}, this with {head!r}",
            file=file,
            place="header",
            fix=FIX,
        )


def to_records(counts: Counts, pixels: Pixels) -> bytes:
    """Lines as they are sent.

    Parameters
    ----------
    counts : int64 [N]
    pixels : uint8 [N, W, C]
    """
    records = np.empty(len(counts), [("count", "<i8"), ("pixels", np.uint8, pixels.shape[1:])])
    records["count"], records["pixels"] = counts, pixels
    return records.tobytes()


def whole_records(data: bytes, record_bytes: int) -> tuple[int, bool]:
    """Count the records that lie whole in `data`, up to the end mark, and tell whether it comes after them."""
    heads = counts_of(data, (len(data) - COUNT_BYTES) // record_bytes + 1, record_bytes)
    ends = np.flatnonzero(heads == END_COUNT)
    return (int(ends[0]), True) if len(ends) else (len(data) // record_bytes, False)


def counts_of(data: bytes, records: int, record_bytes: int) -> Counts:
    """View the encoder counts of the first records, int64 [records]."""
    return np.ndarray((records,), "<i8", data, strides=(record_bytes,))


def pixels_of(data: bytes, records: int, header: LineHeader) -> Pixels:
    """View the pixels of the first records, uint8 [records, W, C]."""
    shape = (records, header.width_px, header.channels)
    strides = (header.record_bytes, header.channels, 1)
    return np.ndarray(shape, np.uint8, data, offset=COUNT_BYTES, strides=strides)


class LineWriter:
    """Writes one section of the stream; what is written is flushed.

    Parameters
    ----------
    out : binary file
    header : LineHeader
        Written at once.
    """

    def __init__(self, out: BinaryIO, header: LineHeader) -> None:
        self._out = out
        self._send(header.to_line())

    def write(self, counts: Counts, pixels: Pixels) -> None:
        """Append lines: counts int64 [N], pixels uint8 [N, W, C]."""
        self._send(to_records(counts, pixels))

    def end(self) -> None:
        """Append the end mark."""
        self._send(END_MARK)

    def _send(self, data: bytes) -> None:
        self._out.write(data)
        self._out.flush()


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + " ..."
