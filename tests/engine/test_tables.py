from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lithostream.engine.core import tables
from lithostream.engine.core.tables import Column, Field
from lithostream.engine.io.parquet import PART_ROWS, write_parquet, write_parts
from lithostream.kernels.errors import ContractError

TARGETS = ("density", "magnetic_susceptibility")
MINERALS = ("pore_water", "quartz")
INTERVALS = tables.interval_fields(TARGETS, MINERALS)
FIELDS = {
    "intervals": INTERVALS,
    "tiles": tables.tile_fields(TARGETS),
    "segments": tables.segment_fields(TARGETS, MINERALS),
}


def columns(fields: tuple[Field, ...], rows: int = 4) -> dict[str, Column]:
    made: dict[pa.DataType, Column] = {
        pa.float64(): np.linspace(0.5, 3.5, rows),
        pa.int32(): np.arange(rows, dtype=np.int32),
        pa.int64(): np.arange(rows),
        pa.bool_(): np.arange(rows) % 2 == 0,
        pa.string(): np.full(rows, "A1"),
    }
    return {field.name: made[field.type].copy() for field in fields}


def test_column_names_are_the_contract() -> None:
    assert " ".join(field.name for field in INTERVALS) == (
        "section hole interval top_cm base_cm top_m base_m depth_scale depth_method px_per_cm scale_source "
        "core_fraction tile_count density density_low density_high density_std density_measured "
        "magnetic_susceptibility magnetic_susceptibility_low magnetic_susceptibility_high "
        "magnetic_susceptibility_std magnetic_susceptibility_measured pore_water_vol_pct "
        "pore_water_vol_low_pct pore_water_vol_high_pct pore_water_dry_wt_pct pore_water_width_pct "
        "quartz_vol_pct quartz_vol_low_pct quartz_vol_high_pct quartz_dry_wt_pct quartz_width_pct "
        "density_source p_wave_velocity_source magnetic_susceptibility_source "
        "unmixing_residual out_of_domain no_core lines_lost partial section_end underdetermined"
    )
    assert " ".join(field.name for field in FIELDS["tiles"]) == (
        "section tile_row tile_col top_cm base_cm left_cm right_cm core_fraction density "
        "magnetic_susceptibility ood_distance out_of_domain"
    )
    assert " ".join(field.name for field in FIELDS["segments"]) == (
        "section segment window parent area_px centroid_cm centroid_left_cm top_cm base_cm left_cm right_cm "
        "red green blue red_std green_std blue_std red_reflectance green_reflectance blue_reflectance "
        "density magnetic_susceptibility "
        "pore_water_vol_pct pore_water_vol_low_pct pore_water_vol_high_pct "
        "quartz_vol_pct quartz_vol_low_pct quartz_vol_high_pct "
        "density_source p_wave_velocity_source magnetic_susceptibility_source "
        "unmixing_residual unmixing_condition out_of_domain underdetermined"
    )


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_unit_description_and_provenance_survive_parquet(kind: str, tmp_path: Path) -> None:
    fields = FIELDS[kind]
    table = tables.build_table(fields, columns(fields), {"section": "A1", "bundle_sha256": "ab12"})
    path = tmp_path / "t.parquet"
    write_parquet(table, path)
    back = pq.read_table(path)
    assert back.equals(table, check_metadata=True)
    for field in fields:
        stored = back.schema.field(field.name)
        assert stored.type == field.type and stored.nullable == field.nullable
        assert stored.metadata[b"unit"].decode() == field.unit
        assert stored.metadata[b"description"].decode() == field.description != ""
    assert tables.provenance_of(back) == {"schema_version": "1", "section": "A1", "bundle_sha256": "ab12"}
    assert tables.targets_of(back) == TARGETS
    assert tables.minerals_of(back) == (() if kind == "tiles" else MINERALS)
    assert back.schema.field("density").metadata[b"unit"] == b"g/cm3"


def test_nan_is_null_and_comes_back_as_nan() -> None:
    given = columns(INTERVALS)
    given["density"][1] = np.nan
    given["hole"] = np.array(["H", None, "H", "H"], dtype=object)
    table = tables.build_table(INTERVALS, given, {})
    assert table["density"].to_pylist() == [0.5, None, 2.5, 3.5]
    assert table["hole"].to_pylist() == ["H", None, "H", "H"]
    np.testing.assert_array_equal(tables.floats_of(table, "density"), [0.5, np.nan, 2.5, 3.5])
    assert tables.flags_of(table, "no_core").tolist() == [True, False, True, False]


def drop(given: dict[str, Column]) -> None:
    del given["tile_count"]


def add(given: dict[str, Column]) -> None:
    given["densty"] = given["density"]


def lose_depth(given: dict[str, Column]) -> None:
    given["top_cm"][2] = np.nan


def lose_name(given: dict[str, Column]) -> None:
    given["section"] = np.array(["A1", "A1", "A1", None], dtype=object)


