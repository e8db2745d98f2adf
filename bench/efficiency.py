"""How near a run comes to what its machine allows: the time of its slowest stage, or its CPU time over the cores.

    python bench/efficiency.py                      # 8 generated sections of 60 cm, 7 runs
    python bench/efficiency.py --threads 2 --bundle my-bundle

Efficiency is max(slowest stage alone, CPU seconds / cores) / time taken; 0.97 is asked for. Stages alone, with nothing
beside them: decoding all sections, running their windows, finishing them. The CPU time is that of the run itself, so what
it wastes in waiting shows, what it wastes in work does not: `end_to_end.py` is for that. Runs need a machine of their own.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.core.windows import open_section
from lithostream.engine.io.discover import discover
from lithostream.engine.stream.runner import Runner
from lithostream.engine.stream.workshop import Workshop

BUNDLE = Path(__file__).parents[1] / "engine" / "demo_bundle"


def main() -> None:
    """Print each run, and the median."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--sections", type=int, default=8)
    parser.add_argument("--length-cm", type=float, default=60.0)
    parser.add_argument("--px-per-cm", type=float, default=50.0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    given = parser.parse_args()
    settings = RunSettings(threads=given.threads, backend="onnxruntime")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(given.sections):
            core = generate(700 + seed, length_cm=given.length_cm, width_cm=8.0, px_per_cm=given.px_per_cm)
            write(core, folder / "cores")
        sections, _ = discover([folder / "cores"])
        found = [once(sections, given.bundle, folder / f"out{run}", settings) for run in range(given.runs)]
    for one in found:
        print(one)
    print(f"median {statistics.median(float(one.split()[0]) for one in found):.3f} (asked 0.97)")


def once(sections: list[Section], bundle: Path, out: Path, settings: RunSettings) -> str:
    """Run all sections after one that warms up; returns the efficiency and what it is made of."""
    cores = len(os.sched_getaffinity(0))
    with Runner(bundle, out, settings) as runner:
        runner.process(replace(sections[0], top_cm=1.0), lambda *_: None)
        runner.write_record()
        wall, cpu = time.perf_counter(), time.process_time()
        for section in sections:
            runner.process(section, lambda *_: None)
        runner.write_record()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stages = alone(sections, bundle, out, settings)
    bound = max(cpu / cores, *stages.values())
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items())
    return (
        f"{bound / wall:.3f} efficient: {wall:.2f} s; CPU {cpu:.2f} s / {cores} = {cpu / cores:.2f}; {parts}"
    )


def alone(sections: list[Section], bundle: Path, out: Path, settings: RunSettings) -> dict[str, float]:
    """Seconds that each stage takes for all sections with nothing beside it."""
    workshop, seconds = Workshop(bundle, settings), {}
    with ExitStack() as ends:
        ends.callback(workshop.close)
        begun = time.perf_counter()
        for section in sections:
            for _ in open_section(section).slabs(settings.slab_rows):
                pass
        seconds["decode"] = time.perf_counter() - begun
        begun = time.perf_counter()
        collected = [
            ends.enter_context(
                closing(workshop.collect(section, open_section(section), out, lambda *_: None))
            )
            for section in sections
        ]
        seconds["windows"] = time.perf_counter() - begun
        begun = time.perf_counter()
        for number, one in enumerate(collected):
            folder = out / f"alone{number}"
            folder.mkdir()
            workshop.finish(one, workshop.backend, begun, folder)
        seconds["finish"] = time.perf_counter() - begun
    return seconds


if __name__ == "__main__":
    main()
