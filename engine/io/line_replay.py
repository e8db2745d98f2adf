"""A line-scan camera made of an image: its rows sent as live lines at a set speed, to try a set-up without a scanner."""

import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import typer

from lithostream.engine.errors import ConfigError, LithostreamError, SourceError
from lithostream.engine.io.images import open_image
from lithostream.engine.io.line_connect import tcp_address
from lithostream.engine.io.line_format import LineHeader, LineWriter, parse_header
from lithostream.engine.io.pixels import Pixels

COUNTS_PER_LINE = 10
CHUNK_LINES = (
    4  # sent at once, as a camera delivers them; more where they follow each other within a millisecond
)
CHUNK_S = 0.001
SLAB_ROWS = 512


def replay(
    image: Path,
    sink: str,
    *,
    px_per_cm: float,
    mm_per_s: float,
    name: str | None = None,
    lost: Sequence[tuple[int, int]] = (),
    repeat: int = 1,
) -> None:
    """Send an image as one section; line n leaves n / (px_per_cm * mm_per_s / 10) seconds after the first.

    Parameters
    ----------
    image : Path
    sink : str
        `-` for standard output, `tcp://host:port` or `unix:/path` to listen on for one reader, or a new file.
    px_per_cm : float
    mm_per_s : float
        Speed of the scan; infinity sends as fast as the reader takes it.
    name : str, optional
        Of the section; that of the image where it is left out.
    lost : sequence of (first line, count)
        Lines that the camera does not send while the encoder counts on.
    repeat : int
        Times that the image is sent, below itself.

    Raises
    ------
    SourceError
        The image, the scale or the sink cannot be used, or the reader has gone.
    ConfigError
        No speed.
    """
    source = open_image(image)
    if not mm_per_s > 0:
        raise ConfigError(f"a scan at {mm_per_s:g} mm/s", place="mm_per_s", fix="give a speed above zero")
    header = _header(name or image.stem, source.width_px, px_per_cm, image)
    line_s = 10 / (px_per_cm * mm_per_s)
    chunk = SLAB_ROWS if SLAB_ROWS * line_s < CHUNK_S else max(CHUNK_LINES, int(CHUNK_S / line_s))
    slabs = (slab.rgb for _ in range(repeat) for slab in source.slabs(SLAB_ROWS))
    with ExitStack() as stack:
        try:
            writer = LineWriter(_opened(sink, stack), header)
            _send(slabs, writer, line_s, chunk, lost)
            writer.end()
        except OSError as error:
            reason = f"cannot be written: {error.strerror or error}"
            raise SourceError(reason, file=sink, fix="check the sink and its reader") from error


def _header(name: str, width_px: int, px_per_cm: float, image: Path) -> LineHeader:
    stated = {
        "lithostream_lines": 1,
        "name": name,
        "width_px": width_px,
        "channels": 3,
        "px_per_cm": px_per_cm,
        "counts_per_line": COUNTS_PER_LINE,
        "scanner": "replay",
    }
    return parse_header(json.dumps(stated).encode(), image)


def _send(
    slabs: Iterator[Pixels], writer: LineWriter, line_s: float, chunk: int, lost: Sequence[tuple[int, int]]
) -> None:
    """Send lines when they are due by the clock since the first, so that delays do not add up."""
    begun, sent = time.monotonic(), 0
    for slab in slabs:
        for first in range(0, len(slab), chunk):
            pixels = slab[first : first + chunk]
            lines = np.arange(sent, sent + len(pixels))
            sent += len(pixels)
            time.sleep(max(0.0, begun + sent * line_s - time.monotonic()))
            seen = np.ones(len(lines), np.bool_)
            for start, count in lost:
                seen &= (lines < start) | (lines >= start + count)
            writer.write(lines[seen] * COUNTS_PER_LINE, pixels[seen])


def _opened(sink: str, stack: ExitStack) -> BinaryIO:
    """Open a sink; one that listens waits for its reader."""
    if sink == "-":
        return sys.stdout.buffer
    if not sink.startswith(("tcp:", "unix:")):
        return stack.enter_context(Path(sink).open("xb"))
    if sink.startswith("unix:"):
        path = sink.removeprefix("unix:")
        server = socket.socket(socket.AF_UNIX)
        stack.enter_context(closing(server))
        server.bind(path)
        stack.callback(Path(path).unlink)
        server.listen(1)
    else:
        server = stack.enter_context(closing(socket.create_server(tcp_address(sink), backlog=1)))
    connection = stack.enter_context(server.accept()[0])
    return stack.enter_context(connection.makefile("wb"))


def main(image: Path, sink: str, px_per_cm: float, mm_per_s: float, repeat: int = 1) -> None:
    """Replay IMAGE to SINK as live lines."""
    try:
        replay(image, sink, px_per_cm=px_per_cm, mm_per_s=mm_per_s, repeat=repeat)
    except LithostreamError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    typer.run(main)
