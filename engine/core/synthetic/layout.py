"""Where core, caps, lost stretches and colour card lie in a generated scan."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_TOP_CM, _CAP_CM, _WALL_CM, _BENCH_CM = 1.0, 0.6, 0.45, 0.6
_SHORTEST_CORE_CM = 5.0
# A foam block in about every second stretch of this length; both of its edges lie well inside.
_STRETCH_CM = 30.0
_GAP_CM = (1.5, 5.0)
_CARD_ROWS, _CARD_COLS = 4, 6
# Every edge lies on this step, the one of the truth.
_EDGE_STEP_CM = 0.1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in the scan, cm from its top left corner.

    Attributes
    ----------
    length_cm, width_cm : float
        Size of the scan.
    core_top_cm, core_base_cm : float
        The core, end caps excluded.
    wall_cm : float
        Width of the liner at each side.
    cap_cm : float
        Thickness of each end cap.
    gaps_cm : tuple of (float, float)
        Top and base of every foam block: core that was lost.
    card_top_cm, card_pitch_cm : float
        Upper edge of the colour card and size of its patches, 4 rows of 6.
    """

    length_cm: float
    width_cm: float
    core_top_cm: float
    core_base_cm: float
    wall_cm: float
    cap_cm: float
    gaps_cm: tuple[tuple[float, float], ...]
    card_top_cm: float
    card_pitch_cm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, length_cm: float, width_cm: float) -> "Layout":
        """Draw the gaps of a scan of `length_cm` by `width_cm`.

        Raises
        ------
        ConfigError
            The scan is too small to hold a core above the colour card.
        """
        pitch = (width_cm - _BENCH_CM) / _CARD_COLS
        card_top = length_cm - _CARD_ROWS * pitch - 0.5 * _BENCH_CM
        base = np.floor((card_top - _BENCH_CM - _CAP_CM) / _EDGE_STEP_CM) * _EDGE_STEP_CM
        if width_cm < 4 * _WALL_CM or base - _TOP_CM < _SHORTEST_CORE_CM:
            shortest = _SHORTEST_CORE_CM + length_cm - base + _TOP_CM
            raise ConfigError(
                f"a scan of {length_cm} cm by {width_cm} cm has no room for a core above the colour card",
                fix=f"make it at least {4 * _WALL_CM:.1f} cm wide and about {shortest:.0f} cm long",
            )
        gaps = []
        for start in np.arange(_TOP_CM, base - _STRETCH_CM, _STRETCH_CM):
            size, at = rng.uniform(*_GAP_CM), rng.uniform(0.2, 0.8)
            if rng.random() < 0.5:
                top = start + at * (_STRETCH_CM - size)
                gaps.append((round(float(top), 1), round(float(top + size), 1)))
        return cls(
            length_cm=length_cm,
            width_cm=width_cm,
            core_top_cm=_TOP_CM,
            core_base_cm=round(float(base), 1),
            wall_cm=_WALL_CM,
            cap_cm=_CAP_CM,
            gaps_cm=tuple(gaps),
            card_top_cm=card_top,
            card_pitch_cm=pitch,
        )

    def is_core(self, y_cm: FloatArray) -> BoolArray:
        """Whether each depth holds core, bool [h]."""
        core = (y_cm >= self.core_top_cm) & (y_cm < self.core_base_cm)
        for top, base in self.gaps_cm:
            core &= (y_cm < top) | (y_cm >= base)
        return core
