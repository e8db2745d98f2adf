"""Tables of points: columns by name, values beyond detection or missing by a rule that is told, units held."""

from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.errors import SourceError
from lithostream.engine.io.point_values import PredictorRows, duplicates, predictor_rows
from lithostream.engine.io.points import read_table
from lithostream.engine.io.units import same_unit
from lithostream.engine.maps.manifest import Predictor

CU, MAG = Predictor(name="Cu", unit="ppm", non_negative=True), Predictor(name="MAG", unit="nT")
BOTH = (CU, MAG)


def rows_of(tmp_path: Path, text: str) -> PredictorRows:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    return predictor_rows(read_table(path, BOTH), BOTH)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Cu,MAG\n1.5,-2\n3,4\n", [[1.5, -2], [3, 4]]),
        ("MAG;note;Cu\n-2;a, b;1.5\n4;;3\n", [[1.5, -2], [3, 4]]),
        ('"Cu [ppm]",MAG [ nT ]\n"1.5", -2\n\n3,4\n', [[1.5, -2], [3, 4]]),
        ("\ufeffCu,MAG\r\nmg/kg,nT\r\n1.5,-2\r\n", [[1.5, -2]]),
        ("Cu\tMAG\n1.5\t-2\n", [[1.5, -2]]),
        ("x,y,Cu,MAG\nm,m,ppm,\n1,2,1.5,-2\n", [[1.5, -2]]),
        ("Cu,MAG\n", np.empty((0, 2))),
    ],
)
def test_columns_are_found_by_name(text: str, values: list[list[float]], tmp_path: Path) -> None:
    found = rows_of(tmp_path, text)
    np.testing.assert_array_equal(found.values, np.array(values, np.float32))
    assert found.valid.all() and not found.censored.any() and found.notes == ()


def test_values_beyond_detection_and_missing_ones(tmp_path: Path) -> None:
    cells = ["<0.5", "< 3", "-2", ">100", "0", "-9999", "-999.25", "", "NA", "1e39"]
    found = rows_of(tmp_path, "Cu,MAG\n" + "".join(f"{cell},-2\n" for cell in cells))
    assert found.values[:5, 0].tolist() == [0.25, 1.5, 1.0, 100.0, 0.0]
    assert found.censored.tolist() == [True] * 4 + [False] * 6
    assert found.valid.tolist() == [True] * 5 + [False] * 5
    assert (found.values[:, 1] == -2).all()  # a predictor that may be negative
    assert found.notes == (
        "Cu: 5 values are missing",
        "Cu: 4 values beyond detection, taken as half of the lower limit or as the upper limit",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Cu,X\n1,2\n", "no column for MAG; there are Cu, X"),
        ("Cu,MAG\n1,2\n3,four\n", "column MAG, row 3: 'four' is no number"),
        ("Cu,MAG\nppm,nT\n1,2\n3,4_0\n", "column MAG, row 4: '4_0'"),
        ("Cu,MAG\n1,<-2\n", "column MAG, row 2: '<-2': half of a limit below 0 is above it"),
        ("Cu,MAG\n1,2\n<<2,2\n", "column Cu, row 3: '<<2' is no number"),
        ("Cu [ppb],MAG\n1,2\n", "Cu is in 'ppb', the model takes 'ppm'"),
        ("Cu,MAG\nppm,T\n1,2\n", "MAG is in 'T', the model takes 'nT'"),
        ("Cu,MAG\n1,2,3\n", "row 2: 3 cells, the header has 2"),
        ("Cu,Cu\n1,2\n", "several columns are called Cu"),
        ("", "has no header"),
    ],
)
def test_what_cannot_be_read_without_guessing_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        rows_of(tmp_path, text)
    assert reason in str(caught.value)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_bytes(b"Cu,MAG\n\xff\xfe,1\n")
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(tmp_path / "points.csv")
    with pytest.raises(SourceError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")


def test_coordinates_are_known_by_their_names_and_no_predictor_is_one(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("E,N,Cu,MAG,Easting,NORTHING\n1,2,3,4,500,-9999\n1,2,3,4,500,600\n")
    table = read_table(path, BOTH)
    assert table.place is not None and table.place_from == "Easting, NORTHING"
    np.testing.assert_array_equal(table.place, [[500, 500], [np.nan, 600]])
    places = read_table(path, [*BOTH, Predictor(name="Easting")])
    assert places.place_from == "E, N"
    path.write_text("Cu,MAG,x,y\n1,2,3,north\n")
    with pytest.raises(SourceError, match="column y, row 2"):
        read_table(path, BOTH)


def test_rows_at_one_place_are_told_but_the_first() -> None:
    x, y = np.array([1, 2, 1, np.nan, np.nan, 1.0]), np.array([5, 5, 5, 5, 5, 6.0])
    assert duplicates(x, y).tolist() == [False, False, True, False, False, False]


def test_spellings_of_a_unit() -> None:
    assert (
        same_unit("mg/kg", "PPM")
        and same_unit("µg/g", "ppm")
        and same_unit("", "-")
        and same_unit("Wt %", "%")
    )
    assert not same_unit("ppm", "ppb") and not same_unit("m", "")
