"""How far mineral abundances lie from the truth, beside plain NNLS, on mixtures that follow other laws than the solver.

    python bench/mineral_mixtures.py                          # the reported seeds, 0 to 9
    python bench/mineral_mixtures.py --seeds 100 101 102      # to look at while working on the solver

The truth is drawn as follows, and none of it is what the solver assumes:

* velocity: unconsolidated by the modified lower Hashin-Shtrikman bound (soft sand: grain contacts of Hertz and
  Mindlin at 0.1 MPa, Gassmann's water) or, for half of the rows, by Wood with *bulk* moduli; lithified by the mean of the Hashin-Shtrikman bounds of the moduli;
* every row draws its endmembers' values from their spread, and its grain sizes from their range;
* colour: Hapke's bidirectional reflectance with his second, closer approximation of H (2002) at angles drawn from 30 to
  60 degrees, blended grain by grain and patch by patch in random shares; wet by Twomey, Bohren and Mergenthaler (1986,
  Applied Optics 25, 431-437): grains in water scatter forward; over a random share, 0 to 1, of the surface;
* measurement errors: 0.03 g/cm3, 20 m/s, 2e-5 SI + 5 %, 0.01 reflectance (calibrated), of which density and colour share a
  part as predictions from the same pixels do.

The solver is told the errors of measurement and the endmember table, and takes as prior an even mixture with the
variance of Jeffreys' prior; of wetness and of patches it knows nothing. The generator draws porosity 40 to 85 % (unconsolidated) or 3 to 30 % (lithified), the solids
evenly from all mixtures, and magnetite 0.001 to 0.5 % of them.

The peer is the flow of the core-colour study: colour, density, velocity and susceptibility side by side, each scaled to
the range 0 to 1 that it has over segments and endmembers, NNLS, shares normalised. Water has no colour of its own: the peer
gets the better, by its own error, of black and of the mean of the other endmembers.
"""

import argparse
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.equations import ColourMixing
from lithostream.engine.core.intervals import Constraint, prior_ridge
from lithostream.engine.core.minerals import Endmembers, load_endmembers
from lithostream.engine.core.rockphysics import hashin_shtrikman, modulus_velocity, reuss
from lithostream.engine.core.unmix import PROPERTIES, Colour, MineralResult, Regime, unmix_properties
from lithostream.kernels import nnls

MINERALS = ("pore_water", "quartz", "plagioclase", "calcite", "illite", "magnetite")
REGIMES: tuple[Regime, ...] = ("unconsolidated", "lithified")
# Errors of what is measured: density, velocity, susceptibility, three channels; correlation of density and colour.
ERRORS = np.array([0.03, 20.0, 2.0, 0.01, 0.01, 0.01])
RELATIVE_KAPPA, CORRELATION, LAW_VELOCITY = 0.05, 0.5, 25.0

Floats = npt.NDArray[np.float64]


class Mixtures(NamedTuple):
    """Truth [N, E], measured properties [N, 3], calibrated reflectance [N, 3], uncalibrated 8-bit sRGB / 255 [N, 3]."""

    fractions: Floats
    properties: Floats
    reflectance: Floats
    raw: Floats


