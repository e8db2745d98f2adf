"""One generated section: what was scanned, and the truth about it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.minerals import Endmembers
from lithostream.engine.core.synthetic.layout import BoolArray, FloatArray, Layout
from lithostream.engine.errors import ConfigError

# Cells of the truth, cm: every edge of a layout lies on this step.
TRUTH_STEP_CM = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticCore:
    """One generated section; T truth cells of `TRUTH_STEP_CM` from the top of the scan, E endmembers.

    Attributes
    ----------
    name : str
        `SYN_<seed>_01`.
    seed : int
        What it was drawn from.
    layout : Layout
        Where core, gaps, caps and card lie.
    px_per_cm : float
        Scale of the image.
    image : uint8 [H, W, 3]
        8-bit sRGB; rows run down-core.
    core_mask : bool [H, W]
        True where the image shows core; cracks count, foam, liner, caps and card do not.
    is_core : bool [T]
        Cells that hold core; every property is NaN elsewhere.
    density, p_wave_velocity, magnetic_susceptibility : float64 [T]
        Mean over the width: g/cm3, m/s, 1e-5 SI.
    fractions : float64 [T, E]
        Volume fractions, in the order of `endmembers`.
    endmembers : Endmembers
        The components.
    """

    name: str
    seed: int
    layout: Layout
    px_per_cm: float
    image: npt.NDArray[np.uint8]
    core_mask: BoolArray
    is_core: BoolArray
    density: FloatArray
    p_wave_velocity: FloatArray
    magnetic_susceptibility: FloatArray
    fractions: FloatArray
    endmembers: Endmembers

    def truth_at(self, top_cm: float | FloatArray, base_cm: float | FloatArray) -> dict[str, FloatArray]:
        """Mean truth of the core within depth intervals.

        Parameters
        ----------
        top_cm, base_cm : float or float64 [N]
            Section offsets, top < base.

        Returns
        -------
        dict of str to float64 [N]
            The three properties, `<endmember>_volume_pct`, and `core_share`: how much of the interval is
            core. Means are over that core; NaN where there is none.
        """
        top, base = np.broadcast_arrays(np.atleast_1d(top_cm), np.atleast_1d(base_cm))
        if not (top < base).all():
            raise ConfigError("an interval has no height", fix="give top_cm < base_cm")
        share = self._integral(self.is_core.astype(float), top, base) / (base - top)
        result = {"core_share": share}
        for name, values in self._columns():
            with np.errstate(invalid="ignore"):
                known = self._integral(np.where(self.is_core, values, 0.0), top, base)
                result[name] = known / np.where(share > 1e-9, share * (base - top), np.nan)
        return result

    def _columns(self) -> Iterable[tuple[str, FloatArray]]:
        yield "density", self.density
        yield "p_wave_velocity", self.p_wave_velocity
        yield "magnetic_susceptibility", self.magnetic_susceptibility
        for name, values in zip(self.endmembers.names, self.fractions.T, strict=True):
            yield f"{name}_volume_pct", 100.0 * values

    def _integral(self, values: FloatArray, top: FloatArray, base: FloatArray) -> FloatArray:
        edges = np.arange(len(values) + 1) * TRUTH_STEP_CM
        total = np.concatenate([[0.0], np.cumsum(values) * TRUTH_STEP_CM])
        integral = np.interp(base, edges, total) - np.interp(top, edges, total)
        return np.asarray(integral, dtype=np.float64)
