import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lithostream.engine.core.section import ScaleSource
from lithostream.engine.errors import ScaleError
from lithostream.engine.io.names import leaves_folder, safe_name, unique_names
from lithostream.engine.io.scale import Statement, place_image, tag_statement

IMAGE = Path("GC01_01.tif")


def said(source: ScaleSource, px_per_cm: float | None, top_cm: float | None = None) -> Statement:
    return Statement(source, Path(f"{source}.txt"), "line 3", px_per_cm, top_cm)


def test_the_highest_source_wins_whatever_the_order() -> None:
    statements = [said("tiff tag", 201.0), said("manifest", 199.0, 2.4), said("sidecar", 200.0, 2.0)]
    placement = place_image(IMAGE, statements)
    assert (placement.px_per_cm, placement.scale_source, placement.top_cm) == (200.0, "sidecar", 2.0)


@pytest.mark.parametrize("source", ["sidecar", "manifest", "instrument profile", "tiff tag"])
def test_one_source_is_enough(source: ScaleSource) -> None:
    placement = place_image(IMAGE, [said(source, 50.0)])
    assert (placement.px_per_cm, placement.scale_source, placement.top_cm) == (50.0, source, 0.0)


def test_a_source_without_scale_may_state_the_top() -> None:
    placement = place_image(IMAGE, [said("sidecar", None, 12.0), said("manifest", 50.0)])
    assert (placement.px_per_cm, placement.scale_source, placement.top_cm) == (50.0, "manifest", 12.0)


def test_any_two_that_disagree_are_named_with_their_values() -> None:
    statements = [said("sidecar", 100.0), said("manifest", 101.5), said("tiff tag", 102.5)]
    with pytest.raises(ScaleError) as caught:
        place_image(IMAGE, statements)
    for part in ("sidecar", "100 px/cm", "tiff tag", "102.5"):
        assert part in str(caught.value)


def test_two_per_cent_is_the_limit() -> None:
    assert place_image(IMAGE, [said("sidecar", 100.0), said("manifest", 101.9)]).px_per_cm == 100.0
    with pytest.raises(ScaleError):
        place_image(IMAGE, [said("sidecar", 100.0), said("manifest", 102.1)])


def test_tops_may_differ_by_half_a_centimetre() -> None:
    assert place_image(IMAGE, [said("sidecar", 100.0, 0.0), said("manifest", None, 0.4)]).top_cm == 0.0
    with pytest.raises(ScaleError, match=r"0 cm at the top.*says 0\.6"):
        place_image(IMAGE, [said("sidecar", 100.0, 0.0), said("manifest", None, 0.6)])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_is_a_positive_number(value: float) -> None:
    with pytest.raises(ScaleError, match="positive number") as caught:
        place_image(IMAGE, [said("manifest", value)])
    assert caught.value.file == "manifest.txt"


def test_a_top_is_a_number() -> None:
    with pytest.raises(ScaleError, match="top is nan"):
        place_image(IMAGE, [said("manifest", 10.0, math.nan)])


def test_no_scale_is_refused_with_a_way_out() -> None:
    with pytest.raises(ScaleError, match=r"px_per_cm in a manifest\.toml"):
        place_image(IMAGE, [said("manifest", None, 3.0)])


@pytest.mark.parametrize(
    "px_per_cm", [None, math.nan, math.inf, 4.9, 2001.0, *(dpi / 2.54 for dpi in (72, 96, 100, 150, 300))]
)
def test_placeholder_tags_are_no_evidence(px_per_cm: float | None) -> None:
    assert tag_statement(IMAGE, px_per_cm) is None


@pytest.mark.parametrize("px_per_cm", [5.0, 200.0, 508 / 2.54, 2000.0])
def test_other_tags_are(px_per_cm: float) -> None:
    tag = tag_statement(IMAGE, px_per_cm)
    assert tag is not None
    assert (tag.source, tag.px_per_cm) == ("tiff tag", px_per_cm)


@given(st.text(max_size=300))
def test_safe_names_are_safe_and_stable(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name) <= 100
    assert not set(name) & set('/\\:*?"<>|\0 ') and ".." not in name and name[0] not in ".-_"
    assert not leaves_folder(name)
    assert safe_name(name) == name


@pytest.mark.parametrize("text", ["GC01_01", "397T-U1584A-3R-1-A_SHLF11708131", "M9907-11PC.crop"])
def test_safe_text_is_kept(text: str) -> None:
    assert safe_name(text) == text


@pytest.mark.parametrize(
    "text", ["../../etc/passwd", "/abs", "CON", "nul.tif", "a\0b", "Kärn", "", "..", "x" * 255]
)
def test_other_text_is_changed_and_told_apart(text: str) -> None:
    name = safe_name(text)
    assert name != text
    assert name.split(".")[0].casefold() not in ("con", "nul")
    assert safe_name(text + "!") != name


def test_names_differ_even_where_case_is_ignored() -> None:
    names = unique_names(["GC01", "gc01", "GC01", "GC01-2", "B" * 100, "b" * 100])
    assert names[:4] == ["GC01", "gc01-2", "GC01-3", "GC01-2-2"]
    assert len({name.casefold() for name in names}) == 6
    assert max(map(len, names)) <= 100


@pytest.mark.parametrize(
    "text", ["../x", "a/../../x", "/x", "\\x", "C:\\x", "C:x", "..\\x", "//host/x", "a\0"]
)
def test_paths_that_leave(text: str) -> None:
    assert leaves_folder(text)


@pytest.mark.parametrize("text", ["x.tif", "a/b.tif", "..x", "a..b/c"])
def test_paths_that_stay(text: str) -> None:
    assert not leaves_folder(text)