def generate(seed: int, rows: int, regime: Regime, table: Endmembers) -> Mixtures:
    """Draw mixtures and what instruments read of them."""
    rng = np.random.default_rng([seed, REGIMES.index(regime)])
    porosity = rng.uniform(*((0.40, 0.85) if regime == "unconsolidated" else (0.03, 0.30)), rows)
    magnetite = 10 ** rng.uniform(-5.0, np.log10(0.005), rows)
    rocks = rng.dirichlet(np.ones(len(MINERALS) - 2), rows) * (1.0 - magnetite[:, None])
    solids = np.column_stack([rocks, magnetite])
    fractions = np.column_stack([porosity, (1.0 - porosity)[:, None] * solids])
    assert table.spread is not None and table.grain_size_um is not None
    spread = np.nan_to_num(table.spread)
    deviate = rng.standard_normal((rows, len(MINERALS), 4))
    rho = table.density * (1.0 + spread[:, 0] * deviate[:, :, 0].clip(-2, 2))
    kappa = table.susceptibility * np.exp(spread[:, 2] * deviate[:, :, 2].clip(-2, 2))
    stiff = (1.0 + spread[:, 1] * deviate[:, :, 1].clip(-2, 2)) ** 2 * rho / table.density
    bulk, shear = table.bulk_modulus * stiff, table.shear_modulus * stiff
    density = (fractions * rho).sum(axis=1)
    velocity = np.array(
        [
            _velocity(regime, f, k, g, r, bool(soft))
            for f, k, g, r, soft in zip(fractions, bulk, shear, density, rng.random(rows) < 0.5, strict=True)
        ]
    )
    low, high = np.log(table.grain_size_um[1:, 1]), np.log(table.grain_size_um[1:, 2])
    size = np.exp(rng.uniform(low, high, (rows, len(low))))
    pure = (table.colour[1:] * np.exp(spread[1:, 3] * deviate[:, 1:, 3])[:, :, None]).clip(0.01, 0.92)
    pure = (pure * np.exp(0.03 * rng.standard_normal(pure.shape))).clip(0.01, 0.92)
    reflectance = _colour(rng, solids, size, pure)
    noise = ERRORS * rng.standard_normal((rows, 6))
    shared = rng.standard_normal(rows)
    for place in (0, 3, 4, 5):
        part = np.sqrt(CORRELATION) * shared + np.sqrt(1.0 - CORRELATION) * noise[:, place] / ERRORS[place]
        noise[:, place] = ERRORS[place] * part
    susceptibility = (fractions * kappa).sum(axis=1)
    noise[:, 2] *= np.hypot(1.0, RELATIVE_KAPPA * np.abs(susceptibility) / ERRORS[2])
    seen = (reflectance + noise[:, 3:]).clip(0.005, 1.0)
    # An uncalibrated camera: unknown exposure and white balance, sRGB gamma.
    camera = (seen * np.exp(0.15 * rng.standard_normal(()) + 0.05 * rng.standard_normal(3))).clip(0, 1)
    raw = np.where(camera <= 0.0031308, 12.92 * camera, 1.055 * camera ** (1 / 2.4) - 0.055)
    properties = np.column_stack([density, velocity, susceptibility]) + noise[:, :3]
    return Mixtures(fractions, properties, seen, raw)


def _velocity(regime: Regime, f: Floats, bulk: Floats, shear: Floats, density: float, soft: bool) -> float:
    """Velocity of one row, m/s: Mavko, Mukerji and Dvorkin (2009), sections 4.1, 5.4 and 5.5."""
    if regime == "lithified":
        k, g = _mean_of_bounds(f, bulk, shear)
        return float(modulus_velocity(np.asarray(k + 4.0 / 3.0 * g), np.asarray(density)))
    if soft:
        return float(modulus_velocity(reuss(f, bulk), np.asarray(density)))
    k, g = _mean_of_bounds(f[1:] / f[1:].sum(), bulk[1:], shear[1:])
    critical, contacts, pressure, porosity = 0.85, 4.0, 1e-4, float(f[0])  # GPa: 0.1 MPa, a few metres deep
    poisson = (3.0 * k - 2.0 * g) / (2.0 * (3.0 * k + g))
    common = (contacts * (1.0 - critical) * g / (np.pi * (1.0 - poisson))) ** 2 * pressure
    k_dry = (common / 18.0) ** (1 / 3)
    g_dry = (5.0 - 4.0 * poisson) / (5.0 * (2.0 - poisson)) * (1.5 * common) ** (1 / 3)
    share = min(porosity / critical, 1.0)
    around = 4.0 / 3.0 * g_dry
    frame = 1.0 / (share / (k_dry + around) + (1.0 - share) / (k + around)) - around
    z = g_dry / 6.0 * (9.0 * k_dry + 8.0 * g_dry) / (k_dry + 2.0 * g_dry)
    rigid = 1.0 / (share / (g_dry + z) + (1.0 - share) / (g + z)) - z
    # Gassmann: water fills the frame.
    biot = 1.0 - frame / k
    wet = frame + biot**2 / (porosity / bulk[0] + (1.0 - porosity) / k - frame / k**2)
    return float(modulus_velocity(np.asarray(wet + 4.0 / 3.0 * rigid), np.asarray(density)))


