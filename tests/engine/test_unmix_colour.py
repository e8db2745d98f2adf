"""What the solver takes beside three properties: colour, covariances, logs, priors; and what it says of an answer."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from lithostream.engine.core import hapke
from lithostream.engine.core.equations import ColourMixing
from lithostream.engine.core.identifiability import near_answers
from lithostream.engine.core.intervals import Constraint, System, prior_ridge
from lithostream.engine.core.minerals import Endmembers, load_endmembers, sediment_endmembers
from lithostream.engine.core.rockphysics import bulk_density, volume_susceptibility, wood_velocity
from lithostream.engine.core.unmix import Colour, FloatArray, Logs, MineralFlag, Source, unmix_properties
from lithostream.engine.errors import ConfigError
from lithostream.kernels.errors import ContractError

FOUR = ("pore_water", "quartz", "calcite", "illite")


def _forward(fractions: FloatArray, table: Endmembers) -> dict[str, FloatArray]:
    return {
        "density": bulk_density(fractions, table.density),
        "p_wave_velocity": wood_velocity(fractions, table.density, table.p_wave_velocity),
        "magnetic_susceptibility": volume_susceptibility(fractions, table.susceptibility),
    }


def _look(fractions: FloatArray, table: Endmembers, mixing: ColourMixing, wetness: float) -> FloatArray:
    """Colour by the solver's own laws, all grains of the mean of 1 / D."""
    assert table.grain_size_um is not None
    solids, colour = fractions[:, 1:], table.colour[1:]
    if mixing == "hapke":
        typical, low, high = table.grain_size_um[1:].T
        section = solids * np.exp(0.5 * (np.log(high / low) / 3.2898) ** 2) / typical
        mean = section @ hapke.albedo(colour) / section.sum(axis=1, keepdims=True)
        dry = hapke.reflectance(mean)
    else:
        dry = solids @ colour / solids.sum(axis=1, keepdims=True)
    return hapke.wet(dry, wetness)


@pytest.mark.parametrize("mixing", ["hapke", "linear"])
def test_a_mixture_is_recovered_from_its_colour(mixing: ColourMixing, rng: np.random.Generator) -> None:
    table = load_endmembers().subset((*FOUR, "biotite", "magnetite"))
    fractions = rng.dirichlet([8, 4, 3, 4, 2, 0.1], size=30)
    properties = _forward(fractions, table)
    colour = Colour(
        _look(fractions, table, mixing, 0.8),
        std=1e-4,
        wetness=0.8,
        wetness_std=0.0,
        mixing=mixing,
        areal=0.0,
        areal_std=0.0,
    )
    without = unmix_properties(properties, table, "unconsolidated")
    result = unmix_properties(properties, table, "unconsolidated", colour=colour)
    assert (without.flags == MineralFlag.UNDERDETERMINED).all() and np.isinf(without.condition).all()
    assert not result.flags.any() and np.isfinite(result.condition).all()
    np.testing.assert_allclose(result.volume_pct, 100 * fractions, atol=0.2)
    assert np.abs(without.volume_pct - 100 * fractions).max() > 5
    np.testing.assert_allclose(result.volume_pct.sum(axis=1), 100, atol=1e-6)


def test_bilinear_light_between_patches_brightens_what_is_expected() -> None:
    table = load_endmembers().subset(FOUR)
    properties = _forward(np.array([[0.6, 0.15, 0.1, 0.15]]), table)
    r, share = table.colour[1:], np.array([0.375, 0.25, 0.375])
    pairs = [(0, 1), (0, 2), (1, 2)]
    dry = share @ r + 0.5 * sum(share[i] * share[j] * r[i] * r[j] for i, j in pairs)
    seen = Colour(dry[None, :], std=1e-3, wetness=0.0, wetness_std=0.0, mixing="bilinear")
    found = unmix_properties(properties, table, "unconsolidated", colour=seen)
    np.testing.assert_allclose(found.volume_pct[0], [60, 15, 10, 15], atol=0.5)
    assert found.residual[0] < 0.1


