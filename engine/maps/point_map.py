"""From a table of points to a table of probabilities, row by row in the order of the input."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import ConfigError
from lithostream.engine.io.geopackage import Layer, write_points
from lithostream.engine.io.point_values import PredictorRows, duplicates, predictor_rows
from lithostream.engine.io.points import PointTable, read_table
from lithostream.engine.io.raster import parse_crs
from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.figure import Placed
from lithostream.engine.maps.place import made_before, workplace
from lithostream.engine.maps.predict import OUT_OF_DOMAIN, Answer, judge
from lithostream.engine.maps.record import MapRecord, MapSettings, beside, input_hashes, map_key
from lithostream.engine.maps.report import REPORT, write_map_report
from lithostream.engine.maps.session import MapSession
from lithostream.engine.maps.sites import DEGREES, Sites, read_sites, stated_crs

SUFFIXES = (".csv", ".gpkg")
CENSORED, DUPLICATE = 8, 16
"""Flags beside those of pixels: a value is beyond a detection limit; an earlier row has the same coordinates."""

Floats = npt.NDArray[np.float32]


class _Points(NamedTuple):
    """A table and what the model says of it."""

    table: PointTable
    answer: Answer
    distance: Floats
    crs: str | None


def map_points(
    path: Path, bundle_path: Path, out: Path, settings: MapSettings, sites: Path | None = None
) -> MapRecord:
    """Map a table of points.

    `out`, CSV or GeoPackage, has a row for each row of the input, in its order, with `row` (from 1), the coordinates,
    `probability`, `uncertainty`, `distance` and `flags`. Beside it lie `.json` and, where the points have a place that
    is known on the ground, `.html`.

    Parameters
    ----------
    path, bundle_path, out : Path
    settings : MapSettings
    sites : Path, optional
        Known sites for the report, CSV or GeoPackage.

    Raises
    ------
    LithostreamError
        An input does not fit, or something else is at `out`.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError("a map of points is a table", file=out, fix="name it MAP.csv or MAP.gpkg")
    bundle = load_map_bundle(bundle_path)
    table = read_table(path, bundle.manifest.predictors)
    rows = predictor_rows(table, bundle.manifest.predictors)
    session = MapSession(bundle)
    inputs = input_hashes([path, *([sites] if sites else [])])
    key = map_key(bundle, settings, session.backend, {"inputs": inputs})
    record = MapRecord(out, key, bundle, settings, session.backend, inputs)
    crs = _crs(table, settings, record, needed=out.suffix.lower() == ".gpkg" or sites is not None)
    known = read_sites(sites, crs, settings.crs) if sites is not None and crs is not None else None
    if made_before(record):
        return record
    found = session.infer(rows.values)  # missing rows too: each keeps its place in the batch
    answer = judge(found, rows.valid, bundle.manifest.distance_limit)
    points = _Points(
        table, _with_flags(answer, table, rows), np.where(rows.valid, found.distance, np.nan), crs
    )
    _tell(record, points, rows, known)
    with workplace(record, [out.name, *([beside(out, REPORT).name] if crs else [])]) as folder:
        _write_table(folder / out.name, points)
        if crs and table.place:
            _write_report(folder / beside(out, REPORT).name, record, points.answer, table.place, crs, known)
    return record


def _crs(table: PointTable, settings: MapSettings, record: MapRecord, *, needed: bool) -> str | None:
    """Coordinate reference system of the points; None where they have no coordinates or it is not known."""
    if table.place is None:
        if needed:
            raise ConfigError(
                "has no coordinates",
                file=table.path,
                fix="write a CSV without --sites, or add columns x and y",
            )
        record.notes.append(
            "the table has no coordinates: rows are mapped in their order, and there is no report"
        )
        return None
    if table.crs is None and settings.crs is None and not needed:
        record.notes.append(
            f"coordinates in {table.place_from} state no coordinate reference system: there is no report; name it with --crs"
        )
        return None
    found = stated_crs(table, settings.crs)
    if table.crs is None and settings.crs is not None and found != parse_crs(settings.crs):
        record.notes.append(f"{table.place_from} are taken as {DEGREES}: {settings.crs} is not in degrees")
    crs: str = found.to_wkt()
    return crs


