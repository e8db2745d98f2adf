"""Ranked targets as GeoPackage, CSV and rows of the report."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lithostream.engine.io.geopackage import Layer, write_points
from lithostream.engine.maps.targets import Target

_SHOWN = {
    "rank": "d",
    "x": ",.10g",
    "y": ",.10g",
    "area_km2": ",.4g",
    "expected_km2": ",.4g",
    "mean_probability": ".3f",
    "max_probability": ".3f",
    "mean_uncertainty": ".3f",
}


def write_target_csv(path: Path, targets: Sequence[Target]) -> None:
    """Write targets as CSV, the best first."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Target._fields)
        writer.writerows(
            [f"{value:.9g}" if isinstance(value, float) else value for value in one] for one in targets
        )


def write_target_layer(path: Path, targets: Sequence[Target], crs: str) -> None:
    """Write targets as points at their centroids, layer `targets` of a GeoPackage, the best first.

    Raises
    ------
    BackendError
        pyogrio is not installed.
    """
    x, y = np.array([(one.x, one.y) for one in targets], np.float64).reshape(-1, 2).T
    columns = {
        name: np.array([getattr(one, name) for one in targets], np.int64 if kind is int else np.float64)
        for name, kind in Target.__annotations__.items()
        if name not in ("x", "y")
    }
    write_points(path, "targets", Layer(x, y, crs, columns))


def target_rows(targets: Sequence[Target]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the report's table."""
    rows = [[format(getattr(one, name), how) for name, how in _SHOWN.items()] for one in targets]
    return [name.replace("_", " ").replace("km2", "km²") for name in _SHOWN], rows
