import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.engine.core.minerals import load_endmembers, sediment_endmembers
from lithostream.engine.core.rockphysics import (
    bulk_density,
    hashin_shtrikman,
    modulus_velocity,
    p_wave_modulus,
    reuss,
    volume_susceptibility,
    wood_velocity,
    wyllie_velocity,
)

# Sea water at 1,500 m/s and quartz, 70 % porosity.
FRACTIONS = np.array([0.7, 0.3])
DENSITY = np.array([1.025, 2.65])
VELOCITY = np.array([1500.0, 6040.0])


def test_wyllie_and_wood_at_70_percent_porosity() -> None:
    assert wyllie_velocity(FRACTIONS, VELOCITY) == pytest.approx(1937, abs=1)
    assert wood_velocity(FRACTIONS, DENSITY, VELOCITY) == pytest.approx(1467, abs=2)


def test_wood_with_bulk_moduli_is_a_little_slower() -> None:
    bulk = np.array([p_wave_modulus(DENSITY, VELOCITY)[0], 36.6])
    classic = modulus_velocity(reuss(FRACTIONS, bulk), bulk_density(FRACTIONS, DENSITY))
    assert classic == pytest.approx(1456.4, abs=0.5)
    assert 1 - classic / wood_velocity(FRACTIONS, DENSITY, VELOCITY) == pytest.approx(0.008, abs=0.001)


def test_linear_laws_by_hand() -> None:
    assert bulk_density(FRACTIONS, DENSITY) == pytest.approx(0.7 * 1.025 + 0.3 * 2.65)
    fractions = np.array([0.9996, 0.0004])
    assert volume_susceptibility(fractions, np.array([-1.5, 300000.0])) == pytest.approx(120 - 1.4994)


def test_modulus_and_velocity_are_inverse() -> None:
    assert p_wave_modulus(np.array(2.65), np.array(6040.0)) == pytest.approx(96.68, abs=0.01)
    modulus = p_wave_modulus(DENSITY, VELOCITY)
    np.testing.assert_allclose(modulus_velocity(modulus, DENSITY), VELOCITY, rtol=1e-12)


def test_hashin_shtrikman_of_two_phases_matches_the_textbook_form() -> None:
    # Mavko et al., two phases: K1 + f2 / (1 / (K2 - K1) + f1 / (K1 + 4/3 G1)), phase 1 the stiff one.
    k1, g1, k2, g2 = 36.6, 45.0, 21.0, 7.0
    f2, f1 = 0.35, 0.65
    bounds = hashin_shtrikman(np.array([f1, f2]), np.array([k1, k2]), np.array([g1, g2]))
    upper = k1 + f2 / (1 / (k2 - k1) + f1 / (k1 + 4 / 3 * g1))
    lower = k2 + f1 / (1 / (k1 - k2) + f2 / (k2 + 4 / 3 * g2))
    shear = g1 + f2 / (1 / (g2 - g1) + 2 * f1 * (k1 + 2 * g1) / (5 * g1 * (k1 + 4 / 3 * g1)))
    assert bounds.upper_bulk == pytest.approx(upper, rel=1e-12)
    assert bounds.lower_bulk == pytest.approx(lower, rel=1e-12)
    assert bounds.upper_shear == pytest.approx(shear, rel=1e-12)
    assert bounds.lower_shear < bounds.upper_shear


def test_a_pure_phase_has_its_own_moduli() -> None:
    table = sediment_endmembers()
    bounds = hashin_shtrikman(np.eye(5), table.bulk_modulus, table.shear_modulus)
    for bulk, shear in ((bounds.lower_bulk, bounds.lower_shear), (bounds.upper_bulk, bounds.upper_shear)):
        np.testing.assert_allclose(bulk, table.bulk_modulus, rtol=1e-12)
        np.testing.assert_allclose(shear, table.shear_modulus, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(wyllie_velocity(np.eye(5), table.p_wave_velocity), table.p_wave_velocity)
    np.testing.assert_allclose(
        wood_velocity(np.eye(5), table.density, table.p_wave_velocity), table.p_wave_velocity
    )


def test_with_water_the_lower_bound_is_the_suspension() -> None:
    table = sediment_endmembers()
    fractions = np.array([0.65, 0.1, 0.05, 0.1997, 0.0003])
    bounds = hashin_shtrikman(fractions, table.bulk_modulus, table.shear_modulus)
    assert bounds.lower_shear == 0
    assert bounds.lower_bulk == pytest.approx(float(reuss(fractions, table.bulk_modulus)), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_enclose_and_are_ordered(seed: int) -> None:
    table = load_endmembers()
    fractions = np.random.default_rng(seed).dirichlet(np.ones(len(table.names)), size=(2, 3))
    bounds = hashin_shtrikman(fractions, table.bulk_modulus, table.shear_modulus)
    voigt = bulk_density(fractions, table.bulk_modulus)
    assert bounds.lower_bulk.shape == (2, 3)
    assert (reuss(fractions, table.bulk_modulus) <= bounds.lower_bulk * (1 + 1e-12)).all()
    assert (bounds.lower_bulk <= bounds.upper_bulk).all() and (bounds.upper_bulk <= voigt).all()
    assert (bounds.lower_shear <= bounds.upper_shear).all()
    density = bulk_density(fractions, table.density)
    stiff = modulus_velocity(bounds.upper_bulk + 4 / 3 * bounds.upper_shear, density)
    assert (wood_velocity(fractions, table.density, table.p_wave_velocity) <= stiff).all()