def _with_flags(answer: Answer, table: PointTable, rows: PredictorRows) -> Answer:
    flags = answer.flags | np.where(rows.censored, CENSORED, 0).astype(np.uint8)
    if table.place is not None:
        flags |= np.where(duplicates(*table.place), DUPLICATE, 0).astype(np.uint8)
    return answer._replace(flags=flags)


def _tell(record: MapRecord, points: _Points, rows: PredictorRows, known: Sites | None) -> None:
    flags, table = points.answer.flags, points.table
    record.notes += [*rows.notes, *(known.notes if known else ())]
    record.counts = {
        "all": len(flags),
        "missing": int((~rows.valid).sum()),
        "answered": int(np.isfinite(points.answer.probability).sum()),
        "out_of_domain": int((flags & OUT_OF_DOMAIN > 0).sum()),
        "beyond_detection": int((flags & CENSORED > 0).sum()),
        "duplicate_locations": int((flags & DUPLICATE > 0).sum()),
    }
    if known is not None:
        record.counts["known_sites"] = len(known.x)
    if table.place is None:
        return
    x, y = table.place
    nowhere = int((~(np.isfinite(x) & np.isfinite(y))).sum())
    origin = int(((x == 0) & (y == 0)).sum())
    if nowhere:
        record.notes.append(f"{nowhere} rows have no place")
    if origin:
        record.notes.append(f"{origin} rows lie at 0, 0")
    if record.counts["duplicate_locations"]:
        record.notes.append(
            f"{record.counts['duplicate_locations']} rows lie exactly where an earlier one does"
        )


def _columns(points: _Points) -> dict[str, npt.NDArray[Any]]:
    return {
        "row": np.arange(1, len(points.distance) + 1),
        "probability": points.answer.probability,
        "uncertainty": points.answer.uncertainty,
        "distance": points.distance,
        "flags": points.answer.flags.astype(np.int32),
    }


def _write_table(path: Path, points: _Points) -> None:
    columns, place = _columns(points), points.table.place
    if place is not None and path.suffix.lower() == ".gpkg":
        write_points(path, "points", Layer(*place, points.crs, columns))
        return
    if place is not None:
        columns = {"row": columns.pop("row"), "x": place[0], "y": place[1], **columns}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(_cells, zip(*columns.values(), strict=True)))


def _cells(row: Sequence[Any]) -> list[str]:
    """Write numbers so that they read as the same ones, and nothing for none."""
    return ["" if np.isnan(value) else str(value) for value in row]


def _write_report(
    path: Path,
    record: MapRecord,
    answer: Answer,
    place: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    crs: str,
    known: Sites | None,
) -> None:
    x, y = place
    placed = np.isfinite(x) & np.isfinite(y) & np.isfinite(answer.probability)
    shown = Placed(x[placed], y[placed], answer.probability[placed].astype(np.float64))
    inside = placed & (answer.flags & OUT_OF_DOMAIN == 0)
    inside &= answer.probability >= np.float32(record.bundle.manifest.threshold)
    order = np.lexsort((np.arange(len(x)), -answer.probability))
    best = [row for row in order if inside[row]][: record.settings.targets]
    cells = [
        [
            str(row + 1),
            f"{x[row]:,.10g}",
            f"{y[row]:,.10g}",
            f"{answer.probability[row]:.3f}",
            f"{answer.uncertainty[row]:.3f}",
        ]
        for row in best
    ]
    write_map_report(
        path,
        record,
        shown,
        (["row", "x", "y", "probability", "uncertainty"], cells),
        [(float(x[row]), float(y[row])) for row in best],
        known,
        None,
        degrees=bool(parse_crs(crs).is_geographic),
    )
