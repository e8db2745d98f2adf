from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lithostream.engine.core.join import join
from lithostream.engine.errors import LogError
from lithostream.engine.io.discover import discover
from lithostream.engine.io.itrax_results import evaluations
from lithostream.engine.io.mscl import read_log

PREAMBLE = "C:\\Data\\CORE1     01-Jan-20  re-evaluated data\npeakarea\n"
HEADER = "filename\tposition (mm)\tsample surface\tvalidity\tcps\tCa\tTi\tMn\tFe\tFe a*2\tDt\t\n"
DOCUMENT = (
    "Station\tCore no:\tSection name\tUser\nX\tCORE1\t2\tmé\n"
    "Start coordinate\t1.0\tStop coordinate\t50.0\nOptical Start\t0.5\tOptical End\t50.4\n"
)
DataDir = Callable[[str], Path]


def row(position: str, validity: str = "1", ca: str = "100", fe: str = "900") -> str:
    return f"L0.spe\t{position}\t6.4\t{validity}\t22415\t{ca}\t7\t3\t{fe}\t59\t0.1\t\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_results(*rows: str, header: str = HEADER, name: str = "Results.txt") -> Path:
        path = tmp_path / name
        path.write_bytes((PREAMBLE + header + "".join(rows)).encode("latin-1"))
        return path

    return write_results


Write = Callable[..., Path]


def test_positions_in_mm_become_offsets_in_cm(write: Write) -> None:
    log = read_log(write(row("31.54"), row("32.54", ca="250", fe="0"), row("33.54"), row("40.54")))
    assert (log.depth_kind, log.section) == ("section", None)
    assert log.depth_cm.tolist() == pytest.approx([3.154, 3.254, 3.354, 4.054])
    assert log.values["xrf_calcium"].tolist() == [100, 250, 100, 100]
    assert log.values["xrf_iron"].tolist() == [900, 0, 900, 900]  # nothing found is a measurement
    assert set(log.values) == {"xrf_calcium", "xrf_iron", "xrf_manganese", "xrf_titanium"}
    assert list(log.footprint_cm.values()) == pytest.approx([0.1] * 4)  # the usual step, not the one gap
    assert log.near_section_end.all() and log.notes == () and log.rejected == {}


def test_a_section_number_does_not_matter(write: Write) -> None:
    path = write(row("1"), row("2"))
    assert read_log(path, section="7").depth_cm.tolist() == pytest.approx([0.1, 0.2])


def test_rows_that_are_not_valid_are_masked_and_counted(write: Write) -> None:
    log = read_log(write(row("1"), row("2", "0"), row("3", ""), row("4")))
    assert np.isnan(log.values["xrf_iron"]).tolist() == [False, True, True, False]
    assert log.notes == ("2 rows flagged as not valid masked",)


def test_a_second_validity_column_counts_too(write: Write) -> None:
    header = HEADER.replace("sample surface", "revalidity")
    path = write(row("1").replace("6.4", "1"), row("2").replace("6.4", "0"), header=header)
    assert np.isnan(read_log(path).values["xrf_calcium"]).tolist() == [False, True]


def test_flags_of_another_evaluation_of_the_scan_are_kept(write: Write) -> None:
    write(row("1", "0"), row("2", "0"), row("3.5"), row("9", "0"), name="scan2008_result.txt")
    path = write(row("1"), row("2", "0"), row("3"), row("4"))
    log = read_log(path)
    assert np.isnan(log.values["xrf_calcium"]).tolist() == [True, True, False, False]
    assert log.notes == (
        "1 rows flagged as not valid masked",
        "1 further rows masked that scan2008_result.txt flags as not valid",
    )


def test_scans_against_depth_and_repeats_are_sorted_and_told(write: Write) -> None:
    log = read_log(write(row("3", ca="3"), row("2", ca="2"), row("2", ca="4"), row("1", ca="1")))
    assert log.depth_cm.tolist() == pytest.approx([0.1, 0.2, 0.2, 0.3])
    assert log.values["xrf_calcium"].tolist() == [1, 2, 4, 3]
    assert log.footprint_cm["xrf_iron"] == pytest.approx(0.1)
    assert any("sorted" in note for note in log.notes)
    assert any("repeat a depth: all kept" in note for note in log.notes)


def test_counts_below_zero_are_masked(write: Write) -> None:
    log = read_log(write(row("1", ca="-3"), row("2")))
    assert np.isnan(log.values["xrf_calcium"]).tolist() == [True, False]
    assert log.notes == ("column 'Ca': 1 readings outside 0 to 1e+08 counts masked",)