def _mean_of_bounds(f: Floats, bulk: Floats, shear: Floats) -> tuple[float, float]:
    bounds = hashin_shtrikman(f, bulk, shear)
    return (
        float(0.5 * (bounds.lower_bulk + bounds.upper_bulk)),
        float(0.5 * (bounds.lower_shear + bounds.upper_shear)),
    )


def _hapke(albedo: Floats, mu0: Floats, mu: Floats) -> Floats:
    """Reflectance factor with the H function of Hapke (2002), Icarus 157, 523-534, equation 13."""

    def h(x: Floats) -> Floats:
        g = np.sqrt(1.0 - albedo)
        r0 = (1.0 - g) / (1.0 + g)
        return np.asarray(
            1.0 / (1.0 - albedo * x * (r0 + (1.0 - 2.0 * r0 * x) / 2.0 * np.log((1.0 + x) / x)))
        )

    return np.asarray(albedo / 4.0 * h(mu0) * h(mu) / (mu0 + mu))


def _albedo_of(reflectance: Floats, mu0: Floats, mu: Floats) -> Floats:
    low, high = np.zeros_like(reflectance), np.ones_like(reflectance)
    for _ in range(40):
        middle = 0.5 * (low + high)
        darker = _hapke(middle, mu0, mu) < reflectance
        low, high = np.where(darker, middle, low), np.where(darker, high, middle)
    return 0.5 * (low + high)


def _colour(rng: np.random.Generator, solids: Floats, size: Floats, pure: Floats) -> Floats:
    """Reflectance [N, 3] of partly blended, partly wet surfaces."""
    rows = len(solids)
    mu0, mu = np.cos(np.radians(rng.uniform(30, 60, (rows, 1)))), np.ones((rows, 1))
    albedo = np.stack([_albedo_of(part, mu0, mu) for part in np.moveaxis(pure, 1, 0)], axis=1)  # [N, E, 3]
    section = solids / size
    section /= section.sum(axis=1, keepdims=True)
    blended = np.einsum("ne,nec->nc", section, albedo)
    forward = rng.uniform(0.3, 0.6, (rows, 1))  # asymmetry of a grain's scattering in water, 0 in air
    wetness = rng.uniform(0, 1, (rows, 1))
    patches = rng.uniform(0, 1, (rows, 1))

    def look(w: Floats) -> Floats:
        drowned = w * (1.0 - forward) / (1.0 - w * forward)  # similarity
        return (1.0 - wetness) * _hapke(w, mu0, mu) + wetness * _hapke(drowned, mu0, mu)

    side_by_side = np.einsum(
        "ne,nec->nc", solids, np.stack([look(w) for w in np.moveaxis(albedo, 1, 0)], axis=1)
    )
    return np.asarray(patches * side_by_side + (1.0 - patches) * look(blended))


def plain_nnls(mixtures: Mixtures, table: Endmembers, raw: bool) -> Floats:
    """Shares [N, E] by the study's own flow."""
    colour = mixtures.raw if raw else mixtures.reflectance
    segments = np.concatenate([colour, mixtures.properties], axis=1)
    pure = np.column_stack([table.density, table.p_wave_velocity, table.susceptibility])
    answers = []
    for water in (np.zeros(3), np.nanmean(table.colour, axis=0)):
        colours = np.where(np.isnan(table.colour), water, table.colour)
        both = np.concatenate([segments, np.concatenate([colours, pure], axis=1)])
        scaled = (both - both.min(axis=0)) / np.ptp(both, axis=0)
        found = nnls(scaled[: len(segments)], scaled[len(segments) :].copy()).abundances
        total = found.sum(axis=1, keepdims=True)
        answers.append(np.where(total > 0, found / np.where(total > 0, total, 1.0), 1.0 / len(MINERALS)))
    return min(answers, key=lambda found: float(np.abs(found - mixtures.fractions).mean()))


