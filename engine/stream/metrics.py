"""Numbers of a run for Prometheus: what went through, how fast, how late, and that nothing was dropped."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lithostream.engine.errors import ConfigError
from lithostream.engine.stream.metering import RECENT, Backlog, Latencies, Live, Rates

LOCALHOST = "127.0.0.1"
QUANTILES = (0.5, 0.99)

Outcome = Literal["committed", "refused", "unchanged"]
OUTCOMES: tuple[Outcome, ...] = ("committed", "refused", "unchanged")

COUNTERS = {
    "rows": "Rows of section images that were processed",
    "pixels": "Pixels of section images that were processed",
    "tiles": "Tiles with enough core, whose properties were predicted",
    "core_metres": "Length of section images that was processed",
    "received_lines": "Lines of images that came in",
    "repeated_lines": "Lines left out because the scanner stood still or went back",
    "lost_lines": "Lines that never came in, gaps in the result",
    "dropped_lines": "Lines that came in and are not in the committed section; anything but 0 is a defect",
}


class Amounts(NamedTuple):
    """Work that was done, and which rates are taken of."""

    rows: int
    pixels: int
    tiles: int
    core_metres: float


class Metrics(Collector):
    """The numbers of one process; every method may be called from any thread.

    Parameters
    ----------
    clock : callable
        Seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(COUNTERS, 0.0)
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._stages: dict[str, float] = {}
        self._backlogs: dict[str, Backlog] = {}
        self._rates = Rates(clock())
        self._latencies = Latencies()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def begun(self, section: str, source: int | Live) -> None:
        """Start a section from its top, again too.

        Parameters
        ----------
        section : str
        source : int or Live
            Rows of its image, which count as received at once; or its lines, as they arrive.
        """
        with self._lock:
            backlog = self._backlogs.setdefault(section, Backlog())
            backlog.begin(source)
            self._count(backlog)

    def window(self, section: str, *, lost: int, rows: Sequence[int], done: Amounts) -> None:
        """Count a window whose properties have been told.

        Parameters
        ----------
        section : str
        lost : int
            Rows of the window that no line came for.
        rows : sequence of int
            First row of each of its tile rows, whose latency is taken if they are live.
        done : Amounts
        """
        with self._lock:
            now, backlog = self._clock(), self._backlogs[section]
            for name, amount in done._asdict().items():
                self._totals[name] += amount
            self._rates.add(now, done)
            backlog.tell(done.rows, lost)
            self._count(backlog)
            for arrived_s in map(backlog.arrived_s, rows):
                if arrived_s is not None:
                    self._latencies.observe(now - arrived_s)

    def ended(self, section: str, outcome: Outcome) -> None:
        """Count a section, or an input that is none; what is missing of a committed one was dropped."""
        with self._lock:
            self._outcomes[outcome] += 1
            backlog = self._backlogs.pop(section, Backlog())
            self._count(backlog)
            if outcome == "committed":
                self._totals["dropped_lines"] += backlog.waiting

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time that a stage takes, whether it succeeds or not."""
        begun = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self._stages[name] = self._stages.get(name, 0.0) + self._clock() - begun

    def collect(self) -> list[Metric]:
        """Return every family as it is now."""
        with self._lock:
            for backlog in self._backlogs.values():
                self._count(backlog)
            totals = [
                CounterMetricFamily(f"lithostream_{name}", text, value=self._totals[name])
                for name, text in COUNTERS.items()
            ]
            sections = CounterMetricFamily("lithostream_sections", "Sections by outcome", labels=["outcome"])
            for outcome, count in self._outcomes.items():
                sections.add_metric([outcome], count)
            stages = CounterMetricFamily(
                "lithostream_stage_seconds", "Time spent in each stage", labels=["stage"]
            )
            for stage, seconds in self._stages.items():
                stages.add_metric([stage], seconds)
            return [*totals, sections, stages, *self._gauges(), *self._latency()]

    def text(self) -> str:
        """Return every number in the text format, as for node_exporter's textfile collector."""
        return generate_latest(self._registry).decode()

    @contextmanager
    def serve(self, port: int, host: str = LOCALHOST) -> Iterator[int]:
        """Answer `GET /metrics` for as long as the context is open.

        Parameters
        ----------
        port : int
            0 for one that is free.
        host : str
            Anyone who reaches it can read the numbers.

        Yields
        ------
        int
            The port.

        Raises
        ------
        ConfigError
            The port is taken, or the address is not of this machine.
        """
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {host}:{port}: {error.strerror}", fix="choose another port"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _count(self, backlog: Backlog) -> None:
        for name, lines in backlog.news().items():
            self._totals[name] += lines

    def _gauges(self) -> list[GaugeMetricFamily]:
        now = self._clock()
        _, pixels, tiles, metres = self._rates.per_second(now, len(Amounts._fields))
        ages = [
            now - oldest for backlog in self._backlogs.values() if (oldest := backlog.oldest_s) is not None
        ]
        waiting = sum(backlog.waiting for backlog in self._backlogs.values())
        values = {
            "waiting_lines": ("Lines that came in and whose properties are not told", waiting),
            "lag_seconds": (
                "Age of the oldest live line whose properties are not told",
                max(ages, default=0.0),
            ),
            "pixels_per_second": ("Pixels over the last minute", pixels),
            "tiles_per_second": ("Tiles over the last minute", tiles),
            "core_metres_per_hour": ("Length over the last minute", 3600 * metres),
        }
        return [
            GaugeMetricFamily(f"lithostream_{name}", text, value=float(value))
            for name, (text, value) in values.items()
        ]

    def _latency(self) -> list[Metric]:
        name = "lithostream_line_latency"
        text = f"Quantiles over the newest {RECENT} of lithostream_line_latency_seconds"
        quantiles = GaugeMetricFamily(f"{name}_quantile_seconds", text, labels=["quantile"])
        for share in QUANTILES:
            quantiles.add_metric([f"{share:g}"], self._latencies.quantile(share))
        return [self._latencies.histogram(f"{name}_seconds"), quantiles]
