"""Generated core sections with known truth: image, sensor log and properties from one physical model.

A sequence of layers of mineral fractions decides everything: density and susceptibility by volume, velocity
from its elastic moduli, colour and texture from optics and grain size. What the camera and the sensors see
is therefore related as in nature: closely, but not exactly.
"""

import numpy as np

from lithostream.engine.core import rockphysics
from lithostream.engine.core.minerals import PORE_WATER, Endmembers, sediment_endmembers
from lithostream.engine.core.synthetic.bending import Bending
from lithostream.engine.core.synthetic.files import SCANNER, SENSORS, Sensor, sensor_log, write
from lithostream.engine.core.synthetic.layers import draw_sequence
from lithostream.engine.core.synthetic.layout import FloatArray, Layout
from lithostream.engine.core.synthetic.painter import Painter
from lithostream.engine.core.synthetic.section import TRUTH_STEP_CM, SyntheticCore
from lithostream.engine.errors import ConfigError

__all__ = ["SCANNER", "SENSORS", "Layout", "Sensor", "SyntheticCore", "generate", "sensor_log", "write"]

# Share of the way from the softest (Reuss) to the stiffest (Hashin-Shtrikman) arrangement of the grains, per
# volume of solids: mud is a suspension with few load-bearing contacts, fewer the more water it holds.
_STIFFNESS = 0.03
# Velocity scatter that composition does not explain: relative, and the length over which it changes.
_SCATTER, _SCATTER_CM = 0.0025, 2.0
_COARSEST_PX_PER_CM = 4.0


def generate(seed: int, *, length_cm: float, width_cm: float, px_per_cm: float) -> SyntheticCore:
    """Draw one core section and scan it.

    The same seed and size give the same core at any scale, and the same bytes at the same scale.

    Parameters
    ----------
    seed : int
        From 0.
    length_cm, width_cm : float
        Size of the scan, end caps, liner and colour card included.
    px_per_cm : float
        Scale along both axes.

    Raises
    ------
    ConfigError
        The scan is too small to hold a core and the card, or coarser than 4 pixels per cm.
    """
    if not px_per_cm >= _COARSEST_PX_PER_CM:
        raise ConfigError(
            f"{px_per_cm} px/cm shows no sediment", fix=f"ask for {_COARSEST_PX_PER_CM:g} px/cm or more"
        )
    layout = Layout.draw(np.random.default_rng([seed, 0]), length_cm, width_cm)
    rng = np.random.default_rng([seed, 3])
    endmembers = sediment_endmembers()
    sequence = draw_sequence(rng, length_cm)
    bending = Bending.draw(rng, (length_cm, width_cm), layout.wall_cm)
    image, mask = Painter(seed, layout, sequence, bending, endmembers, px_per_cm).paint()
    cells = np.arange(round(length_cm / TRUTH_STEP_CM), dtype=np.float64)
    cell_cm = (cells + 0.5) * TRUTH_STEP_CM
    is_core = layout.is_core(cell_cm)
    across = np.linspace(layout.wall_cm, width_cm - layout.wall_cm, 49)[1::2]
    seen = sequence.fractions[sequence.index(bending.depth_cm(cell_cm, across))]  # [T, 24, E]
    fractions = np.where(is_core[:, None], seen.mean(axis=1), np.nan)
    return SyntheticCore(
        name=f"SYN_{seed:04d}_01",
        seed=seed,
        layout=layout,
        px_per_cm=px_per_cm,
        image=image,
        core_mask=mask,
        is_core=is_core,
        density=rockphysics.bulk_density(fractions, endmembers.density),
        p_wave_velocity=_velocity(rng, fractions, endmembers),
        magnetic_susceptibility=rockphysics.volume_susceptibility(fractions, endmembers.susceptibility),
        fractions=fractions,
        endmembers=endmembers,
    )


def _velocity(rng: np.random.Generator, fractions: FloatArray, endmembers: Endmembers) -> FloatArray:
    """Velocity of a nearly, but not quite, loose suspension; NaN where there is no core."""
    core = ~np.isnan(fractions[:, 0])
    mixed = fractions[core]
    loose = rockphysics.reuss(mixed, endmembers.bulk_modulus)
    stiff = rockphysics.hashin_shtrikman(mixed, endmembers.bulk_modulus, endmembers.shear_modulus)
    contacts = _STIFFNESS * (1.0 - mixed[:, endmembers.names.index(PORE_WATER)])
    modulus = loose + contacts * (stiff.upper_bulk - loose + 4.0 / 3.0 * stiff.upper_shear)
    position = np.arange(len(fractions)) * TRUTH_STEP_CM / _SCATTER_CM
    knots = rng.standard_normal(int(position[-1]) + 2)
    scatter = 1.0 + _SCATTER * np.interp(position, np.arange(len(knots)), knots)
    velocity = np.full(len(fractions), np.nan)
    density = rockphysics.bulk_density(mixed, endmembers.density)
    velocity[core] = rockphysics.modulus_velocity(modulus, density) * scatter[core]
    return velocity
