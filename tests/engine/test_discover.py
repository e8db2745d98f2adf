from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lithostream.engine.errors import ConfigError, LithostreamError, ScaleError, SourceError
from lithostream.engine.io.discover import discover

DOCUMENT = (
    "Station\tCore no:\tSection name\tUser\nX\tCORE1\t2\tme\n"
    "Start coordinate\t1.0\tStop coordinate\t50.0\nOptical Start\t0.5\tOptical End\t50.4\n"
)


def image(path: Path, px_per_cm: float | None = None, height: int = 60, width: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), 128, np.uint8)
    if px_per_cm is None:
        tifffile.imwrite(path, pixels, photometric="rgb")
    else:
        resolution = (px_per_cm, px_per_cm)
        tifffile.imwrite(path, pixels, photometric="rgb", resolution=resolution, resolutionunit="CENTIMETER")
    return path


def sidecar(path: Path, *, scale: float = 20.0, top: float = 0.0, more: str = "") -> Path:
    path.write_text(f"<a><pixels-per-CM>{scale}</pixels-per-CM><physical-top>{top}</physical-top>{more}</a>")
    return path


def only_error(*paths: Path) -> LithostreamError:
    sections, errors = discover(paths)
    assert sections == []
    (error,) = errors
    return error


def test_a_tagged_image_alone(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", 20.0)
    (section,), errors = discover([path])
    assert errors == []
    assert (section.name, section.image) == ("a", path)
    assert section.px_per_cm == pytest.approx(20.0)
    assert section.scale_source == "tiff tag"
    assert (section.depth_axis, section.depth_reversed, section.scanner) == ("y", False, None)


def test_geotek_sidecar_and_usgs_name(tmp_path: Path) -> None:
    path = image(tmp_path / "2019_643_FA_GC01_02.tif", 300 / 2.54)
    more = "<white-level>4095</white-level><scan-lines>60</scan-lines><pixel-width>40</pixel-width>"
    xml = sidecar(path.with_suffix(".XML"), top=1.5, more=more)
    (section,), errors = discover([path])
    assert errors == []
    assert (section.px_per_cm, section.scale_source, section.top_cm) == (20.0, "sidecar", 1.5)
    assert (section.core, section.section, section.scanner) == ("GC01", "02", "Geotek")
    assert (section.white_level, section.sidecars) == (4095, (xml,))
    assert "USGS survey 2019-643-FA" in section.notes


def test_a_core_named_in_two_ways_is_noted(tmp_path: Path) -> None:
    path = image(tmp_path / "2019_643_FA_GC01_02.tif")
    sidecar(path.with_suffix(".xml"), more="<coreID>GC02</coreID>")
    (section,), _ = discover([path])
    assert section.core == "GC02"
    assert "core is GC01 in the file name, GC02 in the sidecar" in section.notes


def test_iodp_name(tmp_path: Path) -> None:
    path = image(tmp_path / "397T-U1584A-3R-1-A_SHLF11708131_20220916071808.tif", 20.0)
    (section,), _ = discover([path])
    assert (section.hole, section.core, section.section) == ("U1584A", "3R", "1")


@pytest.mark.parametrize(
    ("more", "scale", "message"),
    [
        ("", 21.0, "sidecar"),
        ("<scan-lines>61</scan-lines>", 20.0, "61 pixels, but the image has 60"),
        ("<image-file>../b.tif</image-file>", 20.0, "leaves the folder"),
    ],
)
def test_a_sidecar_that_cannot_belong(tmp_path: Path, more: str, scale: float, message: str) -> None:
    path = image(tmp_path / "a.tif", 20.0)
    sidecar(path.with_suffix(".xml"), scale=scale, more=more)
    assert message in str(only_error(path))


def test_a_placeholder_tag_gives_no_scale(tmp_path: Path) -> None:
    error = only_error(image(tmp_path / "a.tif", 300 / 2.54))
    assert isinstance(error, ScaleError) and "nothing states the scale" in error.reason


def test_folders_are_searched_in_order_and_names_are_unique(tmp_path: Path) -> None:
    for name in ("b/core.tif", "a/core.tif", "a/z/Core.tif", "c.tif", ".hidden.tif", ".git/x.tif"):
        image(tmp_path / name, 20.0)
    (tmp_path / "a" / "notes.txt").touch()
    sections, errors = discover([tmp_path])
    assert errors == []
    assert [section.name for section in sections] == ["core", "Core-2", "core-3", "c"]
    assert [str(section.image.relative_to(tmp_path)) for section in sections] == [
        "a/core.tif",
        "a/z/Core.tif",
        "b/core.tif",
        "c.tif",
    ]
    assert discover([tmp_path]) == (sections, errors)


def test_one_bad_input_does_not_stop_the_others(tmp_path: Path) -> None:
    good = image(tmp_path / "good.tif", 20.0)
    image(tmp_path / "folder" / "bad.tif")
    also = image(tmp_path / "folder" / "good2.tif", 20.0)
    paths = [tmp_path / "gone.tif", tmp_path / "folder", good, Path("\0")]
    sections, errors = discover(paths)
    assert [section.image for section in sections] == [also, good]
    assert [type(error) for error in errors] == [SourceError, ScaleError, SourceError]


def test_named_paths_that_are_no_input(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").touch()
    (tmp_path / "empty").mkdir()
    assert ".tiff" in only_error(tmp_path / "notes.docx").fix
    assert "no image in this folder" in str(only_error(tmp_path / "empty"))
    assert "no such file" in str(only_error(tmp_path / "gone"))
    assert isinstance(only_error(tmp_path / ("x" * 300 + ".tif")), SourceError)


def test_an_image_is_taken_once(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", 20.0)
    (tmp_path / "link.tif").symlink_to(path)
    sections, errors = discover([path, tmp_path, tmp_path / "." / "a.tif"])
    assert ([section.name for section in sections], errors) == (["a"], [])


def test_an_image_described_in_two_ways_is_not_taken(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif", 20.0)
    manifest = tmp_path / "m.toml"
    manifest.write_text('[[section]]\nfile = "a.tif"\ntop_cm = 100\n')
    assert "named twice" in only_error(path, manifest).reason


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside = image(tmp_path / "outside" / "a.tif", 20.0)
    inside = tmp_path / "inside"
    image(inside / "real" / "b.tif", 20.0)
    (inside / "link.tif").symlink_to(outside)
    (inside / "linked").symlink_to(outside.parent)
    (inside / "loop").symlink_to(inside)
    sections, errors = discover([inside])
    assert [section.name for section in sections] == ["b"]
    assert [error.file for error in errors] == [str(inside / "link.tif"), str(inside / "linked")]


def test_a_manifest_speaks_for_its_folder(tmp_path: Path) -> None:
    image(tmp_path / "a.tif", 20.0)
    image(tmp_path / "b.tif", 20.0)
    (tmp_path / "log.csv").touch()
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        '[[section]]\nfile = "b.tif"\npx_per_cm = 20.1\nhole = "H1"\nhole_top_m = 3.5\ndepth_scale = "CSF-A"\n'
        'depth_axis = "x"\ndepth_reversed = true\nscanner = "S"\nwhite_level = 255\nlog = "log.csv"\n'
    )
    (section,), errors = discover([tmp_path])
    assert errors == []
    assert (section.name, section.px_per_cm, section.scale_source) == ("b", 20.1, "manifest")
    assert (section.hole, section.hole_top_m, section.depth_scale) == ("H1", 3.5, "CSF-A")
    assert section.depth_method == "section offset + hole_top_m"
    assert (section.depth_axis, section.depth_reversed, section.scanner) == ("x", True, "S")
    assert (section.white_level, section.log) == (255, tmp_path / "log.csv")
    assert section.sidecars == (manifest,)
    assert discover([manifest]) == discover([tmp_path])


def test_errors_in_manifests(tmp_path: Path) -> None:
    image(tmp_path / "a.tif")
    image(tmp_path / "b.tif", 20.0)
    manifest = tmp_path / "any.toml"
    manifest.write_text(
        '[[section]]\nfile = "a.tif"\npx_per_cm = -1\n[[section]]\nfile = "../x"\n[[section]]\nfile = "b.tif"\n'
    )
    sections, errors = discover([manifest])
    assert [section.name for section in sections] == ["b"]
    assert [type(error) for error in errors] == [ScaleError, SourceError]
    manifest.write_text('[[section]]\nfle = "a.tif"\n')
    assert isinstance(only_error(manifest), ConfigError)


@pytest.fixture
def itrax_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "SECT_2"
    image(folder / "optical.tif", height=10, width=500)
    image(folder / "optical1.tif", height=10, width=400)
    image(folder / "preview.tif")
    (folder / "document.txt").write_text(DOCUMENT, encoding="latin-1")
    return folder


def test_an_itrax_folder_is_one_section(itrax_folder: Path) -> None:
    (section,), errors = discover([itrax_folder])
    assert errors == []
    assert (section.name, section.image) == ("SECT_2", itrax_folder / "optical.tif")
    assert section.px_per_cm == pytest.approx(100.0)
    assert section.top_cm == pytest.approx(0.045)
    assert (section.scale_source, section.scanner) == ("sidecar", "Itrax")
    assert (section.depth_axis, section.depth_reversed) == ("x", True)
    assert (section.core, section.section) == ("CORE1", "2")
    assert any("optical1.tif" in note for note in section.notes)
    same, _ = discover([itrax_folder / "optical.tif"])
    assert (same[0].name, same[0].px_per_cm, same[0].top_cm) == ("SECT_2", section.px_per_cm, section.top_cm)


def test_the_stretched_copy_is_refused_by_name(itrax_folder: Path) -> None:
    assert "contrast-stretched" in str(only_error(itrax_folder / "optical1.tif"))


def test_a_manifest_and_an_itrax_document_must_agree(itrax_folder: Path) -> None:
    manifest = itrax_folder / "manifest.toml"
    manifest.write_text('[defaults]\npx_per_cm = 100.5\n[[section]]\nfile = "optical.tif"\n')
    (section,), _ = discover([itrax_folder])
    assert section.px_per_cm == pytest.approx(100.0)
    assert section.scale_source == "sidecar"
    assert (section.depth_axis, section.depth_reversed) == ("x", True)
    manifest.write_text('[[section]]\nfile = "optical.tif"\npx_per_cm = 103\n')
    assert "103" in str(only_error(itrax_folder))


def test_a_manifest_replaces_a_profile_that_cannot_be_true(itrax_folder: Path) -> None:
    (itrax_folder / "document.txt").write_text(DOCUMENT[: DOCUMENT.index("Optical")], encoding="latin-1")
    assert "do not cover the scan" in str(only_error(itrax_folder))
    (itrax_folder / "manifest.toml").write_text('[[section]]\nfile = "optical.tif"\npx_per_cm = 103\n')
    (section,), errors = discover([itrax_folder])
    assert errors == []
    assert (section.px_per_cm, section.scale_source, section.depth_reversed) == (103.0, "manifest", True)


@pytest.mark.realdata
def test_ardley_and_yanou(data_dir: Callable[[str], Path]) -> None:
    sections, errors = discover([data_dir("itrax-ardley-yanou")])
    assert errors == []
    length_cm = {}
    for section in sections:
        with tifffile.TiffFile(section.image) as tiff:
            length_cm[section.name] = max(tiff.pages[0].shape) / section.px_per_cm
        assert (section.scanner, section.depth_axis, section.depth_reversed) == ("Itrax", "x", True)
        assert section.scale_source == "instrument profile"
    expected = [65.6, 96.5, 99.4, 82.8, 85.8, 39.2, 100.0]
    names = ["ARD1B", "ARD1C", "ARD1D", "ARD1E", "YAN8A2_2mm", "YAN8B2_2mm", "YAN9B1_2mm"]
    assert length_cm == pytest.approx(dict(zip(names, expected, strict=True)), abs=0.1)


@pytest.mark.realdata
def test_cd166_has_one_colour_image(data_dir: Callable[[str], Path]) -> None:
    (section,), errors = discover([data_dir("itrax-cd166-19")])
    assert (section.name, section.scale_source) == ("S1", "sidecar")
    assert section.px_per_cm == pytest.approx(13.70, abs=0.01)
    assert section.top_cm == pytest.approx(0.0135, abs=1e-4)
    assert [Path(str(error.file)).name for error in errors] == ["S2", "S3"]
    assert all("without a colour image" in error.reason for error in errors)
