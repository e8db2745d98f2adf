"""Peak memory of a run over the length of the image, which it must not grow with.

    python bench/memory.py                  # 1, 10 and 100 m
    python bench/memory.py 1 20             # other lengths, m
    python bench/memory.py 1 --threads 4

Each image is one generated core of 1 m, 8 cm wide at 20 px/cm, repeated with fresh noise on every copy and written as an
uncompressed TIFF of strips: 100 m are 200,000 rows. Each is run in a process of its own, which then states the most
memory that was ever resident in it (`VmHWM`, Linux). What a run cannot do without is there at any length: the
interpreter, its libraries, and as many windows as there are lanes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import tifffile

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.stream.runner import run

SEED, WIDTH_CM, PX_PER_CM = 7, 8.0, 20.0
STRIP_ROWS = 50
NOISE = 6  # sample values, up or down at the most
BUNDLE = Path(__file__).parents[1] / "engine" / "demo_bundle"


def long_core(length_m: int, folder: Path, width_cm: float = WIDTH_CM, px_per_cm: float = PX_PER_CM) -> Path:
    """Write an image of `length_m` metres and its scanner's sidecar; returns the image's path."""
    core = generate(SEED, length_cm=100.0, width_cm=width_cm, px_per_cm=px_per_cm)
    path = write(core, folder)
    height, width, _ = core.image.shape
    tifffile.imwrite(
        path,
        _strips(core.image, length_m),
        shape=(length_m * height, width, 3),
        dtype=np.uint8,
        photometric="rgb",
        rowsperstrip=STRIP_ROWS,
        metadata=None,
    )
    sidecar = path.with_suffix(".xml")
    text = sidecar.read_text(encoding="utf-8")
    text = text.replace(f">{height}<", f">{length_m * height}<").replace(">100.0000<", f">{length_m}00.0000<")
    sidecar.write_text(text, encoding="utf-8")
    return path


def _strips(metre: npt.NDArray[np.uint8], copies: int) -> Iterator[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(SEED)
    for _ in range(copies):
        noise = rng.integers(-NOISE, NOISE, metre.shape, endpoint=True, dtype=np.int16)
        noisy = np.clip(metre + noise, 0, 255).astype(np.uint8)
        yield from noisy.reshape(-1, STRIP_ROWS, *metre.shape[1:])


def measure(length_m: int, threads: int) -> str:
    """Run an image of `length_m` metres in this process: one line of what it took."""
    with tempfile.TemporaryDirectory() as folder:
        # A process of its own, so that what drawing the core takes is not counted.
        make = [sys.executable, __file__, str(length_m), "--make", folder]
        image = Path(subprocess.run(make, check=True, capture_output=True, text=True).stdout.strip())
        begun, settings = time.monotonic(), RunSettings(threads=threads, backend="onnxruntime")
        record = run([image], BUNDLE, Path(folder) / "run", settings, lambda *_: None)
        seconds = time.monotonic() - begun
        (entry,) = record.sections
        rows = [
            pq.read_metadata(record.out / str(entry["folder"]) / f"{name}.parquet").num_rows
            for name in ("intervals", "tiles", "segments")
        ]
    counts = " ".join(f"{count:>9,}" for count in rows)
    return f"{length_m:>6} {peak_mib():>9.0f} {seconds:>7.1f} {counts}"


def peak_mib() -> float:
    """Return the most memory that was ever resident in this process, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status states no VmHWM")


def main() -> None:
    """Measure each length in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("lengths_m", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        print(long_core(given.lengths_m[0], given.make))
    elif given.here:
        print(measure(given.lengths_m[0], given.threads))
    else:
        print("     m  peak MiB       s intervals     tiles  segments", flush=True)
        for length_m in given.lengths_m:
            options = [str(length_m), "--threads", str(given.threads), "--here"]
            subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()
