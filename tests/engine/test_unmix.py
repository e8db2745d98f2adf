from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from lithostream.engine.core.minerals import Endmembers, load_endmembers, sediment_endmembers
from lithostream.engine.core.rockphysics import (
    bulk_density,
    p_wave_modulus,
    volume_susceptibility,
    wood_velocity,
    wyllie_velocity,
)
from lithostream.engine.core.unmix import DEFAULT_STD, FloatArray, MineralFlag, Regime, unmix_properties
from lithostream.engine.errors import ConfigError
from lithostream.kernels.errors import ContractError

REGIMES: Sequence[Regime] = ("unconsolidated", "lithified")
# Errors too small to widen an answer.
EXACT = {"density": 2e-8, "p_wave_velocity": 3e-5, "magnetic_susceptibility": 2e-6}
DETERMINED = (
    ("pore_water", "quartz", "magnetite"),
    ("pore_water", "quartz", "illite", "magnetite"),
    ("magnetite", "calcite", "pore_water", "illite"),
)


def _forward(fractions: FloatArray, table: Endmembers, regime: Regime) -> dict[str, FloatArray]:
    if regime == "unconsolidated":
        velocity = wood_velocity(fractions, table.density, table.p_wave_velocity)
    else:
        velocity = wyllie_velocity(fractions, table.p_wave_velocity)
    return {
        "density": bulk_density(fractions, table.density),
        "p_wave_velocity": velocity,
        "magnetic_susceptibility": volume_susceptibility(fractions, table.susceptibility),
    }


@settings(max_examples=60, deadline=None)
@given(
    names=st.sampled_from(DETERMINED),
    regime=st.sampled_from(REGIMES),
    seed=st.integers(0, 2**32 - 1),
    absent=st.booleans(),
)
def test_a_determined_mixture_is_recovered(
    names: tuple[str, ...], regime: Regime, seed: int, absent: bool
) -> None:
    table = load_endmembers().subset(names)
    fractions = np.random.default_rng(seed).dirichlet(np.ones(len(names)), size=20)
    if absent:
        fractions[:, seed % len(names)] = 0.0
        fractions /= fractions.sum(axis=1, keepdims=True)
    result = unmix_properties(_forward(fractions, table, regime), table, regime)
    np.testing.assert_allclose(result.volume_pct / 100, fractions, atol=1e-6)
    np.testing.assert_allclose(result.volume_pct.sum(axis=1), 100, atol=1e-6)
    assert not result.flags.any()
    assert (result.residual < 1e-4).all()


def test_dry_weight_follows_from_volume_and_density() -> None:
    table = load_endmembers().subset(("pore_water", "quartz", "magnetite"))
    properties = _forward(np.array([[0.6, 0.38, 0.02], [1.0, 0.0, 0.0]]), table, "unconsolidated")
    result = unmix_properties(properties, table, "unconsolidated")
    solids = 0.38 * 2.65 + 0.02 * 5.20
    expected = [0.0, 100 * 0.38 * 2.65 / solids, 100 * 0.02 * 5.20 / solids]
    np.testing.assert_allclose(result.dry_weight_pct[0], expected, atol=1e-4)
    # Pure water: the solids left are rounding, and their composition would be noise.
    assert result.volume_pct[1, 0] == pytest.approx(100, abs=1e-6)
    assert np.isnan(result.dry_weight_pct[1]).all()


def test_pure_water_has_no_dry_weight() -> None:
    water = load_endmembers().subset(("pore_water",))
    result = unmix_properties({"density": np.array([1.025])}, water, "unconsolidated")
    np.testing.assert_array_equal(result.volume_pct, [[100.0]])
    assert np.isnan(result.dry_weight_pct).all()


def _width_by_linear_programs(table: Endmembers, fractions: FloatArray) -> FloatArray:
    compliance = 1 / p_wave_modulus(table.density, table.p_wave_velocity)
    rows = np.stack([np.ones(5), table.density, compliance, table.susceptibility / 3e5])
    width = []
    for mineral in np.eye(5):
        ends = [linprog(sign * mineral, A_eq=rows, b_eq=rows @ fractions) for sign in (1, -1)]
        assert all(end.status == 0 for end in ends)
        width.append(-ends[1].fun - ends[0].fun)
    return 100 * np.array(width)


