from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.errors import LogError
from lithostream.engine.io.mscl import SensorLog, read_log

OUT = (
    "Geotek MSCL 7.9 - X_part1.out created at 2:57:47 PM\t\t\t\t\t\t\t\t\t\t\r\n"
    "\t\t\t\t\t\t\t\t\t\t\r\n"
    "\t\t\t\t\t\t\t\t\t\t\r\n"
    "SB DEPTH\tSECT NUM\tSECT DEPTH\tCT\tPWAmp\tPWVel\tDen1\tMS1\tImp\tFP\tRES\r\n"
    "m\t–\tcm\tcm\t–\tm/s\tg/cc\tSI x 10^-5\t–\t–\tOhm.m\r\n"
    "\t\t\t\t\t\t\t\t\t\t\r\n"
    "0.000\tcal\t0\t7.1\t90\t1480\t0.95\t\t\t\t\r\n"
    "0.010\t1\t1\t7.1\t90\t1520\t1.60\t40\t\t0.5\t\r\n"
    "0.020\t1\t2\t7.1\t90\t\t1.61\t\t\t0.5\t\r\n"
    "0.030\t2\t1\t7.1\t90\t1530\t1.62\t-9999\t\t0.5\t\r\n"
    "0.040\t2\t2\t7.1\t90\t1540\tNaN\t42\t\t0.5\t\r\n"
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_log(text: str, encoding: str = "utf-8", name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write_log


Write = Callable[..., Path]


def csv_log(write: Write, header: str, *rows: str) -> SensorLog:
    return read_log(write("\n".join((header, *rows)) + "\n"))


def test_geotek_out(write: Write) -> None:
    log = read_log(write(OUT, name="part1.out"))
    assert log.depth_kind == "core"
    assert log.depth_cm.tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert log.section is not None and log.section.tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(log.values["density"], [1.60, 1.61, 1.62, np.nan])
    np.testing.assert_array_equal(log.values["p_wave_velocity"], [1520, np.nan, 1530, 1540])
    np.testing.assert_array_equal(log.values["magnetic_susceptibility"], [40, np.nan, np.nan, 42])
    assert log.footprint_cm == {"density": 1.0, "p_wave_velocity": 2.0, "magnetic_susceptibility": 6.0}
    assert log.notes == ("1 calibration rows skipped",)
    assert log.near_section_end.all()


def test_one_section_of_several_lies_on_its_own_offsets(write: Write) -> None:
    log = read_log(write(OUT), section="02")
    assert (log.depth_kind, log.depth_cm.tolist()) == ("section", [1.0, 2.0])
    np.testing.assert_array_equal(log.values["density"], [1.62, np.nan])


def test_a_section_that_is_not_there(write: Write) -> None:
    with pytest.raises(LogError, match=r"section '3'; there are: 1, 2"):
        read_log(write(OUT), section="3")


def test_depths_that_restart_are_offsets(write: Write) -> None:
    log = csv_log(
        write, "depth_cm,section,Den_g/cc", "1,b,1.1", "2,b,1.2", "3,b,1.3", "1,a,1.4", "2,a,1.5", "3,a,1.6"
    )
    assert log.depth_kind == "section"
    assert log.section is not None and log.section.tolist() == ["b", "b", "b", "a", "a", "a"]
    assert log.values["density"].tolist() == [1.1, 1.2, 1.3, 1.4, 1.5, 1.6]


@pytest.mark.parametrize(
    "lines",
    [
        ("Depth,Den1,MS1", "cm,g/cc,SI x 10^-5", "10,1.5,20", "11,1.6,21"),
        ("Depth (cm),Density [g/cm3],MS (SI 1e-5)", "10,1.5,20", "11,1.6,21"),
        ("Depth_cm,Den_gm/cc,MS_SI 1e-5", "10,1.5,20", "11,1.6,21"),
        ("Core Depth (m);Den1 (kg/m3);Mag Sus (1e-5 SI)", "0,10;1500,0;20", "0,11;1600;21"),
        ("depth_mm\tden_t/m3\tms_SI", "100\t1.5\t0.0002", "110\t1.6\t0.00021"),
        ("Depth (cm),Density [g/cm³],MS (SI ×10⁻⁵)", "10,1.5,20", "11,1.6,21"),
        ("sb_depth_cm,density,mag_sus", "10,1.5,20", "11,1.6,21"),
    ],
)
def test_units_are_brought_together(write: Write, lines: tuple[str, ...]) -> None:
    log = csv_log(write, *lines)
    np.testing.assert_allclose(log.depth_cm, [10, 11])
    np.testing.assert_allclose(log.values["density"], [1.5, 1.6])
    np.testing.assert_allclose(log.values["magnetic_susceptibility"], [20, 21])


def test_velocity_units_and_missing_values(write: Write) -> None:
    log = csv_log(write, "depth_cm,pwave_velocity_km/s", "1,1.5", "2,-999.25", "3,", "4,nan", "5,1.6")
    np.testing.assert_allclose(log.values["p_wave_velocity"], [1500, np.nan, np.nan, np.nan, 1600])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("depth_cm,Den1", "1,1.5"), "column 'Den1': no unit for density"),
        (("depth,Den_g/cc", "1,1.5"), "column 'depth': no unit for depth"),
        (("sb_depth,density", "1,1.5"), "no unit"),
        (("depth_cm,Den_lb/ft3", "1,95"), "column 'Den_lb/ft3': unit 'lb/ft3' is not known for density"),
        (("depth_cm,MS (cgs)", "1,95"), "unit 'cgs' is not known"),
        (("depth_cm,Den_g/cc", "cm,kg/m3", "1,95"), "'g/cc' in the header, 'kg/m3' in the units row"),
        (
            ("depth_cm,Den_g/cc", "1,1650", "2,1700"),
            "column 'Den_g/cc': wrong units: the median is 1675 g/cm3",
        ),
        (("depth_cm,Den_kg/m3", "1,1.65", "2,1.70"), "wrong units"),
        (("depth_cm,PWVel_m/s", "1,1.5", "2,1.6"), "wrong units"),
        (("depth_cm,PWVel_km/s", "1,1500", "2,1600"), "wrong units"),
        (("depth_cm,MS_SI", "1,40", "2,50"), "wrong units"),
        (("depth_cm,Den_g/cc", "1,1.5", "2,1.6x"), "line 3, column 'Den_g/cc': '1.6x' is not a number"),
        (("depth_cm,Den_g/cc", "1,inf"), "'inf' is not a number"),
        (("depth_cm,Den_g/cc", "1,1.5", "-9999,1.6"), "line 3, column 'depth_cm': a reading without depth"),
        (("depth_cm,Den_g/cc", "1,1.5", "2"), "line 3: 1 cells under 2"),
        (("depth_cm,Den_g/cc", "1,5,1,5"), "decimal comma"),
        (("depth_cm;Den_g/cc", "1,5;1.5"), "line 2: the comma in '1,5'"),
        (("depth_cm;Den_g/cc", "1;1,281", "2;1,282"), "may be a decimal mark or a thousands separator"),
        (("Time,Den_g/cc", "1,1.5"), "no header with a depth column"),
        (("depth_cm,Imp", "1,1.5"), "no column of a known sensor"),
        (("depth_cm,depth_cm,Den_g/cc", "1,1,1.5"), "mean the same"),
        (("depth_cm,Den_g/cc",), "no readings"),
        (("",), "no header"),
    ],
)
def test_what_cannot_be_read_without_guessing(write: Write, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(LogError) as caught:
        csv_log(write, *lines)
    assert message in str(caught.value)
    assert caught.value.file is not None and caught.value.file.endswith("log.csv")


def test_decimal_commas_where_the_table_leaves_no_doubt(write: Write) -> None:
    log = csv_log(write, "depth_cm;Den_g/cc", "0,5;1,281", "1,0;1,282")
    assert (log.depth_cm.tolist(), log.values["density"].tolist()) == ([0.5, 1.0], [1.281, 1.282])


@pytest.mark.parametrize(
    ("encoding", "notes"), [("utf-8", 0), ("utf-8-sig", 0), ("latin-1", 1), ("windows-1252", 1)]
)
def test_encodings(write: Write, encoding: str, notes: int) -> None:
    log = read_log(write("depth_cm,Den_g/cc,T_°C,section,depth_kind\n1,1.5,20,1,x\n", encoding))
    assert log.values["density"].tolist() == [1.5]
    assert [note for note in log.notes if "latin-1" in note] == ["read as latin-1"] * notes


def test_out_of_range_is_masked_and_counted(write: Write) -> None:
    log = csv_log(write, "depth_cm,section,Den_g/cc", "1,1,1.5", "2,1,0.2", "3,1,1.6", "4,1,9.9", "5,1,1.7")
    np.testing.assert_array_equal(log.values["density"], [1.5, np.nan, 1.6, np.nan, 1.7])
    assert log.notes == ("column 'Den_g/cc': 2 readings outside 1 to 5.2 g/cm3 masked",)


def test_a_column_mostly_out_of_range_is_refused_whole(write: Write) -> None:
    log = csv_log(write, "depth_cm,PWVel_m/s,Den_g/cc", "1,1070,1.5", "2,1071,1.6", "3,1500,1.7")
    assert list(log.values) == ["density"]
    assert log.rejected == {"PWVel_m/s": "2 of 3 readings outside 1300 to 8500 m/s"}


def test_an_empty_column_is_refused(write: Write) -> None:
    log = csv_log(write, "depth_cm,PWVel_m/s,Den_g/cc", "1,,1.5")
    assert log.rejected == {"PWVel_m/s": "no readings"}


def test_a_dead_sensor_is_refused_not_misread_as_a_unit(write: Write) -> None:
    log = csv_log(write, "depth_cm,PWVel_m/s", "1,0", "2,0")
    assert list(log.rejected) == ["PWVel_m/s"]


def test_the_point_sensor_goes_before_the_loop(write: Write) -> None:
    log = csv_log(write, "sb_depth_cm,section,MS,hiresMS", "1,1,10,20")
    assert log.values["magnetic_susceptibility"].tolist() == [20.0]
    assert log.footprint_cm == {"magnetic_susceptibility": 1.0}
    assert log.notes == ("column 'MS' not used: another column has magnetic_susceptibility",)


def test_disorder_is_sorted_stably_and_reported(write: Write) -> None:
    log = csv_log(write, "depth_cm,section,Den_g/cc", "3,1,1.3", "1,1,1.1", "3,1,1.4", "2,1,1.2")
    assert log.depth_cm.tolist() == [1, 2, 3, 3]
    assert log.values["density"].tolist() == [1.1, 1.2, 1.3, 1.4]
    assert log.notes == (
        "2 readings lie above the one before them: sorted",
        "1 readings repeat a depth: all kept",
    )


def test_a_reversed_log(write: Write) -> None:
    log = csv_log(write, "depth_cm,section,Den_g/cc", "3,1,1.3", "2,1,1.2", "1,1,1.1")
    assert log.values["density"].tolist() == [1.1, 1.2, 1.3]
    assert log.notes == ("the log runs from bottom to top: sorted",)


def test_repeated_headers_and_blank_rows(write: Write) -> None:
    head = ("Depth,Den1,", "cm,g/cc,")
    log = csv_log(write, *head, "1,1.5,", ",,", "", *head, "2,1.6,", ",,")
    assert log.values["density"].tolist() == [1.5, 1.6]
    assert log.notes[0] == "2 repeated header or units rows skipped"


def test_section_ends_are_those_of_each_section(write: Write) -> None:
    rows = [f"{depth},{1 if depth < 20 else 2},1.5" for depth in range(40)]
    log = csv_log(write, "sb_depth_cm,section,density", *rows)
    expected = [0, 1, 2, 17, 18, 19, 20, 21, 22, 37, 38, 39]
    assert np.flatnonzero(log.near_section_end).tolist() == expected


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path / "none.csv")


@pytest.mark.realdata
@pytest.mark.parametrize(("core", "rows"), [("11PC", 319), ("23PC", 584), ("25PC", 598)])
def test_m9907(data_dir: Callable[[str], Path], core: str, rows: int) -> None:
    log = read_log(data_dir("m9907-cascadia") / f"M9907-{core}_MST.csv")
    assert (len(log.depth_cm), log.depth_kind) == (rows, "core")
    assert sorted(log.values) == ["density", "magnetic_susceptibility"]
    assert list(log.rejected) == ["PWVel_m/s"]
    assert 1.2 < float(np.nanmedian(log.values["density"])) < 1.7
    assert np.all(np.diff(log.depth_cm) > 0)
