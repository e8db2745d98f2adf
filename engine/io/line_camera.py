"""Lines of a GenICam camera, written to standard output as the line stream: a process of its own, beside the run.

    python -m lithostream.engine.io.line_camera PRODUCER.cti header.json | lithostream scan - ...

Encoder counts come from chunk data (SFNC ChunkEncoderValue, by line where the camera has ChunkScanLineSelector, else
that of the buffer's first line). A camera without an encoder counts its own lines: buffers that the transport lost
then leave a gap, but a bed that slows down is not seen.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import typer

from lithostream.engine.errors import BackendError, DecodeError, LithostreamError
from lithostream.engine.io.line_format import Counts, LineHeader, LineWriter, parse_header
from lithostream.engine.io.pixels import Pixels

FORMATS = {"Mono8": 1, "RGB8": 3}  # PFNC names


def send_lines(producer: Path, header: LineHeader, out: BinaryIO, *, idle_s: float) -> None:
    """Send what the first camera of a GenTL producer sees, until no buffer comes for `idle_s`.

    Raises
    ------
    BackendError
        Harvesters is not installed.
    DecodeError
        The camera sends other pixels than the header states.
    """
    try:
        core = importlib.import_module("harvesters.core")
    except ModuleNotFoundError as error:
        reason = f"a GenICam camera needs {error.name}, which is not installed"
        raise BackendError(reason, fix="pip install harvesters") from error
    with core.Harvester() as harvester:
        harvester.add_file(str(producer))
        harvester.update()
        with harvester.create() as camera:
            camera.start()
            writer = LineWriter(out, header)
            for counts, pixels in _buffers(camera, header, idle_s, core.TimeoutException):
                writer.write(counts, pixels)
            writer.end()


def _buffers(
    camera: Any, header: LineHeader, idle_s: float, timeout: type[Exception]
) -> Iterator[tuple[Counts, Pixels]]:
    """Fetch buffers; their memory is the camera's again once the next is asked for."""
    nodes = camera.remote_device.node_map
    while True:
        try:
            fetched = camera.fetch(timeout=idle_s)
        except timeout:
            return
        with fetched as buffer:
            image = buffer.payload.components[0]
            shape = (int(image.height), int(image.width), FORMATS.get(image.data_format, 0))
            if shape[1:] != (header.width_px, header.channels):
                raise DecodeError(
                    f"the camera sends {image.width} px of {image.data_format}, the header states"
                    f" {header.width_px} px of {header.channels} channels",
                    place=f"buffer {buffer.frame_id}",
                    fix="set Width and PixelFormat (Mono8 or RGB8), or correct the header",
                )
            yield _counts(nodes, buffer.frame_id, shape[0], header), image.data.reshape(shape)


def _counts(nodes: Any, frame: int, lines: int, header: LineHeader) -> Counts:
    """Take the encoder counts of a buffer's lines, int64 [lines]."""
    counts = np.empty(lines, np.int64)
    if hasattr(nodes, "ChunkEncoderValue") and hasattr(nodes, "ChunkScanLineSelector"):
        for line in range(lines):
            nodes.ChunkScanLineSelector.value = line
            counts[line] = nodes.ChunkEncoderValue.value
        return counts
    has_encoder = hasattr(nodes, "ChunkEncoderValue")
    first = nodes.ChunkEncoderValue.value if has_encoder else frame * lines * header.counts_per_line
    counts[:] = np.rint(first + np.arange(lines) * header.counts_per_line)
    return counts


def main(
    producer: Path, header: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], idle_s: float = 5.0
) -> None:
    """Send what the first camera of the GenTL PRODUCER sees, HEADER first, until no line comes for --idle-s."""
    try:
        send_lines(producer, parse_header(header.read_bytes(), header), sys.stdout.buffer, idle_s=idle_s)
    except LithostreamError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    typer.run(main)
