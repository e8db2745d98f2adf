"""Metrics: what a scrape says after known input."""

import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lithostream.engine.errors import ConfigError
from lithostream.engine.stream.metering import BUCKETS_S, RECENT
from lithostream.engine.stream.metrics import LOCALHOST, Amounts, Metrics


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scan:
    """Lines that arrive, each of which is a row."""

    received_lines: int = 0
    repeated_lines: int = 0
    times: list[float] = field(default_factory=list)

    def arrive(self, lines: int, now: float) -> None:
        self.received_lines += lines
        self.times += [now] * lines

    def arrived_s(self, row: int) -> float:
        return self.times[row]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock)


def numbers(text: str) -> dict[str, float]:
    """Every sample, by its name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = "".join(f"{{{key}={value}}}" for key, value in sample.labels.items())
            found[sample.name.removeprefix("lithostream_") + labels] = sample.value
    return found


def window(
    metrics: Metrics,
    section: str = "a",
    rows: int = 100,
    lost: int = 0,
    tiles: int = 8,
    first: Sequence[int] = (),
) -> None:
    metrics.window(section, lost=lost, rows=first, done=Amounts(rows, rows * 50, tiles, rows / 1000))


def test_a_scrape_says_what_was_counted(metrics: Metrics, clock: Clock) -> None:
    metrics.begun("a", 250)
    window(metrics)
    window(metrics, lost=7, tiles=5)
    metrics.ended("stray", "refused")
    metrics.ended("before", "unchanged")
    metrics.ended("before too", "unchanged")
    for seconds in (2.0, 0.5):
        with metrics.stage("write"):
            clock.now += seconds
    with metrics.serve(0) as port:
        with urllib.request.urlopen(f"http://{LOCALHOST}:{port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            found = numbers(answer.read().decode())
        assert port > 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{LOCALHOST}:{port}/metrics", timeout=10)
    expected = {
        "rows_total": 200.0,
        "pixels_total": 10_000.0,
        "tiles_total": 13.0,
        "core_metres_total": 0.2,
        "received_lines_total": 250.0,
        "lost_lines_total": 7.0,
        "repeated_lines_total": 0.0,
        "dropped_lines_total": 0.0,
        "sections_total{outcome=committed}": 0.0,
        "sections_total{outcome=refused}": 1.0,
        "sections_total{outcome=unchanged}": 2.0,
        "stage_seconds_total{stage=write}": 2.5,
        "waiting_lines": 50.0,
        "lag_seconds": 0.0,
        "line_latency_seconds_count": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["process_resident_memory_bytes"] > 10e6
    assert np.isnan(found["line_latency_quantile_seconds{quantile=0.5}"])
    assert not [name for name in found if name.endswith("_created")]


def test_a_taken_port_and_a_foreign_address_are_told(metrics: Metrics) -> None:
    taken = r"Address already in use \(fix: choose another port\)"
    with (
        metrics.serve(0) as port,
        pytest.raises(ConfigError, match=f"{port}: {taken}"),
        Metrics().serve(port),
    ):
        raise AssertionError("served")
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"), metrics.serve(0, "192.0.2.1"):
        raise AssertionError("served")


def test_two_sets_of_metrics_share_nothing(metrics: Metrics) -> None:
    other = Metrics()
    metrics.begun("a", 100)
    window(metrics)
    assert numbers(metrics.text())["tiles_total"] == 8 and numbers(other.text())["tiles_total"] == 0


def test_latency_runs_from_arrival_until_the_properties_are_told(metrics: Metrics, clock: Clock) -> None:
    scan = Scan()
    metrics.begun("a", scan)
    metrics.begun("file", 7)
    for _ in range(4):  # 240 lines by 1003 s
        scan.arrive(60, clock.now)
        clock.now += 1.0
    found = numbers(metrics.text())
    assert found["lag_seconds"] == 4.0 and found["waiting_lines"] == 240.0 + 7
    window(metrics, rows=100, first=(0, 50))
    window(metrics, "file", rows=7, first=(0,))
    found = numbers(metrics.text())
    assert found["line_latency_seconds_count"] == 2 and found["line_latency_seconds_sum"] == 8.0
    assert found["lag_seconds"] == 3.0 and found["waiting_lines"] == 140.0
    clock.now += 6.0
    window(metrics, rows=140, first=(119, 120, 180))
    found = numbers(metrics.text())
    assert found["line_latency_seconds_count"] == 5
    assert found["line_latency_seconds_sum"] == 8.0 + 9.0 + 8.0 + 7.0
    assert found["lag_seconds"] == 0.0 and found["waiting_lines"] == 0.0
    assert found["line_latency_quantile_seconds{quantile=0.5}"] == 7.0
    counts = [found[f"line_latency_seconds_bucket{{le={bound:g}}}"] for bound in BUCKETS_S]
    assert counts == [0 if bound < 5 else 2 if bound < 10 else 5 for bound in BUCKETS_S]
    assert found["line_latency_seconds_bucket{le=+Inf}"] == 5
    scan.received_lines += 1  # there, and not read yet
    found = numbers(metrics.text())
    assert found["lag_seconds"] == 0.0 and found["waiting_lines"] == 1.0


def test_quantiles_are_those_of_the_newest(metrics: Metrics, clock: Clock, rng: np.random.Generator) -> None:
    seconds = np.concatenate([np.full(500, 700.0), rng.gamma(2.0, 0.3, RECENT)])
    scan = Scan()
    metrics.begun("a", scan)
    scan.times = list(clock.now - seconds)
    for row in range(len(seconds)):
        window(metrics, rows=1, first=(row,))
    found = numbers(metrics.text())
    for share in (0.5, 0.99):
        told = found[f"line_latency_quantile_seconds{{quantile={share:g}}}"]
        assert told == pytest.approx(np.quantile(seconds[-RECENT:], share), abs=1e-9)
    assert found["line_latency_seconds_count"] == len(seconds)
    under = int(np.count_nonzero(seconds <= 0.5))
    assert found["line_latency_seconds_bucket{le=0.5}"] == under and 1000 < under < 3000
    assert found["line_latency_seconds_bucket{le=60}"] == RECENT


def test_rates_are_of_the_last_minute(metrics: Metrics, clock: Clock) -> None:
    metrics.begun("a", 5000)
    for _ in range(100):  # 10 windows a second for 10 s
        clock.now += 0.1
        window(metrics, rows=10, tiles=2)
    found = numbers(metrics.text())
    assert found["tiles_per_second"] == pytest.approx(20.0)
    assert found["pixels_per_second"] == pytest.approx(5000.0)
    assert found["core_metres_per_hour"] == pytest.approx(360.0)
    clock.now += 45.0  # idle: the same work in 55 s
    assert numbers(metrics.text())["tiles_per_second"] == pytest.approx(200 / 55)
    clock.now += 30.0
    window(metrics, tiles=30)
    assert numbers(metrics.text())["tiles_per_second"] == pytest.approx(0.5)
    clock.now += 61.0
    assert numbers(metrics.text())["tiles_per_second"] == 0.0


@pytest.mark.parametrize("missing", [0, 1, 130])
def test_a_line_missing_from_a_committed_section_was_dropped(missing: int, metrics: Metrics) -> None:
    metrics.begun("file", 300)
    window(metrics, "file", rows=300 - missing, lost=20)  # a file's lost rows are rows of its image
    metrics.begun("live", Scan(200 + missing, 50))
    window(metrics, "live", rows=100, lost=40)
    window(metrics, "live", rows=90)  # 190 rows; no line came for 40 of them, and 50 lines were left out
    assert numbers(metrics.text())["waiting_lines"] == 2 * missing
    for section in ("file", "live"):
        metrics.ended(section, "committed")
    found = numbers(metrics.text())
    assert found["dropped_lines_total"] == 2 * missing
    assert found["received_lines_total"] == 500 + missing
    assert found["lost_lines_total"] == 60 and found["repeated_lines_total"] == 50
    assert found["waiting_lines"] == 0
    metrics.begun("file", 100)
    metrics.ended("file", "refused")  # nothing of it is committed
    assert numbers(metrics.text())["dropped_lines_total"] == 2 * missing


def test_an_attempt_after_another_counts_its_lines_once(metrics: Metrics) -> None:
    scan = Scan(120, 20)
    for _ in range(2):
        metrics.begun("live", scan)
        window(metrics, "live", rows=60, lost=10)
        scan.received_lines += 30
    assert numbers(metrics.text())["waiting_lines"] == 180 - 20 - 50
    scan.repeated_lines = 5  # begun anew, it has not seen the others again yet
    for _ in range(2):
        metrics.begun("file", 300)
    found = numbers(metrics.text())
    assert (found["lost_lines_total"], found["repeated_lines_total"]) == (10.0, 20.0)
    assert found["received_lines_total"] == 180 + 300
    assert found["rows_total"] == 120 and found["pixels_total"] == 120 * 50  # that work was done
    scan.repeated_lines, scan.received_lines = 25, 200
    metrics.ended("live", "refused")  # the last are counted too
    found = numbers(metrics.text())
    assert found["repeated_lines_total"] == 25 and found["received_lines_total"] == 500


def scrapes(metrics: Metrics, stop: threading.Event) -> Iterator[float]:
    while not stop.is_set():
        yield numbers(metrics.text())["tiles_total"]


def test_threads_count_every_window_while_others_scrape(metrics: Metrics) -> None:
    stop, seen = threading.Event(), list[float]()
    reader = threading.Thread(target=lambda: seen.extend(scrapes(metrics, stop)))
    reader.start()

    def work(section: str) -> None:
        metrics.begun(section, 1000)
        for _ in range(1000):
            window(metrics, section, rows=1, tiles=1)
        metrics.ended(section, "committed")

    workers = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    stop.set()
    reader.join(20)
    assert seen == sorted(seen)
    found = numbers(metrics.text())
    assert found["tiles_total"] == 3000 and found["pixels_total"] == 150_000
    assert found["sections_total{outcome=committed}"] == 3
