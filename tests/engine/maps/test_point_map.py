"""Points in, a table of probabilities out: every row, in the order of the input."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from map_scene import PREDICTORS

from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.point_map import CENSORED, DUPLICATE, map_points
from lithostream.engine.maps.predict import NODATA, OUT_OF_DOMAIN
from lithostream.engine.maps.record import MapSettings
from lithostream.engine.maps.session import MapSession
from lithostream.engine.maps.sites import read_sites

NAMES = [one.name for one in PREDICTORS]
SETTINGS = MapSettings()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Sequence[object]], header: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_rows_without_coordinates_are_mapped_in_their_order(
    map_bundle: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    values = rng.normal(size=(50, 7)).astype(np.float32)
    values[7] = 50  # far from everything
    rows = [[str(value) for value in row[::-1]] for row in values]
    rows[3][2] = "-9999"
    rows[4][0] = f"<{abs(values[4, 6]) * 2}"
    values[4, 6] = abs(values[4, 6])
    source = write(tmp_path / "points.csv", [list(row) for row in rows], NAMES[::-1])
    record = map_points(source, map_bundle, tmp_path / "MAP.csv", SETTINGS)
    found = read(tmp_path / "MAP.csv")
    assert list(found[0]) == ["row", "probability", "uncertainty", "distance", "flags"]
    assert [int(row["row"]) for row in found] == list(range(1, 51))
    wanted = MapSession(load_map_bundle(map_bundle)).infer(values)
    for number, row in enumerate(found):
        if number == 3:
            assert (row["probability"], row["distance"], row["flags"]) == ("", "", str(NODATA))
            continue
        assert np.float32(row["probability"]) == wanted.probability[number]
        assert np.float32(row["uncertainty"]) == wanted.uncertainty[number]
        assert np.float32(row["distance"]) == wanted.distance[number]
        outside = OUT_OF_DOMAIN if wanted.distance[number] > 4 else 0
        assert int(row["flags"]) == outside + (CENSORED if number == 4 else 0)
    assert int(found[7]["flags"]) == OUT_OF_DOMAIN
    assert record.counts["missing"] == 1 and record.counts["beyond_detection"] == 1
    assert not (tmp_path / "MAP.html").exists()
    assert any("no coordinates" in note for note in record.notes)
    assert "PC5: 1 values are missing" in record.notes
    assert json.loads((tmp_path / "MAP.json").read_text())["counts"] == record.counts
    assert map_points(source, map_bundle, tmp_path / "MAP.csv", SETTINGS).unchanged
    assert not list(tmp_path.glob(".MAP*"))


def test_coordinates_without_a_system_are_kept_but_not_drawn(map_bundle: Path, tmp_path: Path) -> None:
    rows = [[0.1] * 7 + [500, 600], [0.2] * 7 + [500, 600], [0.3] * 7 + [0, 0]]
    source = write(tmp_path / "p.csv", rows, [*NAMES, "ESTE", "NORTE"])
    record = map_points(source, map_bundle, tmp_path / "MAP.csv", SETTINGS)
    found = read(tmp_path / "MAP.csv")
    assert [(row["x"], row["y"]) for row in found] == [("500.0", "600.0")] * 2 + [("0.0", "0.0")]
    assert [int(row["flags"]) & DUPLICATE for row in found] == [0, DUPLICATE, 0]
    assert record.counts["duplicate_locations"] == 1
    said = "\n".join(record.notes)
    assert "state no coordinate reference system" in said and "1 rows lie at 0, 0" in said
    with pytest.raises(SourceError, match="--crs EPSG"):
        map_points(source, map_bundle, tmp_path / "MAP.gpkg", SETTINGS)


def test_another_map_in_its_place_is_not_overwritten(map_bundle: Path, tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", [[0.1] * 7], NAMES)
    two = write(tmp_path / "two.csv", [[0.2] * 7], NAMES)
    out = tmp_path / "MAP.csv"
    map_points(one, map_bundle, out, SETTINGS)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match="of other inputs"):
        map_points(two, map_bundle, out, SETTINGS)
    assert out.read_bytes() == before
    (tmp_path / "foreign.csv").write_text("kept")
    with pytest.raises(ConfigError, match="exists already"):
        map_points(two, map_bundle, tmp_path / "foreign.csv", SETTINGS)
    with pytest.raises(ConfigError, match="is a table"):
        map_points(two, map_bundle, tmp_path / "MAP.tif", SETTINGS)


def test_points_with_a_system_are_drawn_and_written_as_geopackage(map_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="coordinate reference systems need rasterio: [geo]")
    pyogrio = pytest.importorskip("pyogrio", reason="GeoPackages need pyogrio: [geo]")
    rng = np.random.default_rng(4)
    rows: list[list[object]] = [
        [*map(float, rng.normal(size=7)), 250_000 + 100 * n, 900_000 + 50 * n] for n in range(40)
    ]
    rows[5][-2:] = ["", ""]
    source = write(tmp_path / "p.csv", rows, [*NAMES, "x", "y"])
    sites = write(tmp_path / "sites.csv", [[-136.9, 62.5]], ["lon", "lat"])
    crs = MapSettings(crs="EPSG:3578")
    first = map_points(source, map_bundle, tmp_path / "a" / "MAP.gpkg", crs)
    assert (tmp_path / "a" / "MAP.html").read_text().count("data:image/svg+xml") == 1
    meta, _, geometry, values = pyogrio.raw.read(tmp_path / "a" / "MAP.gpkg")
    assert meta["crs"] == "EPSG:3578" and list(meta["fields"]) == [
        "row",
        "probability",
        "uncertainty",
        "distance",
        "flags",
    ]
    assert values[0].tolist() == list(range(1, 41)) and geometry[5] is None
    again = map_points(source, map_bundle, tmp_path / "b" / "MAP.gpkg", crs)
    assert again.files == first.files
    drawn = map_points(source, map_bundle, tmp_path / "d" / "MAP.csv", crs, sites)
    assert drawn.counts["known_sites"] == 1 and any("1 rows have no place" in note for note in drawn.notes)


@pytest.mark.parametrize("cells", [[], [["NA"] * 7 + [250_000, 900_000]]])
def test_a_table_without_an_answer_is_a_map(
    map_bundle: Path, cells: list[list[object]], tmp_path: Path
) -> None:
    pytest.importorskip("rasterio", reason="coordinate reference systems need rasterio: [geo]")
    source = write(tmp_path / "p.csv", cells, [*NAMES, "x", "y"])
    found = map_points(source, map_bundle, tmp_path / "MAP.csv", MapSettings(crs="EPSG:3578"))
    assert found.counts["all"] == len(cells) and found.counts["answered"] == 0
    assert "data:image/svg+xml" in (tmp_path / "MAP.html").read_text()


def test_degrees_are_told_from_metres(map_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="coordinate reference systems need rasterio: [geo]")
    metres = "EPSG:3578"
    sites = write(tmp_path / "sites.csv", [[-136.9, 62.5]], ["lon", "lat"])
    known = read_sites(sites, metres, metres)
    assert 200_000 < known.x[0] < 500_000 and 700_000 < known.y[0] < 1_200_000
    source = write(tmp_path / "p.csv", [[0.1] * 7 + [-136.9, 62.5]], [*NAMES, "lon", "lat"])
    found = map_points(source, map_bundle, tmp_path / "MAP.csv", MapSettings(crs=metres))
    assert "lon, lat are taken as EPSG:4326: EPSG:3578 is not in degrees" in found.notes
    for place, crs in (([62.5, -136.9], metres), ([500_000, 900_000], "EPSG:4326")):
        write(tmp_path / "sites.csv", [[-136.9, 62.5], place], ["lon", "lat"])
        with pytest.raises(SourceError, match=r"row 3: longitude .* is no place in EPSG:4326"):
            read_sites(sites, metres, crs)


def test_a_geopackage_is_read_as_the_same_table(map_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio", reason="coordinate reference systems need rasterio: [geo]")
    pytest.importorskip("pyogrio", reason="GeoPackages need pyogrio: [geo]")
    from lithostream.engine.io.geopackage import Layer, write_points

    values = np.random.default_rng(6).normal(size=(20, 7))
    values[3, 2] = np.nan
    x, y = np.arange(20.0) + 250_000, np.arange(20.0) + 900_000
    columns = {name: values[:, number] for number, name in enumerate(NAMES)}
    write_points(tmp_path / "p.gpkg", "survey", Layer(x, y, "EPSG:3578", columns))
    rows: list[list[object]] = [["" if np.isnan(v) else repr(float(v)) for v in row] for row in values]
    source = write(
        tmp_path / "p.csv", [[*row, a, b] for row, a, b in zip(rows, x, y, strict=True)], [*NAMES, "x", "y"]
    )
    one = map_points(tmp_path / "p.gpkg", map_bundle, tmp_path / "one.csv", SETTINGS)
    map_points(source, map_bundle, tmp_path / "two.csv", MapSettings(crs="EPSG:3578"))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert one.counts["missing"] == 1 and (tmp_path / "one.html").is_file()


@pytest.mark.realdata
def test_the_random_points_of_the_yukon_study_are_mapped(
    data_dir: Callable[[str], Path], map_bundle: Path, tmp_path: Path
) -> None:
    source = data_dir("yukon-porphyry") / "013_Random.csv"
    record = map_points(source, map_bundle, tmp_path / "MAP.csv", SETTINGS)
    assert record.counts["all"] == record.counts["answered"] == 3000
    first = [float(read(source)[0][name]) for name in NAMES]  # PC1 is the last column there
    wanted = MapSession(load_map_bundle(map_bundle)).infer(np.array([first], np.float32)).probability[0]
    assert np.float32(read(tmp_path / "MAP.csv")[0]["probability"]) == wanted
