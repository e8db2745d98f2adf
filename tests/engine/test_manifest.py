from pathlib import Path

import pytest

from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.io.manifest import ManifestSection, read_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    for name in ("a.tif", "b.tif", "log.csv"):
        (tmp_path / "scans" / name).touch()
    return tmp_path / "manifest.toml"


def read(manifest: Path, text: str) -> list[ManifestSection | SourceError]:
    manifest.write_text(text, encoding="utf-8")
    return read_manifest(manifest)


def one(manifest: Path, text: str) -> ManifestSection:
    (item,) = read(manifest, text)
    assert isinstance(item, ManifestSection), item
    return item


def test_every_key(manifest: Path) -> None:
    section = one(
        manifest,
        """
        root = "scans"
        [[section]]
        file = "a.tif"
        px_per_cm = 13
        top_cm = 2.5
        hole = "U1584A"
        core = 3
        section = "01"
        hole_top_m = 12.25
        depth_scale = "CSF-A"
        depth_axis = "x"
        depth_reversed = true
        scanner = "Geoscan V"
        white_level = 4095
        log = "log.csv"
        """,
    )
    entry = section.entry
    assert section.image == (manifest.parent / "scans" / "a.tif").resolve()
    assert section.log == (manifest.parent / "scans" / "log.csv").resolve()
    assert (section.statement.px_per_cm, section.statement.top_cm) == (13.0, 2.5)
    assert (section.statement.file, section.statement.place) == (manifest, "section 1")
    assert (entry.hole, entry.core, entry.section) == ("U1584A", "3", "01")
    assert (entry.hole_top_m, entry.depth_scale) == (12.25, "CSF-A")
    assert (entry.depth_axis, entry.depth_reversed) == ("x", True)
    assert (entry.scanner, entry.white_level) == ("Geoscan V", 4095)


def test_defaults_fill_in_and_sections_override(manifest: Path) -> None:
    first, second = read(
        manifest,
        """
        [defaults]
        scanner = "A"
        px_per_cm = 100.0
        [[section]]
        file = "scans/a.tif"
        [[section]]
        file = "scans/b.tif"
        px_per_cm = 50.0
        """,
    )
    assert isinstance(first, ManifestSection) and isinstance(second, ManifestSection)
    assert [(item.entry.px_per_cm, item.entry.scanner) for item in (first, second)] == [
        (100.0, "A"),
        (50.0, "A"),
    ]


def test_root_may_be_absolute(manifest: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    section = one(elsewhere / "m.toml", f'root = "{manifest.parent / "scans"}"\n[[section]]\nfile = "b.tif"')
    assert section.image.name == "b.tif"


@pytest.mark.parametrize(
    ("text", "place", "fix"),
    [
        ('[[section]]\nfile = "scans/a.tif"\npx_per_cmm = 3', "section 1, px_per_cmm", "'px_per_cm'"),
        ('[[section]]\nfile = "scans/a.tif"\n[[section]]\nfle = "a"', "section 2", ""),
        ('[defaults]\nscaner = "A"\n[[section]]\nfile = "scans/a.tif"', "defaults, scaner", "'scanner'"),
        ('[defaults]\nfile = "a.tif"\n[[section]]\nfile = "scans/a.tif"', "defaults, file", ""),
        ('rot = "x"\n[[section]]\nfile = "scans/a.tif"', "rot", "'root'"),
        ('[[section]]\nfile = "scans/a.tif"\npx_per_cm = "13"', "section 1, px_per_cm", "correct"),
        ('[[section]]\nfile = "scans/a.tif"\npx_per_cm = true', "section 1, px_per_cm", "correct"),
        ('[[section]]\nfile = "scans/a.tif"\ndepth_axis = "z"', "section 1, depth_axis", "correct"),
        ('[[section]]\nfile = "scans/a.tif"\nwhite_level = 0', "section 1, white_level", "correct"),
        ('[[section]]\nfile = "scans/a.tif"\nhole_top_m = nan', "section 1, hole_top_m", "correct"),
        ("[[section]]\npx_per_cm = 3", "section 1, file", "correct"),
        ("section = []", "section", "correct"),
        ("", "section", "correct"),
    ],
)
def test_schema_errors_name_key_and_nearest_key(manifest: Path, text: str, place: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(manifest, text)
    assert caught.value.place.startswith(place)
    assert fix in caught.value.fix
    assert caught.value.file == str(manifest)


@pytest.mark.parametrize("text", ["[[section", 'a = "\xff'])
def test_not_toml(manifest: Path, text: str) -> None:
    manifest.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="not TOML"):
        read_manifest(manifest)


@pytest.mark.parametrize("key", ["file", "log"])
@pytest.mark.parametrize("path", ["../x.tif", "scans/../../x.tif", "/etc/passwd", "C:\\\\x.tif", "a\\u0000b"])
def test_paths_stay_inside_root(manifest: Path, key: str, path: str) -> None:
    other = "" if key == "file" else 'file = "scans/a.tif"\n'
    (item,) = read(manifest, f'[[section]]\n{other}{key} = "{path}"')
    assert isinstance(item, SourceError)
    assert item.place == f"section 1, {key}"
    assert "set root" in item.fix


def test_links_do_not_lead_out_of_root(manifest: Path) -> None:
    (manifest.parent / "scans" / "out.tif").symlink_to("/etc/hostname")
    (item,) = read(manifest, 'root = "scans"\n[[section]]\nfile = "out.tif"')
    assert isinstance(item, SourceError) and "leaves" in item.reason


def test_a_missing_file_stops_only_its_section(manifest: Path) -> None:
    missing, present = read(manifest, '[[section]]\nfile = "c.tif"\n[[section]]\nfile = "scans/a.tif"')
    assert isinstance(missing, SourceError) and "no file" in missing.reason
    assert isinstance(present, ManifestSection)
