"""Images of a USGS release and the log of their core: paired by name, placed by depth."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from lithostream.engine.core.section import Section
from lithostream.engine.errors import LithostreamError, SourceError
from lithostream.engine.io.discover import discover
from lithostream.engine.io.mscl import read_log

PX_PER_CM = 20.0
CORE = "2019_643_FA_GC01"


def image(folder: Path, section: str, length_cm: float, core: str = CORE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{core}_{section}.tif"
    pixels = np.full((round(length_cm * PX_PER_CM), 40, 3), 128, np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb")
    # What another writer calls the core must not part the sections of one core.
    path.with_suffix(".xml").write_text(
        f"<linescan><coreID>{core}_{section}</coreID><pixels-per-CM>{PX_PER_CM}</pixels-per-CM></linescan>"
    )
    return path


def core_log(folder: Path, last_cm: int, name: str = f"{CORE}.csv") -> Path:
    """Write a log at 1 cm steps through the core; density tells the depth."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (f"{depth},{1 + depth / 1000},{1500 + depth},20" for depth in range(1, last_cm + 1))
    path = folder / name
    path.write_text("\n".join(("sb_depth_cm,density,pwave_vel,mag_sus", *rows)) + "\n")
    return path


def found(folder: Path) -> list[Section]:
    sections, errors = discover([folder])
    assert errors == []
    return sections


def reasons(folder: Path) -> list[LithostreamError]:
    sections, errors = discover([folder])
    assert sections == []
    return errors


def test_images_are_stacked_on_core_depths(tmp_path: Path) -> None:
    for section, length_cm in (("02", 20), ("01", 30.5), ("03", 10)):
        image(tmp_path / "photos", section, length_cm)
    log = core_log(tmp_path / "mscl", 60)
    sections = found(tmp_path)
    assert [one.section for one in sections] == ["01", "02", "03"]
    assert [one.top_cm for one in sections] == [0.0, 30.5, 50.5]
    assert {one.core for one in sections} == {"GC01"} and {one.log for one in sections} == {log}
    assert {(one.hole_top_m, one.depth_scale) for one in sections} == {(0.0, "core depth")}
    assert all("end at 60.5 cm, the log at 60.0 cm" in one.notes[-1] for one in sections)
    read = read_log(log, sections[1].section)
    assert (read.depth_kind, len(read.depth_cm)) == ("core", 60)
    assert set(read.values) == {"density", "p_wave_velocity", "magnetic_susceptibility"}


def test_a_log_that_numbers_its_sections_is_read_on_their_offsets(tmp_path: Path) -> None:
    for section in ("01", "03"):
        image(tmp_path, section, 30)
    rows = [f"{30 * number + offset},{number},{offset},1.{number}" for number in (1, 3) for offset in (9, 5)]
    (tmp_path / f"{CORE}_MSCL.csv").write_text(
        "\n".join(("sb_depth_cm,sect_num,sect_depth_cm,density", *rows))
    )
    sections = found(tmp_path)
    assert [one.top_cm for one in sections] == [0.0, 0.0]
    assert [one.hole_top_m for one in sections] == [None, None]
    assert sections[1].log is not None
    read = read_log(sections[1].log, sections[1].section)
    assert (read.depth_kind, read.depth_cm.tolist()) == ("section", [5.0, 9.0])
    assert read.values["density"].tolist() == [1.3, 1.3]


def test_each_core_has_its_own_log(tmp_path: Path) -> None:
    image(tmp_path / "GC01", "01", 30)
    image(tmp_path / "JPC40", "01", 20, core="2019_643_FA_JPC40")
    image(tmp_path / "GC02", "01", 20, core="2019_643_FA_GC02")
    core_log(tmp_path / "GC01", 30)
    core_log(tmp_path / "logs", 20, name="2019_643_fa_jpc40.csv")
    core_log(tmp_path / ".old", 20, name="2019_643_FA_GC02.csv")
    logs = {str(one.core): one.log and one.log.name for one in found(tmp_path)}
    assert logs == {"GC01": f"{CORE}.csv", "GC02": None, "JPC40": "2019_643_fa_jpc40.csv"}
    (bare,) = (one for one in found(tmp_path) if one.log is None)
    assert bare.notes[-1] == f"no log 2019_643_FA_GC02.csv below {tmp_path}"


def test_other_images_and_stated_logs_are_left_alone(tmp_path: Path) -> None:
    path = image(tmp_path, "01", 30)
    own = core_log(tmp_path, 30, name=f"{CORE}_01_mscl.csv")
    core_log(tmp_path, 90)
    (section,) = found(tmp_path)
    assert (section.log, section.top_cm) == (own, 0.0)
    own.unlink()
    (tmp_path / "manifest.toml").write_text(f'[[section]]\nfile = "{path.name}"\ntop_cm = 12\n')
    (section,) = found(tmp_path)
    assert (section.log, section.top_cm) == (None, 12.0)
    (alone,), errors = discover([path])
    assert errors == [] and alone.log is None  # the sections above it are not known


@pytest.mark.parametrize(
    ("sections", "last_cm", "message"),
    [
        (("01", "03"), 60, "images of the sections 01, 03"),
        (("02",), 30, "images of the sections 02"),
        (("01", "02"), 67, "the log ends at 67 cm, the images together at 60 cm"),
        (("01",), 26, "the log ends at 26 cm, the images together at 30 cm"),
    ],
)
def test_images_that_do_not_fill_the_log(
    tmp_path: Path, sections: tuple[str, ...], last_cm: int, message: str
) -> None:
    images = [image(tmp_path, section, 30) for section in sections]
    core_log(tmp_path, last_cm)
    errors = reasons(tmp_path)
    assert [error.file for error in errors] == [str(path) for path in images]
    assert all(isinstance(error, SourceError) and message in error.reason for error in errors)
    assert all("manifest.toml" in error.fix for error in errors)


def test_two_images_of_one_section_are_not_stacked(tmp_path: Path) -> None:
    image(tmp_path / "a", "01", 30)
    image(tmp_path / "b", "01", 30)
    core_log(tmp_path, 60)
    assert all("01, 01" in error.reason for error in reasons(tmp_path))


def test_logs_that_cannot_be_used(tmp_path: Path) -> None:
    image(tmp_path, "01", 30)
    image(tmp_path, "01", 30, core="2019_643_FA_GC02")
    core_log(tmp_path, 30, name="2019_643_FA_GC02.csv")
    log = tmp_path / f"{CORE}.csv"
    log.write_text("sb_depth_cm,density\n1,1.5\n2,wet\n")
    sections, (error,) = discover([tmp_path])
    assert [one.core for one in sections] == ["GC02"]  # the other core goes on
    assert str(log) in error.reason and "'wet' is not a number" in error.reason and "line 3" in error.place
    log.write_text("sect_depth_cm,Den_g/cc\n1,1.5\n")
    assert "no section numbers" in discover([tmp_path])[1][0].reason
    core_log(tmp_path / "again", 30)
    assert "a second log of the core" in discover([tmp_path])[1][0].reason
