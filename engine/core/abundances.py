"""Minerals of a section: what its segments were predicted, measured and seen to be, given to the solver."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.aggregate import segments_to_intervals
from lithostream.engine.core.intervals import prior_ridge
from lithostream.engine.core.join import Joined
from lithostream.engine.core.minerals import Endmembers
from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.unmix import (
    DEFAULT_STD,
    MIXING_LAW_STD,
    PROPERTIES,
    Colour,
    Logs,
    MineralResult,
    Regime,
    unmix_properties,
)
from lithostream.engine.manifest import Output

NORMAL_90 = 1.6449  # half width of the central 90 % of a normal distribution, in standard deviations

Floats = npt.NDArray[np.float64]


def segment_minerals(
    segments: WindowSegments,
    outside: npt.NDArray[np.bool_],
    outputs: Sequence[Output],
    measured: Mapping[str, Joined],
    endmembers: Endmembers,
    regime: Regime,
) -> MineralResult:
    """Solve the abundances of every segment.

    A sensor log takes the place of predictions over the depth it covers. Colour counts where it is calibrated.
    Nothing is given for a segment that is out of the model's domain.

    Parameters
    ----------
    segments : WindowSegments
        Their values are those of `outputs`, then the share of area out of domain.
    outside : bool [S]
        Segments out of domain.
    outputs : sequence of Output
    measured : mapping of target name to Joined
        The section's log on its intervals.
    endmembers : Endmembers
    regime : str
    """
    usable = np.where(outside[:, None], np.nan, segments.values[:, :-1])
    predicted = dict(zip((output.name for output in outputs), usable.T, strict=True))
    unknown = np.full(len(usable), np.nan)
    logs = {
        name: np.where(outside, np.nan, _over_segments(joined.value, segments.interval_pixels, len(usable)))
        for name, joined in measured.items()
        if name in PROPERTIES
    }
    seen = np.where(outside[:, None], np.nan, segments.reflectance)
    return unmix_properties(
        # Counts of elements follow no mixing law.
        {name: np.ascontiguousarray(predicted.get(name, unknown)) for name in PROPERTIES},
        endmembers,
        regime,
        std={
            output.name: math.hypot(output.half_width_90 / NORMAL_90, MIXING_LAW_STD[output.name])
            for output in outputs
            if output.name in PROPERTIES
        },
        ridge=prior_ridge(len(endmembers.names)),
        logs=Logs(logs, {name: DEFAULT_STD[name] for name in logs}) if logs else None,
        colour=Colour(seen) if np.isfinite(seen).any() else None,
        endmember_errors=True,
    )


def _over_segments(values: Floats, pixels: npt.NDArray[np.int64], segments: int) -> Floats:
    """Mean of the values [I] of the intervals that a segment shares, by shared pixels; NaN where none is known."""
    swapped = pixels[:, [1, 0, 2]]
    return segments_to_intervals(swapped, values[:, None], segments)[:, 0]