def test_colour_without_grain_sizes_is_left_out_and_said_so() -> None:
    table = replace(load_endmembers().subset(FOUR), grain_size_um=None)
    properties = _forward(np.array([[0.6, 0.1, 0.1, 0.2]]), table)
    colour = Colour(np.full((1, 3), 0.2))
    result = unmix_properties(properties, table, "unconsolidated", colour=colour)
    assert result.flags[0] & MineralFlag.COLOUR_UNUSED
    plain = unmix_properties(properties, table, "unconsolidated")
    np.testing.assert_array_equal(result.volume_pct, plain.volume_pct)
    patches = unmix_properties(properties, table, "unconsolidated", colour=replace(colour, mixing="linear"))
    assert not patches.flags[0] & MineralFlag.COLOUR_UNUSED


def test_impossible_reflectance_is_flagged_and_pure_water_has_no_colour() -> None:
    table = load_endmembers().subset(FOUR)
    properties = _forward(np.tile([[0.6, 0.1, 0.1, 0.2]], (2, 1)), table)
    seen = Colour(np.array([[0.2, 0.2, 0.2], [0.0, 1.5, np.inf]]))
    flags = unmix_properties(properties, table, "unconsolidated", colour=seen).flags
    assert not flags[0] & MineralFlag.NONPHYSICAL and flags[1] & MineralFlag.NONPHYSICAL
    water = unmix_properties(
        {"density": np.array([1.025])},
        table.subset(("pore_water",)),
        "unconsolidated",
        colour=Colour(seen.reflectance[:1]),
    )
    assert water.flags[0] == MineralFlag.COLOUR_UNUSED and water.volume_pct[0, 0] == 100


def test_correlated_errors_weigh_as_generalised_least_squares_says() -> None:
    table = load_endmembers().subset(("pore_water", "quartz"))
    properties = {"density": np.array([1.6]), "magnetic_susceptibility": np.array([-1.0])}
    covariance = np.diag([0.03**2, 25.0**2, 0.1**2])
    covariance[0, 2] = covariance[2, 0] = 0.8 * 0.03 * 0.1
    found = unmix_properties(properties, table, "unconsolidated", covariance=covariance)
    inverse = np.linalg.inv(covariance[np.ix_([0, 2], [0, 2])])
    pure = np.stack([table.density, table.susceptibility])
    change, gap = pure[:, 1] - pure[:, 0], np.array([1.6, -1.0]) - pure[:, 0]
    quartz = change @ inverse @ gap / (change @ inverse @ change)
    assert 0.1 < quartz < 0.9
    assert found.volume_pct[0, 1] == pytest.approx(100 * quartz, abs=1e-4)
    misfit = quartz * change - gap
    assert found.residual[0] == pytest.approx(np.sqrt(misfit @ inverse @ misfit), rel=1e-5)
    # The same, one per row; and independent errors are those of `std`.
    rows = unmix_properties(properties, table, "unconsolidated", covariance=covariance[None])
    np.testing.assert_array_equal(rows.volume_pct, found.volume_pct)
    std = {"density": 0.03, "p_wave_velocity": 25.0, "magnetic_susceptibility": 0.1}
    diagonal = np.diag([value**2 for value in std.values()])
    np.testing.assert_allclose(
        unmix_properties(properties, table, "unconsolidated", covariance=diagonal).volume_pct,
        unmix_properties(properties, table, "unconsolidated", std=std).volume_pct,
        atol=1e-9,
    )


def test_spread_of_endmembers_gives_a_property_less_weight() -> None:
    table = load_endmembers().subset(("pore_water", "illite"))
    assert table.spread is not None
    spread = np.zeros((2, 4))
    spread[1, 0] = 0.5  # the density of illite is anything
    table = replace(table, spread=spread)
    properties = {"density": np.array([1.6]), "magnetic_susceptibility": np.array([10.0])}
    exact = unmix_properties(properties, table, "unconsolidated")
    spread_counts = unmix_properties(properties, table, "unconsolidated", endmember_errors=True)
    by_density, by_susceptibility = (1.6 - 1.025) / (2.75 - 1.025), (10.0 + 0.9) / (41.0 + 0.9)
    # Variances of the two estimates of the fraction of illite, its own density's by that fraction.
    fraction = spread_counts.volume_pct[0, 1] / 100
    of_density = (0.02**2 + (0.5 * 2.75 * fraction) ** 2) / (2.75 - 1.025) ** 2
    weight = np.array([1 / of_density, (41.9 / 2.0) ** 2])
    expected = weight @ [by_density, by_susceptibility] / weight.sum()
    assert fraction == pytest.approx(expected, abs=1e-4)
    assert exact.volume_pct[0, 1] / 100 - fraction > 0.05
    assert spread_counts.residual[0] < exact.residual[0]


