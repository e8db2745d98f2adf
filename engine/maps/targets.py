"""Targets: connected pixels of high probability on known ground, ranked."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.maps.components import FIELDS, ONE, Components
from lithostream.engine.maps.grid import Grid
from lithostream.engine.maps.predict import Answer
from lithostream.engine.maps.windows import Window

MOST = 1000  # that are kept: nobody visits more

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Target(NamedTuple):
    """One target.

    Attributes
    ----------
    rank : int
        From 1, by expected area.
    x, y : float
        Centroid.
    area_km2 : float
    expected_km2 : float
        Area times mean probability: what would be prospective if the probabilities were true.
    mean_probability, max_probability, mean_uncertainty : float
    pixels : int
    x_of_max, y_of_max : float
        Centre of the pixel with the largest probability; the centroid of a bent target may lie outside it.
    """

    rank: int
    x: float
    y: float
    area_km2: float
    expected_km2: float
    mean_probability: float
    max_probability: float
    mean_uncertainty: float
    pixels: int
    x_of_max: float
    y_of_max: float


class TargetFinder:
    """Collects the targets of a map whose windows come in order; memory does not grow with the map.

    Parameters
    ----------
    grid : Grid
    threshold : float
        Least probability of a target's pixels.
    most : int
        Targets that are kept.
    """

    def __init__(self, grid: Grid, threshold: float, most: int = MOST) -> None:
        self._grid, self._threshold, self._most = grid, threshold, most
        self._components = Components(grid.shape[1])
        self._kept = np.empty((0, len(FIELDS)), np.int64)
        self.found = 0

    def add(self, window: Window, answer: Answer) -> None:
        """Take the answer of the next window; flagged pixels belong to no target."""
        mask = (answer.flags == 0) & (answer.probability >= np.float32(self._threshold))
        self._keep(self._components.add(window, mask, answer.probability, answer.uncertainty))

    def targets(self) -> list[Target]:
        """Return the targets after the last window, the best first."""
        self._keep([self._components.rest()])
        return [self._target(rank, one) for rank, one in enumerate(self._best(self._kept), 1)]

    def _keep(self, closed: Iterable[Ints]) -> None:
        for some in closed:
            self.found += len(some)
            self._kept = np.concatenate([self._kept, some])
        if len(self._kept) > 4 * self._most:
            self._kept = self._best(self._kept)

    def _best(self, some: Ints) -> Ints:
        expected = some[:, 1] / ONE * self._grid.pixel_area(*self._centroid(some))
        return some[np.lexsort((some[:, 7], -expected))[: self._most]]

    def _centroid(self, some: Ints) -> tuple[Floats, Floats]:
        return some[:, 3] / some[:, 0], some[:, 4] / some[:, 0]

    def _target(self, rank: int, one: Ints) -> Target:
        held = dict(zip(FIELDS, map(int, one), strict=True))
        pixels = held["pixels"]
        row, column = held["row"] / pixels, held["column"] / pixels
        area = float(self._grid.pixel_area(np.array([row]), np.array([column]))[0]) * pixels / 1e6
        mean = held["probability"] / ONE / pixels
        best_row, best_column = divmod(held["most_at"], self._grid.shape[1])
        return Target(
            rank,
            *self._grid.centre(row, column),
            area,
            area * mean,
            mean,
            held["most"] / ONE,
            held["uncertainty"] / ONE / pixels,
            pixels,
            *self._grid.centre(best_row, best_column),
        )
