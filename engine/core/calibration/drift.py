"""How far a section's own card has moved from what is known of it."""

import math

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.calibration.card import Patches
from lithostream.engine.core.calibration.fit import is_grey

Floats = npt.NDArray[np.float64]

NOTED_DRIFT = 0.02  # what good lamps do over a day
MOST_DRIFT = 0.10  # beyond it another lamp, exposure or card is at work
LEAST_TOLD = 0.1  # reflectance from which a patch tells of the lamp; darker ones tell of stray light


def drift_against_card(own: Patches, now: Floats, reference: Patches, then: Floats) -> float | None:
    """Signed relative change of the channel that changed most.

    Parameters
    ----------
    own, reference : Patches
        The section's card and the one that calibrates it; patches are paired by name.
    now, then : float64 [P, 3]
        What was seen of them, as reflectance by channel.

    Returns
    -------
    float or None
        NaN where a channel is clipped in every patch of the section's card; None where no patch pairs.
    """
    shared = [name for name in own.names if name in reference.names]
    if not shared:
        return None
    return _most_changed(
        now[[own.names.index(name) for name in shared]],
        then[[reference.names.index(name) for name in shared]],
    )


def drift_against_plate(own: Patches, now: Floats) -> float | None:
    """Compare with what is known of the card: only greys look alike to every camera; None without one."""
    greys = is_grey(own.reflectance)
    return _most_changed(now[greys], own.reflectance[greys]) if greys.any() else None


def _most_changed(now: Floats, then: Floats) -> float | None:
    changes = []
    for after, before in zip(now.T, then.T, strict=True):
        tells = before >= LEAST_TOLD
        seen = tells & np.isfinite(after)
        if seen.any():
            changes.append(float(np.median(after[seen] / before[seen])) - 1.0)
        elif tells.any():
            return math.nan
    return max(changes, key=abs) if changes else None
