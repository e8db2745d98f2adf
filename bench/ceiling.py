"""What share of the memory's speed each benchmark reaches.

    python bench/ceiling.py RUN    print bytes, GB/s and share for every benchmark that counts its bytes

The ceiling is a plain copy, read and write counted, by as many threads as there are cores, timed in the same run
as the benchmarks (`machine_info.lithostream.copy_gb_s`), or within a GPU's memory for a benchmark that puts the
seconds by the GPU's clock into `extra_info["gpu_s"]`. A benchmark states in `extra_info["bytes"]` what it cannot
avoid moving; where its data stays in the caches the share may pass 100 %.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from lithostream.engine.errors import SourceError

COPIED_BYTES = 64 << 20  # beyond the last cache of any core so far
ROUNDS = 7


def copy_gb_s() -> float:
    """Return the bytes read and written per second by a copy of large arrays, in GB/s, median of `ROUNDS`."""
    threads = os.cpu_count() or 1
    source = [np.ones(COPIED_BYTES // threads, np.uint8) for _ in range(threads)]
    target = [np.zeros_like(part) for part in source]
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            start = perf_counter()
            list(pool.map(np.copyto, target, source))
            rates.append(2 * COPIED_BYTES / (perf_counter() - start) / 1e9)
    return statistics.median(rates)


def gpu_seconds(cupy: Any, work: Callable[[], object]) -> float:
    """Return the seconds that queued work takes by the GPU's own clock, median of `ROUNDS` after one more."""
    work()
    found: list[float] = []
    for _ in range(ROUNDS):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        work()
        stop.record()
        stop.synchronize()
        found.append(float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3)
    return statistics.median(found)


def gpu_copy_gb_s(cupy: Any) -> float:
    """Return the same for a copy within the memory of the current GPU, by its own clock."""
    source = cupy.ones(16 * COPIED_BYTES, np.uint8)
    target = cupy.empty_like(source)
    return 2e-9 * 16 * COPIED_BYTES / gpu_seconds(cupy, lambda: cupy.copyto(target, source))


def shares(content: dict[str, Any]) -> list[tuple[str, float, float, float]]:
    """Name, megabytes, GB/s and share of the ceiling of each benchmark of a run that counts its bytes."""
    machine = content["machine_info"]["lithostream"]
    found = []
    for entry in content["benchmarks"]:
        moved, extra = entry["extra_info"].get("bytes"), entry["extra_info"]
        ceiling = machine.get("gpu_copy_gb_s") if "gpu_s" in extra else machine["copy_gb_s"]
        if moved and ceiling:
            speed = moved / extra.get("gpu_s", entry["stats"]["median"]) / 1e9
            found.append((entry["name"], moved / 1e6, speed, speed / ceiling))
    return found


def main(path: Path) -> int:
    """Print the table; 2 if the file is no run."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = shares(content)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        reason = f"is not a run: {type(error).__name__}: {error}"
        print(SourceError(reason, file=path, fix="`make bench` writes one"), file=sys.stderr)
        return 2
    width = max((len(name) for name, *_ in rows), default=9)
    ceiling = content["machine_info"]["lithostream"]["copy_gb_s"]
    print(f"a copy moves {ceiling:.1f} GB/s")
    print(f"{'benchmark':{width}}  {'MB':>8}  {'GB/s':>6}  {'share':>6}")
    for name, megabytes, speed, share in rows:
        print(f"{name:{width}}  {megabytes:8.3g}  {speed:6.2f}  {share:6.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
