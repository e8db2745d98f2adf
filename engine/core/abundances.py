"""Minerals of a section: what its segments were predicted, measured and seen to be, given to the solver."""

from collections.abc import Mapping
from itertools import combinations

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
    unmix_properties,
)
from lithostream.engine.manifest import Manifest

COLOUR_STD = 0.01  # of the mean reflectance of a segment: what a card is met within
NORMAL_90 = 1.6449  # half width of the central 90 % of a normal distribution, in standard deviations

Floats = npt.NDArray[np.float64]


def segment_minerals(
    segments: WindowSegments,
    outside: npt.NDArray[np.bool_],
    manifest: Manifest,
    measured: Mapping[str, Joined],
    endmembers: Endmembers,
    *,
    coloured: bool,
) -> MineralResult:
    """Solve the abundances of segments; each has its own answer, whatever it is solved with.

    A sensor log takes the place of predictions over the depth it covers. Colour counts where it is calibrated.
    Nothing is given for a segment that is out of the model's domain.

    Parameters
    ----------
    segments : WindowSegments
        Their values are those of the model's outputs, then the share of area out of domain.
    outside : bool [S]
        Segments out of domain.
    manifest : Manifest
        Of the model: outputs, the correlation of their errors, the regime.
    measured : mapping of target name to Joined
        The section's log on its intervals.
    endmembers : Endmembers
    coloured : bool
        Some segment of the section has a colour that counts (`has_colour`): it decides how all of them are solved.
    """
    outputs = manifest.outputs
    usable = np.where(outside[:, None], np.nan, segments.values[:, :-1])
    predicted = dict(zip((output.name for output in outputs), usable.T, strict=True))
    unknown = np.full(len(usable), np.nan)
    logs = {
        name: np.where(outside, np.nan, _over_segments(joined.value, segments.interval_pixels, len(usable)))
        for name, joined in measured.items()
        if name in PROPERTIES
    }
    return unmix_properties(
        # Counts of elements follow no mixing law.
        {name: np.ascontiguousarray(predicted.get(name, unknown)) for name in PROPERTIES},
        endmembers,
        manifest.regime,
        covariance=prediction_covariance(manifest, colour=coloured),
        ridge=prior_ridge(len(endmembers.names)),
        logs=Logs(logs, {name: DEFAULT_STD[name] for name in logs}) if logs else None,
        colour=Colour(_seen(segments, outside)) if coloured else None,
        endmember_errors=True,
    )


def has_colour(segments: WindowSegments, outside: npt.NDArray[np.bool_]) -> bool:
    """Whether any segment in the domain has a reflectance."""
    return bool(np.isfinite(_seen(segments, outside)).any())


def _seen(segments: WindowSegments, outside: npt.NDArray[np.bool_]) -> Floats:
    return np.where(outside[:, None], np.nan, segments.reflectance)


def prediction_covariance(manifest: Manifest, *, colour: bool) -> Floats:
    """Covariance [3, 3] of the errors of predicted properties and of their mixing laws; [6, 6] with colour.

    What the model does not predict counts as `DEFAULT_STD`, and no error of colour is known to go with that of a property.
    """
    variance = {name: DEFAULT_STD[name] ** 2 for name in PROPERTIES}
    widths = {output.name: output.half_width_90 / NORMAL_90 for output in manifest.outputs}
    variance |= {name: widths[name] ** 2 + MIXING_LAW_STD[name] ** 2 for name in PROPERTIES if name in widths}
    full = np.diag([*variance.values(), *([COLOUR_STD**2] * 3 if colour else [])])
    place = {output.name: index for index, output in enumerate(manifest.outputs)}
    for first, second in combinations(PROPERTIES, 2):
        if manifest.error_correlation and {first, second} <= set(place):
            shared = manifest.error_correlation[place[first]][place[second]]
            row, column = PROPERTIES.index(first), PROPERTIES.index(second)
            full[row, column] = full[column, row] = shared * widths[first] * widths[second]
    return full


def _over_segments(values: Floats, pixels: npt.NDArray[np.int64], segments: int) -> Floats:
    """Mean of the values [I] of the intervals that a segment shares, by shared pixels; NaN where none is known."""
    swapped = pixels[:, [1, 0, 2]]
    return segments_to_intervals(swapped, values[:, None], segments)[:, 0]
