"""Peak memory and rate of a map over the size of the raster; memory must not grow with it.

    python bench/map_memory.py                       # 110 x 118, 2,000 x 2,000 and 20,000 x 20,000
    python bench/map_memory.py 6000x6000 --threads 2

A block of 2,000 x 2,000 pixels with seven bands of float32 is generated; larger rasters repeat it as a VRT, which GDAL
decodes like any other file, so that 20,000 x 20,000 (11 GB of predictors) takes no disk. Each raster is mapped in a
process of its own, which then states the most memory that was ever resident in it (`VmHWM`, Linux).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from map_scene import PREDICTORS, write_bundle, write_stack
from memory import peak_mib

from lithostream.engine.maps.record import MapSettings
from lithostream.engine.maps.run import map_stack

BLOCK = 2000
SIZES = ("110x118", "2000x2000", "20000x20000")


def scene(folder: Path, rows: int, columns: int) -> Path:
    """Write a stack of that size, of one block or of many."""
    if max(rows, columns) <= BLOCK:
        return write_stack(folder / "stack.tif", (rows, columns))
    write_stack(folder / "block.tif", (BLOCK, BLOCK))
    source = (
        '<ComplexSource><SourceFilename relativeToVRT="1">block.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="{size}" ySize="{size}"/><NODATA>-9999</NODATA>'
        '<DstRect xOff="{left}" yOff="{top}" xSize="{size}" ySize="{size}"/></ComplexSource>'
    )
    bands = []
    for band, predictor in enumerate(PREDICTORS, 1):
        parts = [
            source.format(band=band, size=BLOCK, left=left, top=top)
            for top in range(0, rows, BLOCK)
            for left in range(0, columns, BLOCK)
        ]
        bands.append(
            f'<VRTRasterBand dataType="Float32" band="{band}"><Description>{predictor.name}</Description>'
            f"<NoDataValue>-9999</NoDataValue>{''.join(parts)}</VRTRasterBand>"
        )
    head = f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}"><SRS>EPSG:3578</SRS>'
    place = "<GeoTransform>200000, 500, 0, 12000000, 0, -500</GeoTransform>"
    path = folder / "stack.vrt"
    path.write_text(f"{head}{place}{''.join(bands)}</VRTDataset>", encoding="utf-8")
    return path


def measure(rows: int, columns: int, threads: int) -> str:
    """Map a raster of that size in this process: one line of what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = [sys.executable, __file__, f"{rows}x{columns}", "--make", name]  # drawing it is not counted
        subprocess.run(make, check=True)
        stack = folder / ("stack.tif" if (folder / "stack.tif").is_file() else "stack.vrt")
        bundle = write_bundle(folder / "bundle")
        begun, marks = time.monotonic(), {}

        def mark(what: str, done: int, total: int) -> None:
            marks[what] = time.monotonic() - begun

        record = map_stack(stack, bundle, folder / "MAP.tif", MapSettings(threads=threads), mark)
        seconds, busy = time.monotonic() - begun, time.process_time()
    rate = rows * columns / seconds / 1e6
    return (
        f"{rows:>7} x {columns:<7}{peak_mib():>9.0f}{seconds:>8.1f}{busy:>8.1f}{rate:>8.2f}"
        f"{marks['answered']:>11.1f}{marks['written'] - marks['answered']:>9.1f}{seconds - marks['written']:>8.1f}"
        f"{record.counts['targets']:>9}"
    )


def main() -> None:
    """Measure each size in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sizes", nargs="*", default=SIZES, help="rows x columns, as 2000x2000")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = [(int(rows), int(columns)) for rows, columns in (size.split("x") for size in given.sizes)]
    if given.make:
        scene(given.make, *sizes[0])
    elif given.here:
        print(measure(*sizes[0], given.threads))
    else:
        print(
            "   rows x columns   peak MiB       s   CPU s   Mpx/s answered s  pass s   COG s  targets",
            flush=True,
        )
        for size in given.sizes:
            subprocess.run(
                [sys.executable, __file__, size, "--threads", str(given.threads), "--here"], check=True
            )


if __name__ == "__main__":
    main()
