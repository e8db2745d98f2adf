from collections.abc import Callable
from pathlib import Path

import pytest

from lithostream.engine.errors import ScaleError, SourceError
from lithostream.engine.io import itrax

DOCUMENT = (
    "Base path:\tSample name:\tSection name\tUser ID\r\n"
    "C:\\Data\tCORE1\tCORE1_S1\tMC\r\n"
    "Step size\t1000\tmicrons\t\r\n"
    "Start coordinate\t31.5\tStop coordinate\t1314.1\r\n"
    "Optical Start\t0.5\tOptical End\t1401.3\r\n"
    "Start temperature\t\t°C\t\r\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "document.txt").write_text(DOCUMENT, encoding="latin-1", newline="")
    (tmp_path / "optical.tif").touch()
    return tmp_path


def change(folder: Path, old: str, new: str) -> itrax.ItraxDocument:
    path = folder / "document.txt"
    assert old in DOCUMENT
    path.write_text(DOCUMENT.replace(old, new), encoding="latin-1", newline="")
    return itrax.read_document(path)


def test_document(folder: Path) -> None:
    document = itrax.read_document(folder / "document.txt")
    assert (document.core, document.section) == ("CORE1", "CORE1_S1")
    assert document.scan_mm == (31.5, 1314.1)
    assert (document.optical_mm, document.optical_line) == ((0.5, 1401.3), 5)


def test_scale_and_top_follow_from_the_outermost_pixel_centres(folder: Path) -> None:
    said = itrax.statement(folder / "optical.tif", itrax.read_document(folder / "document.txt"), 1920)
    assert said.source == "sidecar"
    assert said.px_per_cm == pytest.approx(1919 / 140.08)
    assert said.top_cm == pytest.approx(0.05 - 0.5 * 140.08 / 1919)


def test_profile_where_the_document_has_no_optical_positions(folder: Path) -> None:
    document = change(folder, "Optical Start\t0.5\tOptical End\t1401.3\r\n", "")
    said = itrax.statement(folder / "optical.tif", document, 2618)
    assert said.source == "instrument profile"
    assert said.px_per_cm == pytest.approx(10 / 0.49)
    assert said.top_cm == pytest.approx(3.15)
    assert "1314.3 mm, the scan at 1314.1 mm" in itrax.profile_note(document, 2618)


def test_a_profile_of_another_instrument_is_refused(folder: Path) -> None:
    document = change(folder, "Optical Start\t0.5\tOptical End\t1401.3\r\n", "")
    with pytest.raises(ScaleError, match="state px_per_cm in a manifest"):
        itrax.statement(folder / "optical.tif", document, 1920)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("31.5\tStop", "\tStop", "line 4"),
        ("31.5\tStop", "3l.5\tStop", "line 4"),
        ("31.5\tStop", "nan\tStop", "line 4"),
        ("31.5\tStop", "-inf\tStop", "line 4"),
        ("31.5\tStop", "1314.1\tStop", "line 4"),
        ("\tStop coordinate\t1314.1", "", "line 4"),
        ("1401.3", "0.4", "line 5"),
        ("1401.3", "", "line 5"),
        ("Start coordinate\t31.5\tStop coordinate\t1314.1\r\n", "", "no line 'Start coordinate"),
    ],
)
def test_garbled_positions(folder: Path, old: str, new: str, place: str) -> None:
    with pytest.raises(ScaleError, match=place):
        change(folder, old, new)


def test_the_raw_image_is_chosen_and_the_rest_explained(folder: Path) -> None:
    for name in ("optical1.tif", "optical_lowres.tif", "radiograph_adj.tif", "Results.txt"):
        (folder / name).touch()
    image, notes = itrax.colour_image(folder)
    assert image == folder / "optical.tif"
    assert notes == (
        "optical1.tif is a contrast-stretched, cropped copy: not used",
        "optical_lowres.tif is a further image: not used",
        "radiograph_adj.tif is a radiograph, not a colour image: not used",
    )


def test_no_colour_image(folder: Path) -> None:
    (folder / "optical.tif").rename(folder / "optical1.tif")
    with pytest.raises(SourceError, match="without a colour image"):
        itrax.colour_image(folder)


@pytest.mark.parametrize("name", ["optical1.tif", "radiograph.tif", "scan2008_radiograph.tif"])
def test_derived_images_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(SourceError, match="raw optical image"):
        itrax.document_of(folder / name)


def test_the_document_of_the_same_scan_is_used(folder: Path) -> None:
    other = DOCUMENT.replace("1401.3", "999").replace("CORE1_S1", "OLD")
    (folder / "scan2008_document.txt").write_text(other, encoding="latin-1")
    new, old = (itrax.document_of(folder / name) for name in ("optical.tif", "scan2008_optical.tif"))
    assert new and old
    assert (new.section, old.section) == ("CORE1_S1", "OLD")


def test_xrf_goes_before_radiograph(folder: Path) -> None:
    (folder / "document.txt").unlink()
    for kind in ("rad", "xrf"):
        (folder / f"document_{kind}.txt").write_text(DOCUMENT.replace("CORE1_S1", kind), encoding="latin-1")
    document = itrax.document_of(folder / "optical.tif")
    assert document is not None and document.section == "xrf"


def test_a_missing_document(folder: Path) -> None:
    with pytest.raises(ScaleError, match=r"no scan2008_document\.txt"):
        itrax.document_of(folder / "scan2008_optical.tif")


def test_folders_are_recognised_by_content(folder: Path) -> None:
    assert itrax.is_itrax_folder(folder)
    (folder / "document.txt").write_text("Dear colleague,\n")
    assert not itrax.is_itrax_folder(folder)
    assert itrax.document_of(folder / "optical.tif") is None
    assert itrax.document_of(folder / "radiograph.tif") is None


@pytest.mark.realdata
def test_cd166(data_dir: Callable[[str], Path]) -> None:
    document = itrax.document_of(data_dir("itrax-cd166-19") / "S1" / "optical_lowres.tif")
    assert document is not None and document.path.name == "document_xrf.txt"
    said = itrax.statement(document.path, document, 1920)
    assert said.px_per_cm == pytest.approx(13.70, abs=0.01)
    assert said.top_cm == pytest.approx(0.01, abs=0.005)
