"""Hours in minutes: a runner that goes on and on must not grow, and one that is killed again and again must lose nothing.

    python bench/soak.py memory                            # 30 minutes; fails where memory grows by 20 MB after the first third
    python bench/soak.py memory --minutes 3 --leak-mb 1    # a leak of 1 MB a section: must fail
    python bench/soak.py kills --count 200                 # SIGKILL at random times and places, each followed by a rerun

`memory` samples the resident set after each section; each is processed anew as a further version. `kills` compares every table with
those of a run that nobody killed, and the ledger with the folders.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from apart import SETTINGS, run_sections, start

from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.io.discover import discover
from lithostream.engine.stream.failpoints import NAMES
from lithostream.engine.stream.runner import Runner, run
from lithostream.engine.stream.verify_run import verify_run

BUNDLE = Path(__file__).parents[1] / "engine" / "demo_bundle"
ALLOWED_MB = 20.0
CORES = 3
LEAST = 12  # sections of a soak, however short
ANY = "any time"
ONCE = "record-written"  # in a run; the other places come by once for each section at least


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory of a soak: megabytes at the end of the first third, and at the end."""

    settled_mb: float
    final_mb: float
    sections: int

    @property
    def passed(self) -> bool:
        """Little enough was added."""
        return self.final_mb - self.settled_mb < ALLOWED_MB


def memory(minutes: float, leak_mb: float, length_cm: float, settings: RunSettings) -> Growth:
    """Process generated sections for so long; `leak_mb` are kept back with each."""
    kept: list[bytes] = []
    samples: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sections = _cores(folder / "cores", length_cm)
        until = time.monotonic() + 60 * minutes
        with Runner(BUNDLE, folder / "out", settings) as runner:
            for number in itertools.count():
                for section in sections:
                    runner.forget(section.name, None)
                    # At another depth, so a new version, computed anew.
                    runner.process(replace(section, top_cm=float(number)), lambda *_: None)
                    kept.append(os.urandom(int(leak_mb * 1e6)))
                    samples.append(_resident_mb())
                runner.write_record()
                if time.monotonic() > until and len(samples) >= LEAST:
                    break
    return Growth(
        float(np.median(samples[len(samples) // 4 : len(samples) // 3 + 1])),
        float(np.median(samples[-max(1, len(samples) // 12) :])),
        len(samples),
    )


def kills(count: int, seed: int, length_cm: float, places: Sequence[str] = (*NAMES, ANY)) -> int:
    """Kill runs at random times and places; returns how many were still running.

    Raises
    ------
    AssertionError
        A rerun lost, doubled or changed something.
    """
    rng, killed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cores = folder / "cores"
        _cores(cores, length_cm)
        start(time.sleep, 0, said=folder / "said").join()  # the first one waits for the imports
        begun = time.monotonic()
        start(run_sections, cores, BUNDLE, folder / "wanted", said=folder / "said").join()
        whole_s = time.monotonic() - begun
        wanted = tables(folder / "wanted")
        for number in range(count):
            place = rng.choice(places)
            failpoint = "" if place == ANY else f"{place}@{1 if place == ONCE else rng.randint(1, CORES)}"
            out = folder / f"out{number}"
            process = start(run_sections, cores, BUNDLE, out, said=folder / "said", failpoint=failpoint)
            process.join(None if failpoint else rng.uniform(0, whole_s))
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), (folder / "said").read_text()
            killed += process.exitcode != 0
            record = run([cores], BUNDLE, out, SETTINGS, lambda *_: None)
            found, problems = verify_run(out)
            assert not problems and found == len(record.sections) == CORES, (number, place, problems, found)
            assert tables(out) == wanted, (number, place)
            shutil.rmtree(out)
            print(f"{number + 1}/{count} {failpoint or place}: whole", flush=True)
    return killed


def tables(out: Path) -> dict[str, bytes]:
    """Every file of the sections but their checksums, which say how long it took."""
    marks = sorted(out.glob("[!.]*/checksums.json"))
    found = [path for mark in marks for path in sorted(mark.parent.iterdir()) if path != mark]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def _cores(folder: Path, length_cm: float) -> list[Section]:
    folder.mkdir()
    for seed in range(CORES):
        write(generate(500 + seed, length_cm=length_cm, width_cm=4.0, px_per_cm=30.0), folder)
    sections, errors = discover([folder])
    assert not errors
    return sections


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the figures; exit 1 where memory grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("memory", "kills"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--leak-mb", type=float, default=0.0)
    parser.add_argument("--length-cm", type=float, default=24.0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "kills":
        killed = kills(given.count, given.seed, given.length_cm)
        print(f"{killed} of {given.count} were killed; every rerun gave the same bytes")
        return
    settings = RunSettings(backend="onnxruntime")
    found = memory(given.minutes, given.leak_mb, given.length_cm, settings)
    print(f"{found.sections} sections: {found.settled_mb:.1f} MB, then {found.final_mb:.1f} MB")
    sys.exit(not found.passed)


if __name__ == "__main__":
    main()
