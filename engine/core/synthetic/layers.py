"""The geology of a generated core: layers, and their mineral fractions."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Step of the undisturbed sequence, cm.
STEP_CM = 0.01
# Layers reach this far beyond the core at both ends, so that bent layers never run out, cm.
MARGIN_CM = 4.0
_POROSITY = (0.36, 0.79)
# Volume share of the solids; 1.3e-3 of them at 60 % porosity reads 156e-5 SI.
_MAGNETITE_MAX = 1.4e-3


@dataclass(frozen=True, slots=True)
class Lithology:
    """A kind of sediment: mean composition and look.

    Attributes
    ----------
    share : float
        Frequency among layers.
    quartz, calcite, illite : float
        Mean volume shares of the solids; sum 1.
    magnetite : float
        Median volume share of the solids.
    porosity : float
        Mean porosity.
    grain_mm : float
        Typical size of what can be seen as grains.
    fines_upward : bool
        True for event beds: a sharp base that grades into the mud above.
    """

    share: float
    quartz: float
    calcite: float
    illite: float
    magnetite: float
    porosity: float
    grain_mm: float
    fines_upward: bool


# After common hemipelagic sequences: porosity falls with grain size, iron oxides travel with sand.
LITHOLOGIES = (
    Lithology(0.30, 0.22, 0.08, 0.70, 1.2e-4, 0.73, 0.02, False),  # clay
    Lithology(0.28, 0.38, 0.10, 0.52, 2.0e-4, 0.64, 0.05, False),  # silty clay
    Lithology(0.18, 0.24, 0.48, 0.28, 8.0e-5, 0.66, 0.06, False),  # marl and ooze
    Lithology(0.16, 0.80, 0.06, 0.14, 4.0e-4, 0.46, 0.30, True),  # turbidite sand
    Lithology(0.08, 0.62, 0.04, 0.34, 1.0e-3, 0.54, 0.20, True),  # dark, heavy-mineral sand or ash
)


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Undisturbed sediment on a fixed step along depth.

    Attributes
    ----------
    start_cm : float
        Depth of the first sample.
    fractions : float64 [S, 5]
        Volume fractions in the order of `SEDIMENT`; rows sum to one.
    grain_mm : float64 [S]
        Size of visible grains.
    stain : float64 [S]
        Pigment that has no density: organic matter and iron sulphide, 0..1.
    boundaries_cm : float64 [L - 1]
        Depths of the layer boundaries.
    """

    start_cm: float
    fractions: FloatArray
    grain_mm: FloatArray
    stain: FloatArray
    boundaries_cm: FloatArray

    def index(self, depth_cm: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        """Nearest sample of each depth; the ends hold beyond them."""
        nearest = np.rint((depth_cm - self.start_cm) / STEP_CM)
        return np.asarray(np.clip(nearest, 0, len(self.stain) - 1), dtype=np.intp)


def draw_sequence(rng: np.random.Generator, length_cm: float) -> Sequence:
    """Draw layers of 0.5 to 15 cm that cover `length_cm` and a margin at both ends."""
    thickness: list[float] = []
    while sum(thickness) < length_cm + 2 * MARGIN_CM:
        thickness.append(float(np.clip(rng.lognormal(np.log(3.2), 0.75), 0.5, 15.0)))
    tops = np.concatenate([[0.0], np.cumsum(thickness)]) - MARGIN_CM
    kinds = rng.choice(len(LITHOLOGIES), size=len(thickness), p=[kind.share for kind in LITHOLOGIES])
    knots, values = _knots(rng, tops, kinds)
    depth = np.arange(-MARGIN_CM, length_cm + MARGIN_CM, STEP_CM)
    columns = np.stack([np.interp(depth, knots, column) for column in values.T])
    quartz, calcite, illite, magnetite, porosity, log_grain, stain, lamination = columns
    # Laminae swap clay for silt; what they add and remove is the same volume.
    swing = lamination * _smooth_noise(rng, len(depth), rng.uniform(0.08, 0.35))
    swap = np.clip(swing, -0.6 * quartz, 0.6 * illite)
    porosity = porosity - 0.25 * swap + 0.008 * _smooth_noise(rng, len(depth), 1.5)
    porosity = np.clip(porosity, *_POROSITY)
    solids = np.stack([quartz + swap, calcite, illite - swap], axis=1) * (1.0 - magnetite[:, None])
    solids = np.column_stack([solids, magnetite])
    fractions = np.column_stack([porosity, solids * (1.0 - porosity[:, None])])
    fractions /= fractions.sum(axis=1, keepdims=True)
    return Sequence(-MARGIN_CM, fractions, np.exp(log_grain), stain, tops[1:-1])


def _knots(
    rng: np.random.Generator, tops: FloatArray, kinds: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Depths and values between which the sequence is linear: both ends of every layer."""
    knots, values = [], []
    stain = 0.4
    for top, base, index in zip(tops[:-1], tops[1:], kinds, strict=True):
        kind = LITHOLOGIES[index]
        stain = float(np.clip(0.4 + 0.75 * (stain - 0.4) + 0.16 * rng.standard_normal(), 0.0, 1.0))
        below = _draw_layer(rng, kind, stain)
        above = _draw_layer(rng, LITHOLOGIES[0], stain)
        # Event beds end as mud; others are even within themselves.
        top_value = 0.35 * below + 0.65 * above if kind.fines_upward else below
        blur = 0.05 if kind.fines_upward or rng.random() < 0.4 else rng.uniform(0.1, 0.45) * (base - top)
        inset = min(blur, 0.45 * (base - top))
        knots += [top + min(inset, 0.2 * (base - top)), base - inset]
        values += [top_value, below]
    return np.array(knots), np.array(values)


def _draw_layer(rng: np.random.Generator, kind: Lithology, stain: float) -> FloatArray:
    """One layer: quartz, calcite, illite, magnetite, porosity, log grain size, stain, lamination."""
    solids = rng.dirichlet(40.0 * np.array([kind.quartz, kind.calcite, kind.illite]))
    magnetite = min(kind.magnetite * rng.lognormal(0.0, 0.4), _MAGNETITE_MAX)
    porosity = float(np.clip(kind.porosity + 0.035 * rng.standard_normal(), *_POROSITY))
    grain = np.log(kind.grain_mm) + 0.25 * rng.standard_normal()
    lamination = rng.uniform(0.02, 0.08) if rng.random() < 0.35 else 0.01
    return np.array([*solids, magnetite, porosity, grain, stain, lamination])


def _smooth_noise(rng: np.random.Generator, count: int, cell_cm: float) -> FloatArray:
    """Noise of unit amplitude along depth, linear between knots `cell_cm` apart."""
    knots = np.arange(0.0, count * STEP_CM + 2 * cell_cm, cell_cm)
    values = np.interp(np.arange(count) * STEP_CM, knots, rng.standard_normal(len(knots)))
    return np.asarray(values, dtype=np.float64)