def test_elements_that_are_not_there(write: Write) -> None:
    log = read_log(write(row("1"), row("2"), header=HEADER.replace("\tMn\t", "\tCr\t")))
    assert "xrf_manganese" not in log.values and log.rejected == {}
    with pytest.raises(LogError, match="no usable column for xrf_manganese"):
        join(log, "xrf_manganese", np.array([0.0]), np.array([1.0]))
    empty = read_log(write(row("1", ca=""), row("2", ca="")))
    assert "xrf_calcium" not in empty.values and empty.rejected == {"Ca": "no valid readings"}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ((row("1"), row("2")), HEADER.replace("validity", "valid"), "no column 'validity'"),
        ((row("1"), row("2")), HEADER.replace("Mn", "Ca"), "2 columns 'Ca'"),
        ((row("1"), row("2", ca="l00")), HEADER, "line 5, column 'Ca'.*'l00' is not a number"),
        ((row("1"), row("")), HEADER, r"line 5, column 'position \(mm\)'.*without position"),
        ((row("1"), row("2")[:12] + "\n"), HEADER, "line 5.*cells under"),
        ((row("1"),), HEADER, "1 readings"),
        ((), HEADER, "0 readings"),
        (
            (row("1"), row("2")),
            "filename\tposition (mm)\tsurface\tvalidity\tcps\tA\tB\tC\tD\tE\tF\n",
            "no column of Ca, Fe",
        ),
    ],
)
def test_files_that_cannot_be_used(write: Write, rows: tuple[str, ...], header: str, message: str) -> None:
    with pytest.raises(LogError, match=message):
        read_log(write(*rows, header=header))


def test_other_files_are_not_results(write: Write, tmp_path: Path) -> None:
    write(row("1"), row("2"))
    (tmp_path / "my_results.txt").write_text("depth_cm\tDen_g/cc\n1\t1.5\n2\t1.6\n")
    (tmp_path / "old_result.txt").write_text("")
    assert [path.name for path in evaluations(tmp_path)] == ["Results.txt"]
    assert set(read_log(tmp_path / "my_results.txt").values) == {"density"}
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path / "gone.txt")


@pytest.fixture
def scan(tmp_path: Path, write: Write) -> Path:
    pixels = np.full((10, 500, 3), 128, np.uint8)
    tifffile.imwrite(tmp_path / "optical.tif", pixels, photometric="rgb")
    (tmp_path / "document.txt").write_text(DOCUMENT, encoding="latin-1")
    return tmp_path


def test_a_scan_finds_its_results(scan: Path, write: Write) -> None:
    (bare,), _ = discover([scan])
    assert bare.log is None
    old = write(row("1"), row("2"), name="scan2008_result.txt")
    (section,), _ = discover([scan])
    assert section.log == old
    new = write(row("1"), row("2"))
    (section,), _ = discover([scan])
    assert section.log == new and old in section.sidecars  # its flags count too
    assert discover([scan / "optical.tif"])[0][0].log == new


def test_a_manifest_names_another_log(scan: Path, write: Write) -> None:
    write(row("1"), row("2"))
    (scan / "mscl.csv").write_text("SECT_DEPTH_cm,Den_g/cc\n1,1.5\n")
    (scan / "manifest.toml").write_text('[[section]]\nfile = "optical.tif"\nlog = "mscl.csv"\n')
    (section,), errors = discover([scan])
    assert errors == [] and section.log == scan / "mscl.csv"


@pytest.mark.realdata
def test_cd166(data_dir: DataDir) -> None:
    log = read_log(data_dir("itrax-cd166-19") / "S1" / "Results.txt")
    assert len(log.depth_cm) == 923 and "51 rows flagged as not valid masked" in log.notes
    assert log.depth_cm[[0, -1]].tolist() == pytest.approx([3.154, 131.354])
    assert log.footprint_cm["xrf_calcium"] == pytest.approx(0.1)
    assert {name: int(np.isfinite(column).sum()) for name, column in log.values.items()} == dict.fromkeys(
        ("xrf_calcium", "xrf_iron", "xrf_manganese", "xrf_titanium"), 872
    )
    assert log.values["xrf_calcium"][np.isfinite(log.values["xrf_calcium"])].min() > 1e4


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "valid", "step_cm"),
    [
        ("ARD1B", 308, 0.2),
        ("ARD1C", 460, 0.2),
        ("ARD1D", 493, 0.2),
        ("ARD1E", 385, 0.2),
        ("YAN8A2_2mm", 417, 0.2),  # these three lost their flags in the second evaluation
        ("YAN8B2_2mm", 126, 0.2),
        ("YAN9B1_2mm", 1920, 0.05),
    ],
)
def test_lake_sections(data_dir: DataDir, name: str, valid: int, step_cm: float) -> None:
    (section,), errors = discover([data_dir("itrax-ardley-yanou") / name])
    assert errors == [] and section.log is not None and section.log.name == "Results.txt"
    assert [path.name for path in section.sidecars if "result" in path.name] == ["scan2008_result.txt"]
    log = read_log(section.log, section.section)
    assert np.isfinite(log.values["xrf_iron"]).sum() == valid
    assert log.footprint_cm["xrf_iron"] == pytest.approx(step_cm)
