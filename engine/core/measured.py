"""What is known about each segment before its minerals are solved: values, sources, and the covariance of errors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.hapke import BRIGHTEST
from lithostream.kernels.arrays import check_array
from lithostream.kernels.errors import ContractError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DENSITY, VELOCITY, SUSCEPTIBILITY = "density", "p_wave_velocity", "magnetic_susceptibility"
PROPERTIES = (DENSITY, VELOCITY, SUSCEPTIBILITY)

# Error of the mixing laws themselves: contacts between grains stiffen real mud by 1 to 2 %.
MIXING_LAW_STD: dict[str, float] = {DENSITY: 0.0, VELOCITY: 25.0, SUSCEPTIBILITY: 0.0}
# Standard deviations where the caller states none: gamma density 0.02 g/cm3, P-wave 15 m/s and loop
# susceptibility 2e-5 SI of a good multi-sensor core log, with the error of the mixing law.
DEFAULT_STD: dict[str, float] = {DENSITY: 0.02, VELOCITY: math.hypot(15.0, 25.0), SUSCEPTIBILITY: 2.0}

# Row or deviation of every property: one number, or one per row.
Stds = Mapping[str, float | FloatArray]


class Source(IntEnum):
    """Where a value came from."""

    NONE = 0
    PREDICTED = 1
    MEASURED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Logs:
    """Properties that an instrument measured: where one has a value, the prediction is not used.

    Attributes
    ----------
    values : mapping of str to float64 [N]
        Any of the properties; NaN = not measured here.
    std : mapping of str to float or float64 [N]
        Their standard deviations with the error of the mixing law; `DEFAULT_STD` for those not named.
    """

    values: Mapping[str, FloatArray]
    std: Stds


class Known(NamedTuple):
    """Values [N, 3] in the order of `PROPERTIES`, where each came from, the rows that held an impossible value."""

    values: FloatArray
    source: npt.NDArray[np.uint8]
    nonphysical: BoolArray


def known_values(properties: Mapping[str, FloatArray], logs: Logs | None) -> Known:
    """Take measured values over predicted ones, and leave impossible ones out."""
    predicted, bad = _checked("properties", properties, None)
    if logs is None or not logs.values:
        return Known(predicted, (~np.isnan(predicted)).astype(np.uint8), bad)
    measured, also_bad = _checked("logs.values", logs.values, len(predicted))
    instrument = ~np.isnan(measured)
    values = np.where(instrument, measured, predicted)
    source = np.where(instrument, Source.MEASURED, Source.PREDICTED) * ~np.isnan(values)
    return Known(values, source.astype(np.uint8), bad | also_bad)


def _checked(
    argument: str, properties: Mapping[str, FloatArray], rows: int | None
) -> tuple[FloatArray, BoolArray]:
    """Every property as a column with unusable values set to NaN, and the rows that had one."""
    unknown = set(properties) - set(PROPERTIES)
    if unknown or not properties:
        raise ContractError(f"{argument}: expected any of {PROPERTIES}, got {sorted(properties)}")
    count = len(next(iter(properties.values()))) if rows is None else rows
    values = np.full((count, len(PROPERTIES)), np.nan)
    nonphysical = np.zeros(count, dtype=bool)
    for place, name in enumerate(PROPERTIES):
        if name in properties:
            column = properties[name]
            check_array(f"{argument}[{name!r}]", column, dtype=np.float64, shape=(count,))
            bad = np.isinf(column) if name == SUSCEPTIBILITY else np.isinf(column) | (column <= 0)
            values[:, place] = np.where(bad, np.nan, column)
            nonphysical |= bad
    return values, nonphysical


def usable_reflectance(reflectance: FloatArray, rows: int) -> tuple[FloatArray, BoolArray]:
    """Reflectance with impossible values set to NaN, and the rows that had one."""
    check_array("colour.reflectance", reflectance, dtype=np.float64, shape=(rows, 3))
    bad: BoolArray = (reflectance <= 0) | (reflectance >= BRIGHTEST)
    return np.where(bad, np.nan, reflectance), np.asarray(bad.any(axis=1))


def error_covariance(
    known: Known,
    std: Stds | None,
    logs: Logs | None,
    reflectance: FloatArray | None,
    reflectance_std: float,
    covariance: FloatArray | None,
) -> FloatArray:
    """Covariance of the errors of all values, float64 [N, B, B], B = 3, or 6 with colour.

    A `covariance` [B, B] or [N, B, B] takes the place of `std` and of the deviation of the colour. Instruments err
    independently of predictions.
    """
    rows = len(known.values)
    predicted = known.source == Source.PREDICTED
    values = known.values if reflectance is None else np.concatenate([known.values, reflectance], axis=1)
    if covariance is None:
        stds = _standard_deviations("std", std or {}, predicted)
        if reflectance is not None:
            stds = np.concatenate([stds, np.full((rows, 3), reflectance_std)], axis=1)
        full = stds[:, :, None] ** 2 * np.eye(stds.shape[1])
    elif std:
        raise ContractError("std: expected none beside a covariance, which states the deviations")
    else:
        full = _checked_covariance(covariance, ~np.isnan(values) & _padded(predicted, values))
    if logs is not None:
        measured = known.source == Source.MEASURED
        variance = _standard_deviations("logs.std", logs.std, measured) ** 2
        instrument = _padded(~measured, values) == 0
        full = np.where(instrument[:, :, None] | instrument[:, None, :], 0.0, full)
        row, column = np.nonzero(measured)
        full[row, column, column] = variance[row, column]
    return full


def _padded(properties: BoolArray, values: FloatArray) -> BoolArray:
    """Widen to all values: True for the channels of colour."""
    return np.pad(properties, ((0, 0), (0, values.shape[1] - properties.shape[1])), constant_values=True)


def _standard_deviations(argument: str, std: Stds, used: BoolArray) -> FloatArray:
    unknown = set(std) - set(PROPERTIES)
    if unknown:
        raise ContractError(f"{argument}: expected any of {PROPERTIES}, got {sorted(std)}")
    stds = np.ones(used.shape)
    for place, name in enumerate(PROPERTIES):
        given = np.asarray(std.get(name, DEFAULT_STD[name]), dtype=np.float64)
        if given.shape not in ((), (len(used),)):
            raise ContractError(
                f"{argument}[{name!r}]: expected one number or [{len(used)}], got {given.shape}"
            )
        column = np.broadcast_to(given, len(used))
        wrong = ~(np.isfinite(column) & (column > 0)) & used[:, place]
        if wrong.any():
            got, row = column[wrong][0], wrong.argmax()
            raise ContractError(f"{argument}[{name!r}]: expected > 0 where measured, got {got} in row {row}")
        stds[:, place] = np.where(used[:, place], column, 1.0)
    return stds


def _checked_covariance(covariance: FloatArray, used: BoolArray) -> FloatArray:
    """Covariance with rows and columns of values that are not used replaced by those of the identity."""
    rows, count = used.shape
    shape = (count, count) if getattr(covariance, "ndim", 2) == 2 else (rows, count, count)
    check_array("covariance", covariance, dtype=np.float64, shape=shape)
    both = used[:, :, None] & used[:, None, :]
    full = np.where(both, covariance, np.eye(count))
    fits = np.isfinite(full).all(axis=(1, 2)) & (full == np.swapaxes(full, 1, 2)).all(axis=(1, 2))
    scale = np.sqrt(np.einsum("nii->ni", np.where(fits[:, None, None], full, np.eye(count))).clip(1e-300))
    scaled = np.where(fits[:, None, None], full / (scale[:, :, None] * scale[:, None, :]), np.eye(count))
    fits &= np.linalg.eigvalsh(scaled)[:, 0] > 1e-12
    if not fits.all():
        row = int((~fits).argmax())
        raise ContractError(
            f"covariance: expected symmetric and positive definite, got {full[row].tolist()} in row {row}"
        )
    return full
