"""How many bytes of image a run takes in a second: what a scanner at 200 px/cm writes, from the page cache.

    python bench/throughput.py                                                    # 1 m at 200 px/cm (0.12 GB), here
    python bench/throughput.py --metres 28 --backend onnxruntime-cuda --threads 4     # 3.4 GB, on a GPU

33.6 GB in 60 s are asked of a GPU: 0.56 GB/s. Beside the run stand its parts with nothing beside them:
reading the file and, for lanes on a GPU, moving as many bytes there through their pinned memory. A lane on a GPU also says
by how much CuPy's pool grew after the first run, which must be nothing.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
from memory import long_core

from lithostream.engine.config import AnyBackend, RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import open_section
from lithostream.engine.device import Gpu
from lithostream.engine.io.discover import discover
from lithostream.engine.stream.runner import Runner

BUNDLE = Path(__file__).parents[1] / "engine" / "demo_bundle"
ASKED = 33.6 / 60  # GB/s
SLAB_BYTES = 1 << 24
ON_GPU = ("onnxruntime-cuda", "tensorrt")


def main() -> None:
    """Print the rate of each run, their median, and those of the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--metres", type=int, default=1)
    parser.add_argument("--width-cm", type=float, default=10.0)
    parser.add_argument("--px-per-cm", type=float, default=200.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=RunSettings().batch)
    parser.add_argument("--backend", choices=get_args(AnyBackend), default="auto")
    parser.add_argument("--refine", action="store_true", help="masks of the bundle's segmenter too")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    given = parser.parse_args()
    settings = RunSettings(
        threads=given.threads, batch=given.batch, backend=given.backend, refine=given.refine or None
    )
    gpu = given.backend in ON_GPU
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long_core(given.metres, folder / "core", given.width_cm, given.px_per_cm)
        (section,), _ = discover([folder / "core"])
        size = section.image.stat().st_size / 1e9
        reading = size / reading_s(section)
        print(f"{size:.2f} GB; reading alone {reading:.2f} GB/s")
        with Runner(given.bundle, folder / "out", settings) as runner:
            runner.process(replace(section, top_cm=1.0), lambda *_: None)  # warms up
            held = pool_bytes() if gpu else 0
            rates = [size / run_s(runner, section, 2.0 + at) for at in range(given.runs)]
            shown = ", ".join(f"{rate:.3f}" for rate in rates)
            print(f"{given.backend}, {given.threads} lanes: {shown} GB/s")
        if gpu:
            print(f"CuPy's pool grew by {pool_bytes() - held} bytes; one lane uploads {uploading():.2f} GB/s")
        print(f"median {statistics.median(rates):.3f} GB/s (asked of a GPU: {ASKED:.2f})")


def run_s(runner: Runner, section: Section, top_cm: float) -> float:
    """Seconds of one section, as another depth so that it is none that was done."""
    begun = time.perf_counter()
    runner.process(replace(section, top_cm=top_cm), lambda *_: None)
    runner.write_record()
    return time.perf_counter() - begun


def reading_s(section: Section) -> float:
    """Seconds to decode a section's rows and nothing else."""
    begun = time.perf_counter()
    for _ in open_section(section).slabs(RunSettings().slab_rows):
        pass
    return time.perf_counter() - begun


def pool_bytes() -> int:
    """Bytes that CuPy's pool has of the device."""
    held: int = import_module("cupy").get_default_memory_pool().total_bytes()
    return held


def uploading() -> float:
    """GB/s of one lane's copies to its GPU."""
    lane, slab = Gpu(), np.ones(SLAB_BYTES, np.uint8)
    with lane.current():
        lane.upload(slab)
        begun = time.perf_counter()
        for _ in range(32):
            lane.upload(slab)
        lane.download(lane.upload(slab[:1]))
        return 33 * SLAB_BYTES / 1e9 / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
