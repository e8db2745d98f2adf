"""A simulated scanner beside the runner: how long after its line a property is told, and whether any line is lost.

    python bench/live.py                                  # 20 px/mm, 100 mm wide, 20 mm/s, one minute
    python bench/live.py --minutes 10 --mm-per-s 20

The image is a generated core, sent again and again as one section by a process of its own. Latency is taken from the
arrival of the first line of each tile row, which waits longest, until its properties are told; a tile of 1 cm takes
10 / speed seconds to scan, and the core below it must be seen for 1.6 cm before the mask of a row is final, so
2.6 cm / speed is the least there can be; what is beyond it is the runner's own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np

from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.stream.events import EVENTS
from lithostream.engine.stream.metrics import Metrics
from lithostream.engine.stream.runner import Runner
from lithostream.engine.stream.scan import LIVE_SETTINGS, SPOOL, scan

BUNDLE = Path(__file__).parents[1] / "engine" / "demo_bundle"
IMAGE_CM = 50.0


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--mm-per-s", type=float, default=20.0)
    parser.add_argument("--px-per-cm", type=float, default=200.0)
    parser.add_argument("--width-cm", type=float, default=10.0)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    given = parser.parse_args()
    length_cm = given.minutes * 60 * given.mm_per_s / 10
    with tempfile.TemporaryDirectory() as folder:
        core = generate(77, length_cm=IMAGE_CM, width_cm=given.width_cm, px_per_cm=given.px_per_cm)
        image, address = write(core, Path(folder)), f"unix:{folder}/camera"
        repeat = max(1, round(length_cm / IMAGE_CM))
        speed = [str(given.px_per_cm), str(given.mm_per_s), "--repeat", str(repeat)]
        camera = subprocess.Popen(
            [sys.executable, "-m", "lithostream.engine.io.line_replay", image, address, *speed]
        )
        try:
            found = measured(address, given.bundle, Path(folder) / "out")
        finally:
            camera.kill()
    print(json.dumps({"speed_mm_s": given.mm_per_s, "length_cm": repeat * IMAGE_CM, **found}, indent=2))


def measured(address: str, bundle: Path, out: Path) -> dict[str, float]:
    """Scan until the camera ends."""
    latency: list[float] = []
    metrics = Metrics()
    with Runner(bundle, out, LIVE_SETTINGS, metrics=metrics) as runner:
        begun, cpu = time.monotonic(), time.process_time()

        def told(_section: str, done: int, _total: int) -> None:
            latency.append(time.monotonic())

        scan(address, runner, told)
        seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    values = dict(line.split() for line in metrics.text().splitlines() if " " in line and "#" not in line)
    kinds: dict[str, float] = {}
    for line in (out / EVENTS).read_text().splitlines():
        event = json.loads(line)
        kinds.setdefault(event["kind"], datetime.fromisoformat(event["utc"]).timestamp())
    spooled = sum(path.stat().st_size for path in (out / SPOOL).iterdir())
    names = ("received_lines_total", "lost_lines_total", "dropped_lines_total", "tiles_total")
    gaps = np.diff(latency)
    return {
        "seconds": round(seconds, 1),
        "cores_busy": round(cpu / seconds, 3),
        "spool_mb": round(spooled / 1e6, 1),
        "longest_gap_between_readings_s": round(float(gaps.max()), 3),
        "first_reading_after_header_s": round(kinds["rows"] - kinds["begun"], 3),
        "p50_s": round(float(values['lithostream_line_latency_quantile_seconds{quantile="0.5"}']), 3),
        "p99_s": round(float(values['lithostream_line_latency_quantile_seconds{quantile="0.99"}']), 3),
        **{name: float(values[f"lithostream_{name}"]) for name in names},
        "resident_mb": round(float(values["process_resident_memory_bytes"]) / 1e6, 1),
    }


if __name__ == "__main__":
    main()