def test_default_sediment_is_flagged_and_its_width_is_exact(rng: np.random.Generator) -> None:
    table = sediment_endmembers()
    fractions = rng.dirichlet([60, 10, 4, 15, 0.05], size=12)
    result = unmix_properties(
        _forward(fractions, table, "unconsolidated"), table, "unconsolidated", std=EXACT
    )
    assert (result.flags == MineralFlag.UNDERDETERMINED).all()
    expected = [_width_by_linear_programs(table, row) for row in fractions]
    np.testing.assert_allclose(result.width_pct, expected, atol=2e-3)
    # The truth is one of the answers that fit equally well; porosity is nearly determined, silicates are not.
    assert (np.abs(result.volume_pct - 100 * fractions) <= result.width_pct + 1e-3).all()
    assert (result.width_pct[:, 0] < 1).all() and (result.width_pct[:, 1] > 1).any()
    np.testing.assert_allclose(result.volume_pct.sum(axis=1), 100, atol=1e-6)


@pytest.mark.parametrize("names", DETERMINED)
def test_a_determined_answer_is_as_wide_as_the_errors_of_the_log(names: tuple[str, ...]) -> None:
    table = load_endmembers().subset(names)
    fractions = np.full((1, len(names)), 0.9 / (len(names) - 1))
    fractions[0, names.index("magnetite")] = 0.1
    properties = _forward(fractions, table, "unconsolidated")
    exact = unmix_properties(properties, table, "unconsolidated", std=EXACT)
    assert (exact.width_pct < 1e-3).all()
    wide = unmix_properties(properties, table, "unconsolidated")
    wider = unmix_properties(properties, table, "unconsolidated", std={"density": 0.06})
    assert (wide.width_pct > exact.width_pct).all()
    assert (wider.width_pct > wide.width_pct).sum() >= len(names) - 1


def test_width_covers_the_truth_of_noisy_logs(rng: np.random.Generator) -> None:
    table = sediment_endmembers()
    fractions = rng.dirichlet([60, 10, 4, 15, 0.02], size=400)
    noisy = _forward(fractions, table, "unconsolidated")
    for name, std in DEFAULT_STD.items():
        noisy[name] = noisy[name] + std * rng.standard_normal(400)
    result = unmix_properties(noisy, table, "unconsolidated")
    assert (result.flags == MineralFlag.UNDERDETERMINED).all()
    covered = (np.abs(result.volume_pct - 100 * fractions) <= result.width_pct).mean(axis=0)
    assert (covered > 0.8).all()
    assert np.median(result.width_pct[:, 0]) < 6 and np.median(result.width_pct[:, 1]) > 10


def test_fewer_measurements_widen_the_answer() -> None:
    table = sediment_endmembers()
    properties = _forward(np.array([[0.65, 0.12, 0.05, 0.1798, 0.0002]]), table, "unconsolidated")
    full = unmix_properties(properties, table, "unconsolidated")
    density = unmix_properties({"density": properties["density"]}, table, "unconsolidated")
    assert (density.width_pct > full.width_pct).all()
    assert density.residual[0] < 1e-6


def test_among_equal_answers_the_ridge_takes_the_smallest_norm() -> None:
    table = load_endmembers().subset(("pore_water", "quartz", "calcite", "illite"))
    truth = np.array([[0.7, 0.2, 0.0, 0.1]])
    properties = _forward(truth, table, "unconsolidated")
    del properties["magnetic_susceptibility"]
    result = unmix_properties(properties, table, "unconsolidated")
    compliance = 1 / p_wave_modulus(table.density, table.p_wave_velocity)
    rows = np.stack([np.ones(4), table.density, compliance])
    smallest = np.linalg.pinv(rows) @ rows @ truth[0]
    assert (smallest > 0).all()
    np.testing.assert_allclose(result.volume_pct[0] / 100, smallest, atol=1e-6)


def test_equations_are_weighted_by_the_errors_behind_them() -> None:
    table = load_endmembers().subset(("pore_water", "quartz"))
    std = {"density": 0.03, "p_wave_velocity": 25.0}
    properties = {"density": np.array([1.60]), "p_wave_velocity": np.array([1560.0])}
    result = unmix_properties(properties, table, "unconsolidated", std=std)
    # Generalised least squares on (rho, c) with the full covariance that an error of density causes in c.
    c = 1 / p_wave_modulus(properties["density"], properties["p_wave_velocity"])[0]
    jacobian = np.array([[1.0, 0.0], [-c / 1.60, -2 * c / 1560.0]])
    inverse = np.linalg.inv(jacobian @ np.diag([0.03**2, 25.0**2]) @ jacobian.T)
    pure = np.stack([table.density, 1 / p_wave_modulus(table.density, table.p_wave_velocity)])
    change, gap = pure[:, 1] - pure[:, 0], np.array([1.60, c]) - pure[:, 0]
    quartz = change @ inverse @ gap / (change @ inverse @ change)
    assert 0.1 < quartz < 0.6
    np.testing.assert_allclose(result.volume_pct[0], [100 - 100 * quartz, 100 * quartz], atol=1e-5)
    misfit = quartz * change - gap
    assert result.residual[0] == pytest.approx(np.sqrt(misfit @ inverse @ misfit), rel=1e-5)
    assert result.residual[0] > 0.1


