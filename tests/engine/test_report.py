import base64
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from lithostream.engine.core.tables import Column, build_table, interval_fields
from lithostream.engine.core.unmix import PROPERTIES
from lithostream.engine.report import summary
from lithostream.engine.report.content import Quarantined, ReportRun, ReportSection
from lithostream.engine.report.figure import spans, strip_log_svg
from lithostream.engine.report.html import render_report
from lithostream.engine.report.strip import write_strip
from lithostream.kernels.errors import ContractError

Floats = npt.NDArray[np.float64]

MINERALS = ("pore_water", "quartz", "illite", "calcite", "magnetite")
GAP, FLAGGED = slice(40, 52), slice(90, 104)


def walk(rng: np.random.Generator, rows: int, start: float, step: float) -> Floats:
    return np.asarray(start + np.cumsum(rng.normal(0.0, step, rows)), np.float64)


def interval_columns(
    rng: np.random.Generator, rows: int, outside: slice, measured: bool
) -> dict[str, Column]:
    edges = np.arange(rows + 1) * 1.0
    gap, flagged = np.zeros(rows, bool), np.zeros(rows, bool)
    gap[GAP], flagged[outside] = True, True
    columns: dict[str, Column] = {
        "section": np.full(rows, "SYN_0001"),
        "hole": np.full(rows, "U1418A"),
        "interval": np.arange(rows),
        "top_cm": edges[:-1],
        "base_cm": edges[1:],
        "top_m": 102.3 + edges[:-1] / 100,
        "base_m": 102.3 + edges[1:] / 100,
        "depth_scale": np.full(rows, "CSF-A"),
        "depth_method": np.full(rows, "hole top + section offset"),
        "px_per_cm": np.full(rows, 200.0),
        "scale_source": np.full(rows, "sidecar"),
        "core_fraction": np.where(gap, 0.05, 0.93),
        "tile_count": np.where(gap, 0, 7).astype(np.int32),
        "unmixing_residual": np.where(gap | flagged, np.nan, 0.4),
        "out_of_domain": flagged,
        "no_core": gap,
        "lines_lost": np.zeros(len(gap), bool),
        "partial": edges[1:] > rows,
        "section_end": np.isin(np.arange(rows), (0, rows - 1)),
        "underdetermined": ~gap & ~flagged,
    }
    starts = {
        "density": (1.7, 0.02, 0.08),
        "p_wave_velocity": (1560.0, 8.0, 30.0),
        "magnetic_susceptibility": (80, 6, 25),
    }
    for name, (start, step, half) in starts.items():
        value = np.where(gap, np.nan, walk(rng, rows, start, step))
        columns |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
        columns[f"{name}_std"] = np.where(gap, np.nan, half / 3)
        log = value + rng.normal(0, half / 2, rows)
        log[1::2] = np.nan
        columns[f"{name}_measured"] = log if measured else np.full(rows, np.nan)
    share = np.abs(np.stack([walk(rng, rows, s, 0.02) for s in (0.6, 0.15, 0.15, 0.08, 0.02)]))
    share = np.where(gap | flagged, np.nan, 100 * share / share.sum(axis=0))
    for name, volume in zip(MINERALS, share, strict=True):
        columns |= {f"{name}_vol_pct": volume, f"{name}_width_pct": volume / 2}
        columns |= {f"{name}_vol_low_pct": volume / 2, f"{name}_vol_high_pct": volume * 1.1}
        columns[f"{name}_dry_wt_pct"] = volume * (name != "pore_water")
    return columns | {f"{name}_source": np.full(rows, "predicted", object) for name in PROPERTIES}


def table(
    rows: int = 120, outside: slice = slice(0), measured: bool = True, seed: int = 3, **changed: Column
) -> pa.Table:
    columns = interval_columns(np.random.default_rng(seed), rows, outside, measured)
    return build_table(interval_fields(PROPERTIES, MINERALS), columns | changed, {})


def picture(rows: int = 120) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    tone = np.repeat(walk(rng, rows, 120.0, 3.0), 4)[:, None, None]
    rgb = tone * np.array([1.0, 0.93, 0.8]) + rng.normal(0, 5, (rows * 4, 32, 3))
    rgb[GAP.start * 4 : GAP.stop * 4] = 210
    return np.asarray(np.clip(rgb, 0, 255), np.uint8)


