"""What the metrics add up: lines that wait, sums of the last minute, latencies. None of it grows with the run."""

from bisect import bisect_left
from collections import Counter, deque
from itertools import accumulate
from typing import Protocol

import numpy as np
from prometheus_client.core import HistogramMetricFamily

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RECENT = 4096  # latencies behind the quantiles
RATE_S = 60.0


class Live(Protocol):
    """Lines that arrive while they are read."""

    @property
    def received_lines(self) -> int:
        """Lines that arrived, read or not."""
        ...

    @property
    def repeated_lines(self) -> int:
        """Lines read that were left out, because the scanner stood still or went back."""
        ...

    def arrived_s(self, row: int) -> float:
        """When a row arrived, in seconds that never jump; IndexError for one that was not read."""
        ...


class Backlog:
    """Lines of one section: how many came in, and how many have their properties told.

    Attributes
    ----------
    rows, lost : int
        Rows told in this attempt, and those among them that no line came for.
    """

    def __init__(self) -> None:
        self.rows = self.lost = 0
        self._source: int | Live = 0
        self._counted: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Lines that came in and are neither told nor left out."""
        if isinstance(self._source, int):
            return max(0, self._source - self.rows)
        return max(0, self._source.received_lines - self._source.repeated_lines - (self.rows - self.lost))

    @property
    def oldest_s(self) -> float | None:
        """When the oldest live line that is not told arrived; None where none waits."""
        return self.arrived_s(self.rows) if self.waiting else None

    def begin(self, source: int | Live) -> None:
        """Start from the top of a file of so many rows, or of lines that arrive; both see again what they saw before."""
        self.rows = self.lost = 0
        self._source = source

    def tell(self, rows: int, lost: int) -> None:
        """Take a window."""
        self.rows += rows
        self.lost += lost

    def arrived_s(self, row: int) -> float | None:
        """When a live row arrived; None for one of a file, or one that was not read yet."""
        if isinstance(self._source, int):
            return None
        try:
            return self._source.arrived_s(row)
        except IndexError:
            return None

    def news(self) -> Counter[str]:
        """Return what was not counted yet, by the name of its counter; no attempt counts a line again."""
        received = self._source if isinstance(self._source, int) else self._source.received_lines
        repeated = 0 if isinstance(self._source, int) else self._source.repeated_lines
        now = Counter(received_lines=received, repeated_lines=repeated, lost_lines=self.lost)
        new = now - self._counted
        self._counted += new
        return new


class Rates:
    """Sums over the last minute, second by second."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._seconds: deque[tuple[float, tuple[float, ...]]] = deque()

    def add(self, now: float, amounts: tuple[float, ...]) -> None:
        """Add to each sum."""
        if self._seconds and now - self._seconds[-1][0] < 1.0:
            second, before = self._seconds[-1]
            self._seconds[-1] = (second, tuple(a + b for a, b in zip(before, amounts, strict=True)))
        else:
            self._seconds.append((now, amounts))
        self._forget(now)

    def per_second(self, now: float, count: int) -> tuple[float, ...]:
        """Return each sum by the time it took, no less than a second of it."""
        self._forget(now)
        span = min(max(now - self._begun, 1.0), RATE_S)
        sums = [sum(amounts[place] for _, amounts in self._seconds) for place in range(count)]
        return tuple(total / span for total in sums)

    def _forget(self, now: float) -> None:
        while self._seconds and now - self._seconds[0][0] > RATE_S:
            self._seconds.popleft()


class Latencies:
    """A histogram of all, and the newest for quantiles."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum = 0.0
        self._recent = np.full(RECENT, np.nan)

    def observe(self, seconds: float) -> None:
        """Add one."""
        self._recent[sum(self._counts) % RECENT] = seconds
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def histogram(self, name: str) -> HistogramMetricFamily:
        """Return all, by bucket."""
        bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        text = "Time from the arrival of a tile row's first line until its properties were told"
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)

    def quantile(self, share: float) -> float:
        """Return a quantile of the newest; NaN before the first."""
        known = self._recent[: sum(self._counts)]
        return float(np.quantile(known, share)) if len(known) else float("nan")
