from pathlib import Path

import pytest

from lithostream.engine.errors import ScaleError, SourceError
from lithostream.engine.io.geotek import find_sidecar, read_sidecar

FULL = """<?xml version="1.0" encoding="utf-8"?>
<Image>
  <coreID>GC01</coreID>
  <Section-ID>02</Section-ID>
  <Image-Type>linescan</Image-Type>
  <pixels-per-CM>200</pixels-per-CM>
  <physical-top>1.5</physical-top>
  <physical-height>10.0</physical-height>
  <physical-width>3.0</physical-width>
  <scan-lines>2000</scan-lines>
  <pixel-width>600</pixel-width>
  <bit-depth>16</bit-depth>
</Image>
"""


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    path = tmp_path / "GC01_02.xml"
    path.write_text(FULL, encoding="utf-8")
    return path


def change(xml: Path, old: str, new: str) -> Path:
    assert old in FULL
    xml.write_text(FULL.replace(old, new), encoding="utf-8")
    return xml


def test_all_tags(xml: Path) -> None:
    sidecar = read_sidecar(xml)
    assert (sidecar.core, sidecar.section, sidecar.image_type) == ("GC01", "02", "linescan")
    assert (sidecar.statement.px_per_cm, sidecar.statement.top_cm) == (200.0, 1.5)
    assert sidecar.statement.source == "sidecar"
    assert sidecar.white_level == 65535
    sidecar.check_size(2000, 600)


@pytest.mark.parametrize("spelling", ["Pixels_Per_cm", "PIXELSPERCM", "pixelsPerCM", "g:pixels-per-cm"])
def test_spelling_of_tags_is_free(xml: Path, spelling: str) -> None:
    change(xml, "pixels-per-CM", spelling)
    assert read_sidecar(xml).statement.px_per_cm == 200.0


def test_an_empty_sidecar_says_nothing(xml: Path) -> None:
    xml.write_text("<a><pixels-per-CM/></a>")
    sidecar = read_sidecar(xml)
    assert (sidecar.statement.px_per_cm, sidecar.statement.top_cm, sidecar.core) == (None, None, None)
    assert sidecar.white_level is None
    sidecar.check_size(1, 1)


@pytest.mark.parametrize("text", ["0", "-200", "nan", "inf", "two hundred", "200,0"])
def test_a_bad_scale_names_tag_and_line(xml: Path, text: str) -> None:
    change(xml, "<pixels-per-CM>200", f"<pixels-per-CM>{text}")
    with pytest.raises(ScaleError, match="line 6, <pixels-per-CM>") as caught:
        read_sidecar(xml)
    assert caught.value.file == str(xml)


def test_lengths_must_tell_the_same_scale(xml: Path) -> None:
    change(xml, "<physical-height>10.0", "<physical-height>45.0")
    with pytest.raises(ScaleError, match=r"line 8.*2000 px over 45 cm is not 200 px/cm"):
        read_sidecar(xml)


@pytest.mark.parametrize(("height", "width", "line"), [(2001, 600, 10), (2000, 599, 11)])
def test_the_sidecar_of_another_image_is_refused(xml: Path, height: int, width: int, line: int) -> None:
    with pytest.raises(ScaleError, match=f"line {line}"):
        read_sidecar(xml).check_size(height, width)


@pytest.mark.parametrize("count", ["0", "1.5", "-3", "x"])
def test_pixel_counts_are_whole(xml: Path, count: str) -> None:
    change(xml, "<scan-lines>2000", f"<scan-lines>{count}")
    with pytest.raises(ScaleError, match="line 10, <scan-lines>"):
        read_sidecar(xml)


@pytest.mark.parametrize(
    ("tag", "level"),
    [
        ("<bit-depth>8</bit-depth>", None),
        ("<bit-depth>24</bit-depth>", None),
        ("<bit-depth>48</bit-depth>", 65535),
        ("<bit-depth>12</bit-depth>", 4095),
        ("<white-level>4000</white-level><bit-depth>16</bit-depth>", 4000),
    ],
)
def test_white_level(xml: Path, tag: str, level: int | None) -> None:
    change(xml, "<bit-depth>16</bit-depth>", tag)
    assert read_sidecar(xml).white_level == level


@pytest.mark.parametrize("tag", ["<bit-depth>7</bit-depth>", "<white-level>65536</white-level>"])
def test_an_odd_sample_depth_is_refused(xml: Path, tag: str) -> None:
    change(xml, "<bit-depth>16</bit-depth>", tag)
    with pytest.raises(SourceError, match=r"line 12.*no sample depth"):
        read_sidecar(xml)


@pytest.mark.parametrize("name", ["../GC02.tif", "/etc/passwd", "C:\\scan\\x.tif", "..\\x.tif"])
def test_a_path_that_leaves_the_folder(xml: Path, name: str) -> None:
    change(xml, "<Image>", f"<Image><Image-File>{name}</Image-File>")
    with pytest.raises(SourceError, match="leaves the folder"):
        read_sidecar(xml)


def test_a_plain_file_name_is_fine(xml: Path) -> None:
    change(xml, "<Image>", "<Image><file-name>GC01_02.tif</file-name>")
    assert read_sidecar(xml).core == "GC01"


def test_two_values_for_one_tag(xml: Path) -> None:
    change(xml, "<bit-depth>", "<Core-ID>GC09</Core-ID><bit-depth>")
    with pytest.raises(SourceError, match="'GC09', but line 3 says 'GC01'"):
        read_sidecar(xml)


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]>\n<a><coreID>&y;</coreID></a>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<a><coreID>&x;</coreID></a>'


@pytest.mark.parametrize("text", [BOMB, EXTERNAL, "<!DOCTYPE a>\n<a/>"])
def test_doctype_is_refused(xml: Path, text: str) -> None:
    xml.write_text(text)
    with pytest.raises(SourceError, match="line 1: DOCTYPE"):
        read_sidecar(xml)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"<a>\n<b></a>", 2),
        ("<a>\n<coreID>Kärn</coreID></a>".encode("latin-1"), 2),
        (b'<?xml version="1.0" encoding="utf-16"?><a/>', 1),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', 1),
        (b"<a>\n\0</a>", 2),
        (b"\x89PNG\r\n", 1),
    ],
)
def test_damage_and_wrong_encoding_name_the_line(xml: Path, data: bytes, line: int) -> None:
    xml.write_bytes(data)
    with pytest.raises(SourceError, match=f"line {line}: not readable as XML"):
        read_sidecar(xml)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "windows-1252"])
def test_a_declared_encoding_is_followed(xml: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><a><coreID>Kärn</coreID></a>'
    xml.write_bytes(text.encode(encoding))
    assert read_sidecar(xml).core == "Kärn"


def test_size_is_capped(xml: Path) -> None:
    xml.write_bytes(b"<a>" + b" " * 1_000_000 + b"</a>")
    with pytest.raises(SourceError, match="over 1 MB"):
        read_sidecar(xml)


@pytest.mark.parametrize("name", ["GC01_01.xml", "GC01_01.XML", "gc01_01.Xml"])
def test_the_sidecar_is_found_whatever_its_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "GC01_010.xml").touch()
    assert find_sidecar(tmp_path / "GC01_01.tif") == tmp_path / name


def test_no_sidecar(tmp_path: Path) -> None:
    assert find_sidecar(tmp_path / "GC01_01.tif") is None
