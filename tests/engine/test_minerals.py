import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.core.minerals import SEDIMENT, load_endmembers, sediment_endmembers
from lithostream.engine.errors import ConfigError

HEADER = (
    "name,density_g_cm3,bulk_modulus_GPa,shear_modulus_GPa,p_wave_velocity_m_s,"
    "magnetic_susceptibility_1e-5_SI,colour_r,colour_g,colour_b\n"
)
QUARTZ = "quartz,2.65,36.6,45.0,6040,-1.5,0.6,0.6,0.5\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_velocity_of_every_mineral_agrees_with_its_moduli() -> None:
    table = load_endmembers()
    modulus = table.bulk_modulus + 4.0 / 3.0 * table.shear_modulus
    expected = 1000.0 * np.sqrt(modulus / table.density)
    np.testing.assert_allclose(table.p_wave_velocity, expected, rtol=0.02)


def test_values_are_the_published_ones() -> None:
    table = load_endmembers().subset(("quartz", "calcite", "magnetite", "pore_water"))
    np.testing.assert_allclose(table.density, [2.65, 2.71, 5.20, 1.025])
    np.testing.assert_allclose(table.bulk_modulus, [36.6, 76.8, 161.4, 2.37])
    np.testing.assert_allclose(table.shear_modulus, [45.0, 32.0, 91.4, 0.0])
    np.testing.assert_allclose(table.susceptibility, [-1.5, -1.2, 300000, -0.9])


def test_colours_are_reflectances_and_only_water_has_none() -> None:
    table = load_endmembers()
    clear = np.isnan(table.colour).any(axis=1)
    assert np.flatnonzero(clear).tolist() == [table.names.index("pore_water")]
    assert (table.colour[~clear] > 0).all() and (table.colour[~clear] < 1).all()


def test_every_value_names_its_source() -> None:
    text = (files("lithostream.engine.core") / "minerals.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        assert row["elastic_source"] and row["susceptibility_source"] and row["colour_source"], row["name"]


def test_subset_keeps_the_order_asked_for() -> None:
    assert sediment_endmembers().names == SEDIMENT
    pair = load_endmembers().subset(("magnetite", "quartz"))
    assert pair.names == ("magnetite", "quartz")
    np.testing.assert_array_equal(pair.density, [5.20, 2.65])
    assert pair.colour.shape == (2, 3) and pair.density.dtype == np.float64


@pytest.mark.parametrize("names", [("quartz", "unobtainium"), ("quartz", "quartz")])
def test_subset_refuses_unknown_and_repeated_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"unobtainium|twice"):
        load_endmembers().subset(names)


def test_own_table_may_leave_moduli_and_colour_blank(tmp_path: Path) -> None:
    table = load_endmembers(_write(tmp_path, "\ufeff" + HEADER + "basalt,2.9,,,5900,1200,,,\n"))
    assert table.names == ("basalt",)
    assert table.density[0] == 2.9 and table.p_wave_velocity[0] == 5900 and table.susceptibility[0] == 1200
    assert np.isnan([table.bulk_modulus[0], table.shear_modulus[0], *table.colour[0]]).all()


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        (HEADER.replace("density_g_cm3", "rho") + QUARTZ, "line 1", "'density_g_cm3' is missing"),
        (HEADER + QUARTZ + QUARTZ, "line 3", "'quartz' appears twice"),
        (HEADER + QUARTZ.replace("2.65", "heavy"), "line 2, column density_g_cm3", "'heavy' is not a number"),
        (HEADER + QUARTZ.replace("2.65", ""), "line 2, column density_g_cm3", "blank"),
        (HEADER + QUARTZ.replace("6040", "-6040"), "p_wave_velocity_m_s", "not a positive finite number"),
        (HEADER + QUARTZ.replace("-1.5", "inf"), "magnetic_susceptibility", "not a finite number"),
        (HEADER + QUARTZ.replace("quartz", " "), "line 2", "name is blank"),
        (HEADER + QUARTZ.replace("0.5\n", "0.5,,a comma\n"), "line 2", "more cells"),
        (HEADER, "", "no endmember"),
    ],
)
def test_a_wrong_table_is_refused_by_file_and_line(
    tmp_path: Path, text: str, place: str, reason: str
) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_endmembers(path)
    assert caught.value.file == str(path)
    assert place in caught.value.place and reason in caught.value.reason


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_endmembers(tmp_path / "absent.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(HEADER.encode() + "séricite".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_endmembers(latin)