def test_a_log_takes_the_place_of_a_prediction() -> None:
    table = load_endmembers().subset(("pore_water", "quartz"))
    nan = np.nan
    logs = Logs({"density": np.array([1.9, nan, -1.0])}, {"density": 0.01})
    predicted = {"density": np.array([1.5, 1.5, 1.5]), "p_wave_velocity": np.full(3, nan)}
    found = unmix_properties(predicted, table, "unconsolidated", logs=logs)
    porosity = 100 * (2.65 - np.array([1.9, 1.5, 1.5])) / (2.65 - 1.025)
    np.testing.assert_allclose(found.volume_pct[:, 0], porosity, atol=1e-4)
    assert found.source[:, 0].tolist() == [Source.MEASURED, Source.PREDICTED, Source.PREDICTED]
    assert (found.source[:, 1:] == Source.NONE).all()
    assert (found.flags & MineralFlag.NONPHYSICAL).tolist() == [0, 0, MineralFlag.NONPHYSICAL]
    # A measured value is narrower than a predicted one, and shares no error with other predictions.
    wide = np.diag([0.2**2, 900.0, 4.0])
    narrow = unmix_properties(predicted, table, "unconsolidated", logs=logs, covariance=wide)
    widths = narrow.high_pct[:, 0] - narrow.low_pct[:, 0]
    assert widths[0] < 0.2 * widths[1] and widths[1] == widths[2]


def test_minerals_that_cannot_be_told_apart_share_and_are_flagged() -> None:
    table = load_endmembers().subset(("pore_water", "quartz", "calcite"))
    twins = Endmembers(
        ("pore_water", "quartz", "twin"),
        *(getattr(table, name)[[0, 1, 1]] for name in Endmembers.__slots__[1:]),
    )
    properties = _forward(np.array([[0.6, 0.4, 0.0]]), twins)
    for colour in (None, Colour(np.array([[0.4, 0.36, 0.28]]))):
        found = unmix_properties(properties, twins, "unconsolidated", colour=colour)
        assert found.flags[0] == MineralFlag.UNDERDETERMINED and np.isinf(found.condition[0])
        np.testing.assert_allclose(found.volume_pct[0], [60, 20, 20], atol=0.5)
        assert (found.width_pct[0, 1:] > 35).all() and found.width_pct[0, 0] < 10
        assert (found.low_pct[0, 1:] < 4).all() and (found.high_pct[0, 1:] > 36).all()


def test_nothing_measured_is_no_answer_in_every_column() -> None:
    nan = np.full(1, np.nan)
    for constraint in ("fcls", "nnls"):
        found = unmix_properties(
            {"density": nan},
            sediment_endmembers(),
            "lithified",
            colour=Colour(np.full((1, 3), np.nan)),
            constraint=constraint,
            endmember_errors=True,
        )
        assert found.flags[0] == MineralFlag.UNMEASURED
        for name in (
            "volume_pct",
            "dry_weight_pct",
            "width_pct",
            "low_pct",
            "high_pct",
            "residual",
            "condition",
        ):
            assert np.isnan(getattr(found, name)).all(), name


def test_contradictions_leave_a_residual_and_a_valid_answer() -> None:
    table = sediment_endmembers()
    properties = {
        "density": np.array([4.0]), "p_wave_velocity": np.array([1400.0]), "magnetic_susceptibility": np.array([-50.0])
    }  # fmt: skip
    for constraint in ("fcls", "nnls"):
        found = unmix_properties(properties, table, "unconsolidated", constraint=constraint)
        assert found.residual[0] > 10
        assert found.volume_pct.sum() == pytest.approx(100, abs=1e-6)
        assert (found.low_pct <= found.volume_pct).all() and (found.volume_pct <= found.high_pct).all()