def solved(
    mixtures: Mixtures,
    table: Endmembers,
    regime: Regime,
    mixing: ColourMixing | None,
    constraint: Constraint = "fcls",
    pure: bool = False,
) -> MineralResult:
    """Answer of the solver, without colour where `mixing` is None; `pure` takes blended grains for granted."""
    errors = ERRORS.copy()
    errors[1] = np.hypot(errors[1], LAW_VELOCITY)
    correlation = np.eye(6)
    optical = [0, 3, 4, 5]
    correlation[np.ix_(optical, optical)] = CORRELATION
    np.fill_diagonal(correlation, 1.0)
    covariance = np.broadcast_to(
        correlation * np.outer(errors, errors), (len(mixtures.fractions), 6, 6)
    ).copy()
    covariance[:, 2, 2] += (RELATIVE_KAPPA * mixtures.properties[:, 2]) ** 2
    used = 3 if mixing is None else 6
    seen = None
    if mixing is not None:
        seen = Colour(mixtures.reflectance, mixing=mixing)
        if pure:
            seen = replace(seen, areal=0.0, areal_std=0.0)
    return unmix_properties(
        {name: mixtures.properties[:, place].copy() for place, name in enumerate(PROPERTIES)},
        table,
        regime,
        covariance=covariance[:, :used, :used].copy(),
        colour=seen,
        ridge=prior_ridge(len(MINERALS)),
        endmember_errors=True,
        constraint=constraint,
    )


class Score(NamedTuple):
    """Mean absolute error, %; its ratio to that of the peer; coverage and mean width, %, of the intervals."""

    error_pct: float
    ratio: float
    coverage: float
    width_pct: float
    worst_sum: float


METHODS: dict[str, tuple[ColourMixing | None, Constraint, bool]] = {
    "no colour, FCLS": (None, "fcls", False),
    "no colour, NNLS": (None, "nnls", False),
    "Hapke, FCLS": ("hapke", "fcls", False),
    "Hapke, NNLS": ("hapke", "nnls", False),
    "pure Hapke, FCLS": ("hapke", "fcls", True),
    "linear, FCLS": ("linear", "fcls", False),
    "bilinear, FCLS": ("bilinear", "fcls", False),
}


def study(seeds: list[int], rows: int, regime: Regime, methods: list[str]) -> dict[str, Score]:
    """Scores of every method over all seeds; the peer is "plain NNLS" (and, with calibrated colour, its own row)."""
    table = load_endmembers().subset(MINERALS)
    mixtures = Mixtures(
        *map(np.concatenate, zip(*(generate(s, rows, regime, table) for s in seeds), strict=True))
    )
    truth = 100.0 * mixtures.fractions
    scores: dict[str, Score] = {}
    peer = np.nan
    for name, raw in (("plain NNLS, raw colour", True), ("plain NNLS, calibrated", False)):
        error = float(np.abs(100.0 * plain_nnls(mixtures, table, raw) - truth).mean())
        peer = error if raw else peer
        scores[name] = Score(error, error / peer, np.nan, np.nan, np.nan)
    for name in methods:
        result = solved(mixtures, table, regime, *METHODS[name])
        error = float(np.abs(result.volume_pct - truth).mean())
        covered = (result.low_pct <= truth) & (truth <= result.high_pct)
        width = float((result.high_pct - result.low_pct).mean())
        worst = float(np.abs(result.volume_pct.sum(axis=1) - 100.0).max())
        scores[name] = Score(error, error / peer, float(covered.mean()), width, worst)
    trivial = {"the prior itself": np.full(truth.shape, 100.0 / len(MINERALS))}
    trivial["porosity, even solids"] = 100.0 * _porosity_alone(mixtures, table)
    for name, guess in trivial.items():
        error = float(np.abs(guess - truth).mean())
        scores[name] = Score(error, error / peer, np.nan, np.nan, np.nan)
    return scores


def _porosity_alone(mixtures: Mixtures, table: Endmembers) -> Floats:
    """What density alone says: pore water, and its solids in equal parts without magnetite."""
    grain = table.density[1:-1].mean()
    water = ((grain - mixtures.properties[:, 0]) / (grain - table.density[0])).clip(0.0, 1.0)
    solids = np.repeat((1.0 - water)[:, None] / (len(MINERALS) - 2), len(MINERALS) - 2, axis=1)
    return np.column_stack([water, solids, np.zeros(len(water))])


def main() -> None:
    """Print one table per regime."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--rows", type=int, default=500, help="mixtures per seed")
    given = parser.parse_args()
    for regime in REGIMES:
        print(f"{regime}: MAE %, of plain NNLS, coverage of 90 % intervals, their width %, worst sum - 100")
        for name, score in study(given.seeds, given.rows, regime, list(METHODS)).items():
            print(f"  {name:24s}" + "  ".join(f"{value:8.3g}" for value in score))


if __name__ == "__main__":
    main()
