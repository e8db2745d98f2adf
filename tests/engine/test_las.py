from pathlib import Path

import lasio
import numpy as np
import pyarrow as pa
import pytest

from lithostream.engine.core.tables import Column, build_table, interval_fields
from lithostream.engine.errors import ScaleError
from lithostream.engine.io.las import write_las
from lithostream.kernels.errors import ContractError

TARGETS = ("density", "magnetic_susceptibility")
MINERALS = ("pore_water", "k_feldspar")
FIELDS = interval_fields(TARGETS, MINERALS)


def table(edges_cm: list[float], hole_top_m: float | None = None, **changed: Column) -> pa.Table:
    rng = np.random.default_rng(4)
    edges = np.array(edges_cm)
    rows = len(edges) - 1
    made: dict[pa.DataType, Column] = {
        pa.float64(): rng.uniform(1.0, 90.0, rows),
        pa.int32(): np.arange(rows, dtype=np.int32),
        pa.bool_(): np.zeros(rows, dtype=bool),
        pa.string(): np.full(rows, "core: 1"),
    }
    columns = {
        field.name: made[field.type] + 0 if field.type == pa.float64() else made[field.type]
        for field in FIELDS
    }
    columns |= {"top_cm": edges[:-1], "base_cm": edges[1:]}
    start = np.nan if hole_top_m is None else hole_top_m
    columns |= {"top_m": start + edges[:-1] / 100, "base_m": start + edges[1:] / 100}
    columns |= {"magnetic_susceptibility": rng.uniform(-10, 6e5, rows)}
    return build_table(FIELDS, columns | changed, {"bundle_sha256": "ab12", "note": "line\nbreak"})


def test_values_come_back_and_unknown_is_null(tmp_path: Path) -> None:
    density = np.array([1.5, np.nan, 1.234567, 2.0])
    flag = np.array([False, True, False, False])
    given = table([10.0, 11.0, 12.0, 13.0, 14.0], density=density, out_of_domain=flag)
    write_las(given, tmp_path / "a.las")
    las = lasio.read(tmp_path / "a.las")
    np.testing.assert_allclose(las["DEPT"], [0.105, 0.115, 0.125, 0.135], atol=1e-9)
    np.testing.assert_allclose(las["RHOB"], density, atol=1e-5, rtol=0, equal_nan=True)
    for mnemonic, name in {
        "RHOB_LOW": "density_low",
        "RHOB_HIGH": "density_high",
        "MSUS": "magnetic_susceptibility",
        "PORE_WATER": "pore_water_vol_pct",
        "K_FELDSPAR": "k_feldspar_vol_pct",
    }.items():
        np.testing.assert_allclose(las[mnemonic], given[name].to_numpy(), atol=1e-5, rtol=0)
    assert las["OOD"].tolist() == [0, 1, 0, 0]
    assert len(las.curves) == 1 + 2 * 3 + 2 + 5
    text = (tmp_path / "a.las").read_text()
    assert "-999.25" in text and las.well["NULL"].value == -999.25
    assert len(text.split("~ASCII")[1].splitlines()) == 1 + 4  # no row is wrapped


def test_header_says_units_depth_and_origin(tmp_path: Path) -> None:
    write_las(table([0.0, 1.0, 2.0], hole_top_m=102.5), tmp_path / "a.las")
    las = lasio.read(tmp_path / "a.las")
    units = {curve.mnemonic: curve.unit for curve in las.curves}
    assert units["DEPT"] == "M" and units["RHOB"] == "g/cm3"
    assert units["MSUS"] == "1e-5SI" and units["PORE_WATER"] == "%"
    assert las.curves["DEPT"].descr == "hole depth core 1, middle of the interval"
    assert (las.well["STRT"].value, las.well["STOP"].value, las.well["STEP"].value) == (
        102.505,
        102.515,
        0.01,
    )
    assert las.well["WELL"].value == las.well["SECT"].value == "core 1"
    assert las.params["BUNDLE_SHA256"].value == "ab12"
    assert las.params["NOTE"].value == "line break"


def test_step_is_zero_where_depth_is_not_uniform(tmp_path: Path) -> None:
    write_las(table([0.0, 1.0, 2.0, 2.4]), tmp_path / "a.las")
    las = lasio.read(tmp_path / "a.las")
    assert las.well["STEP"].value == 0
    np.testing.assert_allclose(las["DEPT"], [0.005, 0.015, 0.022], atol=1e-9)


def test_stated_step_reproduces_every_depth(tmp_path: Path) -> None:
    # Edges at whole pixels of a scale that does not divide the interval: steps differ by a pixel.
    edges = np.floor(np.arange(61) * 39.37 + 0.5) / 39.37
    write_las(table(edges.tolist()), tmp_path / "a.las")
    las = lasio.read(tmp_path / "a.las")
    assert las.well["STEP"].value == 0
    write_las(table(np.arange(0.0, 60.5, 0.5).tolist()), tmp_path / "b.las")
    las = lasio.read(tmp_path / "b.las")
    step = las.well["STEP"].value
    assert step == 0.005
    np.testing.assert_allclose(las["DEPT"][0] + step * np.arange(120), las["DEPT"], atol=1.1e-5)


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    write_las(table([0.0, 1.0, 2.0]), tmp_path / "a.las")
    write_las(table([0.0, 1.0, 2.0]), tmp_path / "b.las")
    assert (tmp_path / "a.las").read_bytes() == (tmp_path / "b.las").read_bytes()


def test_depth_that_falls_is_refused(tmp_path: Path) -> None:
    top_m = np.array([5.02, 5.01, 5.0])
    with pytest.raises(ScaleError, match=r"5\.025 m to 5\.015 m.*increase") as caught:
        write_las(table([0.0, 1.0, 2.0, 3.0], top_m=top_m, base_m=top_m + 0.01), tmp_path / "a.las")
    assert caught.value.place == "interval 1" and str(caught.value.file) == str(tmp_path / "a.las")
    assert not (tmp_path / "a.las").exists()


def test_hole_depth_of_some_rows_only_is_refused(tmp_path: Path) -> None:
    some = np.array([5.0, np.nan, 5.02])
    with pytest.raises(ScaleError, match="1 of 3 intervals have no hole depth"):
        write_las(table([0.0, 1.0, 2.0, 3.0], top_m=some, base_m=some + 0.01), tmp_path / "a.las")


def test_two_sections_in_one_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="one section, got 2"):
        write_las(table([0.0, 1.0, 2.0], section=np.array(["a", "b"])), tmp_path / "a.las")


def test_a_mineral_named_like_a_flag_is_refused(tmp_path: Path) -> None:
    fields = interval_fields(TARGETS, ("partial",))
    good = table([0.0, 1.0])
    columns = {f.name: np.array(good[f.name]) for f in FIELDS if "pore" not in f.name and "k_f" not in f.name}
    columns |= {"partial_vol_pct": np.array([5.0]), "partial_dry_wt_pct": np.array([5.0])}
    columns |= {"partial_width_pct": np.array([1.0])}
    columns |= {"partial_vol_low_pct": np.array([4.0]), "partial_vol_high_pct": np.array([6.0])}
    with pytest.raises(ContractError, match="distinct LAS mnemonics"):
        write_las(build_table(fields, columns, {}), tmp_path / "a.las")