def test_intervals_cover_their_own_model_and_do_not_depend_on_other_rows(rng: np.random.Generator) -> None:
    table = load_endmembers().subset(FOUR)
    fractions = rng.dirichlet(np.full(4, 0.5), size=300)
    properties = _forward(fractions, table)
    for name, std in (("density", 0.02), ("p_wave_velocity", 29.2), ("magnetic_susceptibility", 2.0)):
        properties[name] = properties[name] + std * rng.standard_normal(300)
    ridge = prior_ridge(4)
    found = unmix_properties(properties, table, "unconsolidated", ridge=ridge)
    truth = 100 * fractions
    covered = ((found.low_pct <= truth) & (truth <= found.high_pct)).mean()
    assert 0.85 < covered < 0.97
    assert (found.low_pct >= 0).all() and (found.high_pct <= 100 + 1e-9).all()
    few = unmix_properties(
        {k: v[7:9].copy() for k, v in properties.items()}, table, "unconsolidated", ridge=ridge
    )
    np.testing.assert_array_equal(few.high_pct, found.high_pct[7:9])
    np.testing.assert_array_equal(few.volume_pct, found.volume_pct[7:9])


def test_answers_do_not_depend_on_the_block_they_are_solved_in() -> None:
    table = sediment_endmembers()
    density = np.linspace(1.3, 2.2, 4099)
    seen = np.repeat(np.linspace(0.1, 0.5, 4099)[:, None], 3, axis=1)
    found = unmix_properties({"density": density}, table, "unconsolidated", colour=Colour(seen))
    last = unmix_properties(
        {"density": density[-3:].copy()}, table, "unconsolidated", colour=Colour(seen[-3:].copy())
    )
    np.testing.assert_array_equal(found.low_pct[-3:], last.low_pct)
    np.testing.assert_array_equal(found.width_pct[-3:], last.width_pct)


def test_a_stated_prior_decides_what_the_measurements_leave_open() -> None:
    table = load_endmembers().subset(FOUR)
    prior = np.array([0.6, 0.3, 0.05, 0.05])
    for constraint in ("fcls", "nnls"):
        found = unmix_properties(
            {"density": np.array([1.645])}, table, "unconsolidated", prior=prior, ridge=1.0,
            constraint=constraint,
        )  # fmt: skip
        np.testing.assert_allclose(found.volume_pct[0], 100 * prior, atol=2.5)
    even = unmix_properties({"density": np.array([1.645])}, table, "unconsolidated", ridge=1.0)
    assert abs(even.volume_pct[0, 1] - 30) > 10


def test_range_of_near_answers_is_one_deviation_of_a_determined_fraction() -> None:
    # x and 1 - x against one equation of slope 10: a deviation of 0.1.
    system = System(np.array([[4.0]]), np.array([[[10.0], [0.0]]]))
    low, high = near_answers(np.array([[0.4, 0.6]]), system)
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [0.3, 0.5], atol=1e-4)
    flat = System(np.array([[0.0]]), np.zeros((1, 2, 1)))
    low, high = near_answers(np.array([[0.4, 0.6]]), flat)
    np.testing.assert_allclose([low[0, 0], high[0, 0]], [0.0, 1.0], atol=1e-6)


def test_wrong_options_are_refused() -> None:
    table = sediment_endmembers()
    given = {"density": np.array([1.6])}
    negative = np.diag([1.0, 1.0, 1.0])
    negative[0, 0] = -1.0
    with pytest.raises(ContractError, match="positive definite"):
        unmix_properties(given, table, "unconsolidated", covariance=negative)
    with pytest.raises(ContractError, match="covariance"):
        unmix_properties(given, table, "unconsolidated", covariance=np.eye(6))
    with pytest.raises(ContractError, match="std"):
        unmix_properties(given, table, "unconsolidated", covariance=np.eye(3), std={"density": 0.1})
    with pytest.raises(ContractError, match="prior"):
        unmix_properties(given, table, "unconsolidated", prior=np.full(5, 0.5))
    with pytest.raises(ContractError, match="reflectance"):
        unmix_properties(given, table, "unconsolidated", colour=Colour(np.zeros((2, 3))))
    with pytest.raises(ContractError, match=r"logs\.values"):
        unmix_properties(given, table, "unconsolidated", logs=Logs({"density": np.ones(2)}, {}))
    with pytest.raises(ConfigError, match="painted"):
        Colour(np.zeros((1, 3)), mixing=cast(ColourMixing, "painted"))
    with pytest.raises(ConfigError, match="wetness"):
        Colour(np.zeros((1, 3)), wetness=1.5)
    with pytest.raises(ConfigError, match="guess"):
        unmix_properties(given, table, "unconsolidated", constraint=cast(Constraint, "guess"))
