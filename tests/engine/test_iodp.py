from datetime import UTC, datetime

import pytest

from lithostream.engine.io.iodp import parse_iodp_name
from lithostream.engine.io.usgs import parse_usgs_name


def test_section_half() -> None:
    name = parse_iodp_name("397T-U1584A-3R-1-A_SHLF11708131_20220916071808")
    assert name is not None
    assert (name.expedition, name.hole, name.core, name.section) == ("397T", "U1584A", "3R", "1")
    assert (name.half, name.text_id) == ("A", "SHLF11708131")
    assert name.taken == datetime(2022, 9, 16, 7, 18, 8, tzinfo=UTC)
    assert (name.angle_deg, name.whole_round) == (None, None)


def test_whole_round_face_in_lower_case_with_prefix() -> None:
    name = parse_iodp_name("exp397_12345_397t-u1584a-3r-cc_sect11708131_20220916071808_270_wrls")
    assert name is not None
    assert (name.expedition, name.core, name.section, name.half) == ("397T", "3R", "CC", None)
    assert (name.angle_deg, name.whole_round) == (270, "WRLS")


def test_composite() -> None:
    name = parse_iodp_name("393-U1558D-2R-1_SECT1_20220701000000_WRLSC")
    assert name is not None
    assert (name.angle_deg, name.whole_round) == (None, "WRLSC")


@pytest.mark.parametrize(
    "stem",
    [
        "",
        "GC01_01",
        "397T-U1584A-3R-1-A_SHLF11708131",
        "397T-U1584A-3R-1-X_SHLF11708131_20220916071808",
        "397T-U1584A-3R-1-A_SHLF11708131_20221316071808",
        "397T-U1584A-3R-1-A_SHLF11708131_20220916071808_45",
        "../397T-U1584A-3R-1-A_SHLF11708131_20220916071808",
    ],
)
def test_other_names_are_none(stem: str) -> None:
    assert parse_iodp_name(stem) is None


def test_usgs() -> None:
    name = parse_usgs_name("2019_643_FA_GC01_01")
    assert name is not None
    assert (name.survey, name.core, name.section) == ("2019-643-FA", "GC01", "01")


@pytest.mark.parametrize(
    "stem", ["2019_643_FA_GC01", "2019-643-FA_GC01_01", "GC01_01", "2019_643_FA_GC01_01_x"]
)
def test_other_names_are_not_usgs(stem: str) -> None:
    assert parse_usgs_name(stem) is None
