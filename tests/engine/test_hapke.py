import numpy as np
import pytest

from lithostream.engine.core.hapke import BRIGHTEST, albedo, dry, reflectance, wet

SCALE = np.linspace(0.0, 1.0, 201)


def test_albedo_and_reflectance_undo_each_other() -> None:
    np.testing.assert_allclose(albedo(reflectance(SCALE)), SCALE, atol=1e-12)
    seen = np.linspace(0.0, BRIGHTEST, 201)
    np.testing.assert_allclose(reflectance(albedo(seen)), seen, atol=1e-12)
    assert (np.diff(reflectance(SCALE)) > 0).all()


def test_reflectance_is_hapkes_formula_with_its_limits() -> None:
    mu0, mu, w = np.cos(np.pi / 4), 1.0, 0.7

    def h(x: float) -> float:
        return float((1 + 2 * x) / (1 + 2 * x * np.sqrt(1 - w)))

    expected = w / 4 * h(mu0) * h(mu) / (mu0 + mu)
    assert reflectance(np.array([w]))[0] == pytest.approx(expected, rel=1e-12)
    # Dark grains scatter once: R = w / (4 (mu0 + mu)) times a factor that tends to one.
    faint = 1e-6
    assert reflectance(np.array([faint]))[0] == pytest.approx(faint / 4 / (mu0 + mu), rel=1e-5)
    assert reflectance(np.array([1.0]))[0] == pytest.approx(BRIGHTEST, rel=1e-12)
    assert 1.0 < BRIGHTEST < 1.1


@pytest.mark.parametrize("wetness", [0.0, 0.3, 1.0])
def test_wet_and_dry_undo_each_other(wetness: float) -> None:
    np.testing.assert_allclose(dry(wet(SCALE, wetness), wetness), SCALE, atol=1e-12)
    assert (np.diff(wet(SCALE, wetness)) > 0).all()


def test_a_film_of_water_darkens_most_what_absorbs_most() -> None:
    np.testing.assert_array_equal(wet(SCALE, 0.0), SCALE)
    inside = SCALE[1:]
    ratio = wet(inside) / inside
    assert (np.diff(ratio) > 0).all() and ratio[-1] == pytest.approx(1 - 0.021, abs=1e-9)
    # Lekner and Dorf (1988): p = 1 - (1 - 0.067) / n^2 of what comes from below is returned.
    assert ratio[0] == pytest.approx((1 - 0.021) * (1 - 0.067) / 1.34**2, rel=0.01)
    # Absorbed and reflected add up: what a film adds to the absorption is found below it.
    r, p, s = 0.4, 1 - (1 - 0.067) / 1.34**2, 0.021
    absorbed = (1 - s) * (1 - r) / (1 - p * r)
    assert wet(np.array([r]))[0] == pytest.approx(1 - s - absorbed, rel=1e-12)
