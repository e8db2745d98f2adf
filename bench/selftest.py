"""Does the gate keep its promise on this machine? Real runs of a tiny suite, unchanged and slowed by 20 %.

    python bench/selftest.py

One baseline, then 20 unchanged and 10 slowed runs in turn; fails if an unchanged run raises an alarm or
fewer than 9 slowed ones do. Takes about two minutes.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ROUNDS_OF_THREE = 10
CAUGHT_AT_LEAST = 9
UNCHANGED, SLOWED = 100, 120

# Ours runs as many blocks as the file says; peer and calibration always do the same.
SUITE = """
import numpy as np

VALUES = np.random.default_rng(0).random(2_000)

def work(blocks):
    for _ in range(blocks):
        np.sqrt(VALUES).sum()

def bench_paired(benchmark):
    benchmark(work, {blocks})

def bench_paired_peer_sort(benchmark):
    benchmark(lambda: [np.sort(VALUES) for _ in range(30)])

def bench_alone(benchmark):
    benchmark(work, {blocks})
"""


def measure(folder: Path, blocks: int, *, passes: int = 8) -> Path:
    """Run the tiny suite in a process of its own and return its JSON."""
    folder.mkdir()
    for name in ("conftest.py", "ceiling.py"):
        shutil.copy(HERE / name, folder)
    (folder / "bench_tiny.py").write_text(SUITE.format(blocks=blocks), encoding="utf-8")
    options = ["-o", "python_files=bench_*.py", "-o", "python_functions=bench_*", "-p", "no:cacheprovider"]
    timing = ["--benchmark-enable", "--benchmark-only", "--benchmark-max-time=0.03", f"--passes={passes}"]
    command = [sys.executable, "-m", "pytest", "-q", *options, *timing, "--benchmark-json=run.json"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "run.json"


def gate(baseline: Path, latest: Path) -> int:
    """Return what `make bench-compare` would exit with."""
    command = [sys.executable, str(HERE / "compare.py"), str(baseline), str(latest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout + done.stderr, flush=True)
    return done.returncode


def main() -> int:
    """Run the self-test; 1 if the promise is broken."""
    caught = alarms = 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        baseline = measure(folder / "baseline", UNCHANGED)
        for turn in range(ROUNDS_OF_THREE):
            alarms += gate(baseline, measure(folder / f"first{turn}", UNCHANGED)) != 0
            caught += gate(baseline, measure(folder / f"slowed{turn}", SLOWED)) == 1
            alarms += gate(baseline, measure(folder / f"second{turn}", UNCHANGED)) != 0
    print(
        f"slowed runs caught: {caught} of {ROUNDS_OF_THREE}; false alarms: {alarms} of {2 * ROUNDS_OF_THREE}"
    )
    return int(alarms > 0 or caught < CAUGHT_AT_LEAST)


if __name__ == "__main__":
    sys.exit(main())