def section(name: str = "SYN_0001", **changed: object) -> ReportSection:
    base = ReportSection(
        name,
        table(outside=FLAGGED),
        picture(),
        facts={"Image": "SYN_0001.tif", "Seconds": "2.4"},
        notes=("16-bit image scaled by its white level 65535", "uncalibrated colour: sRGB assumed"),
    )
    return replace(base, **changed)  # type: ignore[arg-type]


def run(*sections: ReportSection, **changed: object) -> ReportRun:
    base = ReportRun(
        "Expedition 341, site U1418",
        "sediment-demo",
        "9f2c" * 16,
        {
            "Domain": "generated sediment, 40 px/cm",
            "Runtime": "onnxruntime 1.20 CPU",
            "Finished": "2026-11-21T10:00:00+00:00",
        },
        {"lithostream": "0.1.0", "numpy": "2.2.0"},
        {"interval_cm": "1.0", "roi": "sediment"},
        sections or (section(),),
    )
    return replace(base, **changed)  # type: ignore[arg-type]


def page(tmp_path: Path, content: ReportRun) -> str:
    render_report(content, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def drawings(text: str) -> list[ElementTree.Element]:
    found = re.findall(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"', text)
    return [ElementTree.fromstring(base64.b64decode(each)) for each in found]


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_the_page_is_whole_and_reaches_for_nothing(tmp_path: Path) -> None:
    text = page(tmp_path, run(section("A"), section("B")))
    tags = Tags(text)
    assert not tags.open
    assert "http://" not in text and "https://" not in text and "url(" not in text and "@import" not in text
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    references = [
        v for _, attrs in tags.seen for k, v in attrs.items() if k in {"src", "href", "srcset", "data"}
    ]
    assert all(v and v.startswith(("data:image/svg+xml;base64,", "#")) for v in references)
    assert {v for v in references if v and v.startswith("#")} == {
        f"#{a['id']}" for _, a in tags.seen if "id" in a
    }
    (policy,) = [a["content"] for _, a in tags.seen if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'")
    for svg in drawings(text):
        links = [v for node in svg.iter() for k, v in node.attrib.items() if k.endswith("href")]
        assert links and all(v.startswith(("data:image/png;base64,", "#")) for v in links)


def test_every_text_is_inert(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>\"&'><img src=x onerror=y>"
    entry = Quarantined(evil, evil, evil, evil, evil, evil)
    hostile = section(
        evil,
        facts={evil: evil},
        notes=(evil,),
        intervals=table(
            hole=np.full(120, evil), depth_scale=np.full(120, evil), scale_source=np.full(120, evil)
        ),
    )
    facts = {evil: evil}
    content = run(hostile, section("B"), title=evil, bundle_name=evil, bundle_sha256=evil, facts=facts)
    text = page(tmp_path, replace(content, versions=facts, settings=facts, quarantined=(entry,)))
    plain, attacked = Tags(page(tmp_path, run(section("A"), section("B")))), Tags(text)
    assert {tag for tag, _ in attacked.seen} == {tag for tag, _ in plain.seen}
    assert "onerror" not in {key for _, attrs in attacked.seen for key in attrs}
    assert attacked.text.count(evil) >= 16
    assert any(evil in each for each in texts(drawings(text)[0]))


def test_equal_runs_give_equal_bytes_in_any_thread(tmp_path: Path) -> None:
    sections = [section(f"S{k}", intervals=table(seed=k)) for k in range(3)]
    alone = [strip_log_svg(each) for each in sections]
    assert len(set(alone)) == 3
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(strip_log_svg, sections * 2)) == alone * 2
    render_report(run(*sections), tmp_path / "a.html")
    render_report(run(*sections), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_personal_matplotlib_setting_changes_nothing() -> None:
    import matplotlib as mpl

    expected = strip_log_svg(section())
    with mpl.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        assert strip_log_svg(section()) == expected
        assert mpl.rcParams["axes.facecolor"] == "red"  # and the report leaves it as it was


def test_out_of_domain_is_said_and_drawn(tmp_path: Path) -> None:
    text = page(tmp_path, run(section()))
    stop = re.findall(r'<p class="notice stop">(.*?)</p>', text)
    assert stop == [
        "Out of domain: values are flagged and no mineral % is given. 14 of 120 intervals: 90 to 104 cm."
    ]
    assert "out of domain" in texts(drawings(text)[0])
    clean = page(tmp_path, run(section(intervals=table())))
    assert "Out of domain" not in clean and "out of domain" not in texts(drawings(clean)[0])
    whole = page(tmp_path, run(section(intervals=table(outside=slice(None)))))
    assert "no mineral % is given. All 120 intervals." in whole
    assert "out of domain: no mineral % is given" in texts(drawings(whole)[0])
    assert "Minerals, mean" in text and "Minerals, mean" not in whole


def test_legend_names_what_is_drawn_and_nothing_else() -> None:
    full = texts(drawings_of(section(true_properties={"density": np.full(120, 1.7)})))
    assert {"predicted", "90 % interval", "sensor log", "truth", "quartz", "pore water"} <= set(full)
    bare = texts(drawings_of(section(intervals=table(measured=False))))
    assert not {"sensor log", "truth", "out of domain"} & set(bare)
    assert {
        "Core",
        "Density",
        "g/cm3",
        "P-wave velocity",
        "m/s",
        "Magnetic susceptibility",
        "1e-5 SI",
    } <= set(bare)
    assert "section offset, cm" in bare and "hole depth, m CSF-A" in bare


def drawings_of(content: ReportSection) -> ElementTree.Element:
    return ElementTree.fromstring(strip_log_svg(content))


def label_height(svg: ElementTree.Element, label: str) -> float:
    nodes = [node for node in svg.iter("{http://www.w3.org/2000/svg}text") if node.text == label]
    return float(nodes[0].attrib["y"])


def test_hole_depths_stand_beside_their_section_offsets() -> None:
    svg = drawings_of(section())  # offset 0 is 102.3 m
    for hole_m, offset_cm in {"102.3": "0", "102.4": "10", "102.8": "50", "103.5": "120"}.items():
        assert label_height(svg, hole_m) == pytest.approx(label_height(svg, offset_cm), abs=0.01)
    assert not {"102.2", "103.6"} & set(texts(svg))


def test_no_hole_axis_without_hole_depth() -> None:
    unknown = np.full(120, np.nan)
    svg = drawings_of(section(intervals=table(top_m=unknown, base_m=unknown)))
    assert not [text for text in texts(svg) if text.startswith("hole depth")]
    facts = summary.section_facts(section(intervals=table(top_m=unknown, base_m=unknown)))
    assert facts["Hole depth"] == "not known"


def height_px(content: ReportSection) -> float:
    return float(drawings_of(content).attrib["height"].removesuffix("pt"))


def test_height_grows_with_depth_up_to_a_cap() -> None:
    def long(rows: int) -> ReportSection:
        return section(intervals=table(rows), strip=picture(rows))

    short, metre, long_core, endless = (height_px(long(rows)) for rows in (60, 120, 440, 2000))
    assert short < metre < long_core < endless
    assert long_core - metre == pytest.approx(320 * 0.085 * 72)
    assert endless < 62 * 72


def test_a_bundle_of_one_property_without_minerals_has_a_report(tmp_path: Path) -> None:
    columns = interval_columns(np.random.default_rng(3), 60, slice(0), measured=False)
    columns["underdetermined"] = np.zeros(60, bool)
    fields = interval_fields(("density",), ())
    for rows in (60, 1):  # one interval is a log too
        some = {field.name: columns[field.name][:rows] for field in fields}
        few = section(intervals=build_table(fields, some, {}), strip=picture(60))
        shown = set(texts(drawings_of(few)))
        assert "Density" in shown and not {"Minerals", "P-wave velocity"} & shown
        assert "Minerals" not in page(tmp_path, run(few))


def test_a_section_without_any_value_has_a_report(tmp_path: Path) -> None:
    columns = interval_columns(np.random.default_rng(3), 120, slice(0), measured=False)
    for name in PROPERTIES:
        columns |= {f"{name}{part}": np.full(120, np.nan) for part in ("", "_low", "_high", "_std")}
    columns["no_core"] = np.ones(120, bool)
    empty = section(intervals=build_table(interval_fields(PROPERTIES, MINERALS), columns, {}))
    assert "No core: left blank. All 120 intervals." in page(tmp_path, run(empty))
    assert summary.property_table(empty)[1][0] == ["density, g/cm3", "0", "–", "–", "–"]


def test_curves_break_at_a_gap() -> None:
    rows = 120
    solid, gap = table(no_core=np.zeros(rows, bool)), table()
    assert solid["density"].null_count == gap["density"].null_count == 12
    svg = drawings_of(section(intervals=gap))
    moves = [
        node.attrib["d"].count("M")
        for node in svg.iter("{http://www.w3.org/2000/svg}path")
        if "stroke: #4477aa" in node.attrib.get("style", "")
    ]
    assert moves == [2]  # the density curve: above the gap, and below


def test_numbers_of_the_summary() -> None:
    rows = 120
    value = np.full(rows, 2.0)
    value[FLAGGED] = 99.0
    log = np.full(rows, np.nan)
    log[:10], log[10:20], log[95] = 2.1, 2.5, 0.0
    given = table(
        outside=FLAGGED,
        density=value,
        density_low=value - 0.2,
        density_high=value + 0.2,
        density_measured=log,
    )
    heading, cells = summary.property_table(section(intervals=given))
    row = dict(zip(heading, cells[0], strict=True))
    assert row[""] == "density, g/cm3"
    assert row["intervals"] == "106" and row["median"] == "2.000"  # flagged intervals do not count
    assert row["± of the 90 % interval"] == "0.200"
    assert row["mean absolute difference to sensor log"] == "0.300"
    assert row["sensor log in the 90 % interval"] == "50% of 20"
    assert not [name for name in heading if "truth" in name]


def test_mineral_means_are_over_answered_intervals() -> None:
    volume = np.full(120, 30.0)
    volume[60:] = np.nan
    given = table(quartz_vol_pct=volume, quartz_dry_wt_pct=2 * volume, quartz_width_pct=volume / 3)
    _, rows = summary.mineral_table(section(intervals=given))
    assert rows[1] == ["quartz", "60", "30.0", "60.0", "10.0"]


def test_quarantined_inputs_are_listed_with_reason_and_fix(tmp_path: Path) -> None:
    entry = Quarantined("bad", "DecodeError", "/in/bad.tif", "strip 3", "data end early", "scan it again")
    text = page(tmp_path, run(quarantined=(entry,)))
    cells = "".join(
        f"<td>{cell}</td>" for cell in ("bad", "/in/bad.tif", "strip 3", "data end early", "scan it again")
    )
    assert f"<tr>{cells}</tr>" in text
    assert "1 section finished, 1 quarantined" in text
    assert "Quarantined" not in page(tmp_path, run())


def test_run_facts_are_shown(tmp_path: Path) -> None:
    text = Tags(page(tmp_path, run())).text
    for fact in ("sediment-demo", "9f2c" * 16, "lithostream", "0.1.0", "interval_cm", "onnxruntime 1.20 CPU"):
        assert fact in text
    for fact in (
        "200 px/cm, from: sidecar",
        "102.3 to 103.5 m",
        "uncalibrated colour: sRGB assumed",
        "SYN_0001.tif",
    ):
        assert fact in text


def test_truth_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ContractError, match=r"truth: expected float64 \[120\], got \[3\]"):
        strip_log_svg(section(true_properties={"density": np.ones(3)}))
    with pytest.raises(ContractError, match=r"missing .*'calcite'"):
        strip_log_svg(section(true_volume_pct={"quartz": np.ones(120)}))


def test_spans_are_unbroken_runs() -> None:
    top, flag = np.arange(6.0), np.array([True, True, False, True, False, True])
    assert list(spans(top, top + 1, flag)) == [(0.0, 2.0), (3.0, 4.0), (5.0, 6.0)]
    assert list(spans(top, top + 1, np.zeros(6, bool))) == []


def test_strip_keeps_core_and_dims_the_rest(tmp_path: Path) -> None:
    rgb, mask = picture(), np.zeros((480, 32), bool)
    mask[:, 4:28] = True
    write_strip(tmp_path / "a.png", rgb, mask)
    write_strip(tmp_path / "b.png", rgb, mask)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    found = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(found[mask], rgb[mask])
    expected = np.round(rgb[~mask] * 0.22 + 238 * 0.78)
    assert np.abs(found[~mask] - expected).max() <= 1
    assert found[~mask].std() < rgb[~mask].std() / 4
    by_path, by_array = section(strip=tmp_path / "a.png"), section(strip=found)
    assert strip_log_svg(by_path) == strip_log_svg(by_array)


def test_strip_refuses_a_mask_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"mask: expected bool \[480, 32\]"):
        write_strip(tmp_path / "a.png", picture(), np.ones((480, 31), bool))


def test_importing_the_engine_loads_no_plotting() -> None:
    code = "import sys, lithostream.engine.cli, lithostream.engine.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