def test_a_smaller_std_pulls_the_answer_to_that_property() -> None:
    table = load_endmembers().subset(("pore_water", "quartz"))
    conflict = {"density": np.array([1.5, 1.5]), "p_wave_velocity": np.array([2400.0, 2400.0])}
    std = {"density": np.array([0.001, 0.5]), "p_wave_velocity": np.array([500.0, 1.0])}
    porosity = unmix_properties(conflict, table, "lithified", std=std).volume_pct[:, 0]
    by_density = 100 * (2.65 - 1.5) / (2.65 - 1.025)
    by_velocity = 100 * (1 / 2400 - 1 / 6040) / (1 / 1521 - 1 / 6040)
    np.testing.assert_allclose(porosity, [by_density, by_velocity], atol=0.05)


def test_rows_tell_what_was_missing_and_what_was_left_out() -> None:
    table = load_endmembers().subset(("pore_water", "quartz", "magnetite"))
    nan = np.nan
    properties = {
        "density": np.array([nan, nan, -1.6, np.inf, 1.6]),
        "p_wave_velocity": np.array([nan, 1500.0, 1500.0, nan, 1500.0]),
        "magnetic_susceptibility": np.array([nan, 50.0, 50.0, 50.0, nan]),
    }
    result = unmix_properties(properties, table, "unconsolidated")
    under = MineralFlag.UNDERDETERMINED
    assert [MineralFlag(flag) for flag in result.flags[:4].tolist()] == [
        MineralFlag.UNMEASURED,
        MineralFlag.VELOCITY_UNUSED | under,
        MineralFlag.NONPHYSICAL | MineralFlag.VELOCITY_UNUSED | under,
        MineralFlag.NONPHYSICAL | under,
    ]
    assert not result.flags[4] & MineralFlag.UNMEASURED
    assert np.isnan(result.volume_pct[0]).all() and np.isnan(result.dry_weight_pct[0]).all()
    assert np.isnan(result.residual[0]) and np.isnan(result.width_pct[0]).all()
    np.testing.assert_allclose(result.volume_pct[1:].sum(axis=1), 100, atol=1e-6)
    # Rows 1 to 3 hold the same single usable value, so they have the same answer.
    np.testing.assert_array_equal(result.volume_pct[2], result.volume_pct[1])
    np.testing.assert_array_equal(result.volume_pct[3], result.volume_pct[1])


def test_lithified_velocity_needs_no_density() -> None:
    table = load_endmembers().subset(("pore_water", "quartz"))
    fractions = np.array([[0.2, 0.8]])
    velocity = wyllie_velocity(fractions, table.p_wave_velocity)
    result = unmix_properties({"p_wave_velocity": velocity}, table, "lithified")
    np.testing.assert_allclose(result.volume_pct, 100 * fractions, atol=1e-4)
    assert not result.flags.any()


def test_inputs_are_not_changed_and_no_rows_are_no_answer() -> None:
    table = sediment_endmembers()
    density = np.array([1.6, -2.0])
    unmix_properties({"density": density}, table, "unconsolidated")
    np.testing.assert_array_equal(density, [1.6, -2.0])
    empty = unmix_properties({"density": np.empty(0)}, table, "unconsolidated")
    assert empty.volume_pct.shape == (0, 5) and empty.flags.shape == (0,)


def test_wrong_calls_are_refused() -> None:
    table = sediment_endmembers()
    density = np.array([1.6])
    with pytest.raises(ContractError, match="porosity"):
        unmix_properties({"porosity": density}, table, "unconsolidated")
    with pytest.raises(ContractError, match="properties"):
        unmix_properties({}, table, "unconsolidated")
    with pytest.raises(ContractError, match="float64"):
        unmix_properties({"density": density.astype(np.float32)}, table, "unconsolidated")
    with pytest.raises(ContractError, match=r"p_wave_velocity.*\[1\]"):
        unmix_properties({"density": density, "p_wave_velocity": np.ones(2)}, table, "unconsolidated")
    with pytest.raises(ContractError, match="> 0 where measured"):
        unmix_properties({"density": density}, table, "unconsolidated", std={"density": 0.0})
    with pytest.raises(ContractError, match="std"):
        unmix_properties({"density": density}, table, "unconsolidated", std={"rho": 0.1})
    with pytest.raises(ContractError, match="one number"):
        unmix_properties({"density": density}, table, "unconsolidated", std={"density": np.ones(3)})
    with pytest.raises(ConfigError, match="melted"):
        unmix_properties({"density": density}, table, cast(Regime, "melted"))
