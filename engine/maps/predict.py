"""From predictors of a window to probability, uncertainty and flags, pixel by pixel."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.maps.session import BATCH, MapPrediction, MapSession
from lithostream.kernels.errors import ContractError

CELL = 64  # px: a square of CELL x CELL pixels of the grid is one batch, so a pixel's place in it is the same in any window
NODATA, OUT_OF_DOMAIN, NO_NUMBER = 1, 2, 4
"""Flags: a predictor is missing; farther from the training rows than the limit; the model gave no number."""

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint8]


class Answer(NamedTuple):
    """What a map holds of some pixels, or of rows of a table.

    Attributes
    ----------
    probability, uncertainty : float32
        NaN where there is no answer.
    flags : uint8
        Sums of NODATA, OUT_OF_DOMAIN and NO_NUMBER.
    """

    probability: Floats
    uncertainty: Floats
    flags: Flags


def predict_window(values: Floats, valid: Bools, session: MapSession, distance_limit: float) -> Answer:
    """Answer the pixels of a window.

    Parameters
    ----------
    values : float32 [P, h, w]
        From a row and a column of the grid that are multiples of `CELL`.
    valid : bool [h, w]
        Pixels that have every predictor.
    session : MapSession
    distance_limit : float

    Raises
    ------
    ContractError
        A valid pixel holds what is no finite number.
    """
    height, width = valid.shape
    numbers = np.full((2, height, width), np.nan, np.float32)
    flags = np.full((height, width), NODATA, np.uint8)
    for top in range(0, height, CELL):
        for left in range(0, width, CELL):
            part = np.s_[top : top + CELL, left : left + CELL]
            if valid[part].any():
                found = _cell(values[:, *part], valid[part], session, distance_limit)
                numbers[0][part], numbers[1][part], flags[part] = found
    return Answer(numbers[0], numbers[1], flags)


def judge(found: MapPrediction, valid: Bools, distance_limit: float) -> Answer:
    """Flag predictions, and take away those that are none: of what is missing, and where the model gave no number."""
    numbers = np.isfinite(found.probability) & np.isfinite(found.uncertainty) & np.isfinite(found.distance)
    flags = np.where(valid, 0, NODATA) + np.where(valid & ~numbers, NO_NUMBER, 0)
    flags += np.where(valid & ~(found.distance <= distance_limit), OUT_OF_DOMAIN, 0)
    answered = valid & numbers
    nothing = np.float32(np.nan)
    return Answer(
        np.where(answered, found.probability, nothing),
        np.where(answered, found.uncertainty, nothing),
        flags.astype(np.uint8),
    )


def _cell(values: Floats, valid: Bools, session: MapSession, distance_limit: float) -> Answer:
    """Answer one cell as one whole batch, whatever of it lies in the grid."""
    rows = np.zeros((CELL, CELL, len(values)), np.float32)
    rows[: valid.shape[0], : valid.shape[1]] = np.where(valid, values, np.float32(0)).transpose(1, 2, 0)
    if not np.isfinite(rows).all():
        raise ContractError("values: expected finite numbers where they are valid")
    inside = np.s_[: valid.shape[0], : valid.shape[1]]
    found = session.infer(rows.reshape(BATCH, -1))
    return judge(MapPrediction(*(one.reshape(CELL, CELL)[inside] for one in found)), valid, distance_limit)
