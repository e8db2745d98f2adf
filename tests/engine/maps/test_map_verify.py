"""A finished map is held to its record."""

from pathlib import Path

import pytest
from map_scene import PREDICTORS

from lithostream.engine.errors import SourceError
from lithostream.engine.maps.point_map import map_points
from lithostream.engine.maps.record import MapSettings
from lithostream.engine.maps.verify import is_map, verify_map


def test_files_that_changed_or_went_are_named(map_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "MAP.csv"
    (tmp_path / "p.csv").write_text(",".join(one.name for one in PREDICTORS) + "\n" + "0.1," * 6 + "0.2\n")
    assert is_map(out) and not is_map(tmp_path) and not is_map(map_bundle)
    with pytest.raises(SourceError, match="is no finished map"):
        verify_map(out)
    map_points(tmp_path / "p.csv", map_bundle, out, MapSettings())
    assert verify_map(out) == verify_map(tmp_path / "MAP.json") == (1, [])
    out.write_text(out.read_text().replace("0.", "1.", 1))
    whole, problems = verify_map(out)
    assert whole == 0 and problems == [f"{out}: its SHA-256 is not that of MAP.json"]
    out.unlink()
    assert verify_map(tmp_path / "MAP.json") == (0, [f"{out}: is gone"])
    (tmp_path / "MAP.json").write_text("{")
    with pytest.raises(SourceError, match=r"no record of one in MAP\.json"):
        verify_map(out)