def overflow(given: dict[str, Column]) -> None:
    given["interval"] = np.array([0, 1, 2, 2**31])


def infinite(given: dict[str, Column]) -> None:
    given["density"][3] = np.inf


def flag_as_number(given: dict[str, Column]) -> None:
    given["no_core"] = np.ones(4)


def number_as_text(given: dict[str, Column]) -> None:
    given["hole"] = np.array(["A", 3, "A", "A"], dtype=object)


def count_as_float(given: dict[str, Column]) -> None:
    given["tile_count"] = np.array([1.0, 2.5, 3.0, 4.0])


def shorten(given: dict[str, Column]) -> None:
    given["density"] = given["density"][:3]


def flat(given: dict[str, Column]) -> None:
    given["density"] = given["density"][:, None]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (drop, r"missing \['tile_count'\]"),
        (add, r"unknown \['densty'\]"),
        (lose_depth, "'top_cm': expected a value in every row, got none in row 2"),
        (lose_name, "'section': expected a value in every row, got none in row 3"),
        (overflow, "'interval': expected int32"),
        (infinite, "'density': expected finite or NaN, got inf in row 3"),
        (flag_as_number, "'no_core': expected bool, got float64"),
        (number_as_text, "'hole': expected string"),
        (count_as_float, "'tile_count': expected int32, got float64"),
        (shorten, "expected one length"),
        (flat, r"'density': expected an array \[N\]"),
    ],
)
def test_a_broken_column_is_refused_by_name(spoil: Callable[[dict[str, Column]], None], says: str) -> None:
    given = columns(INTERVALS)
    spoil(given)
    with pytest.raises(ContractError, match=says):
        tables.build_table(INTERVALS, given, {})


def test_two_minerals_of_one_name_are_refused() -> None:
    fields = tables.segment_fields(TARGETS, ("quartz", "quartz"))
    with pytest.raises(ContractError, match="distinct"):
        tables.build_table(fields, columns(fields), {})


def test_equal_tables_give_equal_bytes_however_chunked(tmp_path: Path) -> None:
    fields = FIELDS["tiles"]
    whole = tables.build_table(fields, columns(fields, 1000), {"b": "1", "a": "2"})
    parts = pa.concat_tables([whole.slice(0, 300), whole.slice(300, 1), whole.slice(301)])
    shuffled = tables.build_table(fields, dict(reversed(columns(fields, 1000).items())), {"a": "2", "b": "1"})
    assert parts["density"].num_chunks == 3
    contents = []
    for number, table in enumerate((whole, parts, shuffled)):
        path = tmp_path / f"{number}.parquet"
        write_parquet(table, path)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] == contents[2]
    different = whole.set_column(8, whole.schema.field("density"), pa.array(np.full(1000, 2.0)))
    write_parquet(different, tmp_path / "0.parquet")
    assert (tmp_path / "0.parquet").read_bytes() != contents[0]


def test_parquet_layout_is_fixed_and_holds_no_pandas_metadata(tmp_path: Path) -> None:
    fields = FIELDS["tiles"]
    rows = 65536 + 10
    write_parquet(tables.build_table(fields, columns(fields, rows), {}), tmp_path / "t.parquet")
    file = pq.ParquetFile(tmp_path / "t.parquet")
    groups = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
    assert groups == [65536, 10]
    assert file.metadata.row_group(0).column(3).compression == "ZSTD"
    assert b"pandas" not in (file.schema_arrow.metadata or {})


def test_an_empty_table_is_written_whole(tmp_path: Path) -> None:
    table = tables.build_table(INTERVALS, columns(INTERVALS, 0), {})
    write_parquet(table, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(table)


@pytest.mark.parametrize("rows", [0, 1, 1000, PART_ROWS, PART_ROWS + 1, 2 * PART_ROWS, 2 * PART_ROWS + 999])
def test_a_table_in_parts_is_the_whole_table(rows: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(rows)
    given = {name: rng.permutation(values) for name, values in columns(FIELDS["segments"], rows).items()}
    given["density"][rng.random(rows) < 0.3] = np.nan
    whole = tables.build_table(FIELDS["segments"], given, {"section": "A1"})
    cuts = np.sort(rng.integers(0, rows + 1, 9)).tolist()
    contents = []
    for edges in ([0, rows], [0, *cuts, rows], [*range(0, rows, 1500), rows]):
        write_parts((whole.slice(a, b - a) for a, b in pairwise([0, *edges])), tmp_path / "t.parquet")
        contents.append((tmp_path / "t.parquet").read_bytes())
    assert contents[0] == contents[1] == contents[2]
    assert pq.read_table(tmp_path / "t.parquet").equals(whole, check_metadata=True)
    if rows <= PART_ROWS:
        write_parquet(whole, tmp_path / "t.parquet")
        assert contents[0] == (tmp_path / "t.parquet").read_bytes()
    groups = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert all(groups.row_group(k).num_rows == PART_ROWS for k in range(groups.num_row_groups - 1))
