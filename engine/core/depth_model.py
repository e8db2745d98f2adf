"""Properties of a row of depth from the colour of the rows around it: an average of Gaussian processes.

A sensor averages over centimetres and beds have neighbours, so a row's own colour is not all that its picture
says about it. Every member sees the row colours through one bank of Gaussian filters along depth and is a linear
function of them, some with a smooth correction (Rasmussen and Williams 2006, eq. 2.25 and 4.17). The members
differ in filters and kernels, none is chosen and nothing is tuned: their mean is the prediction, and where they
disagree the interval is wide. Fitted by `lithostream.training.depth`; here is all that a run needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FILTER_REACH = 2.5  # standard deviations at which a filter is cut
NOISE = 0.4  # spread that remains where all members agree, in standard deviations of the labels
ROWS_AT_ONCE = 512
RELATED = 1e-12  # squared distances below are rounding


class DepthPrediction(NamedTuple):
    """What is predicted for L rows; NaN in rows without core.

    Attributes
    ----------
    value, low, high : float64 [L, T]
        Prediction and 90 % interval, in the units of the targets.
    spread : float64 [L, T]
        What the interval is proportional to; of the logarithm where a target is learned as one.
    distance : float64 [L]
        Mahalanobis distance of the filtered colours from those of the training rows.
    """

    value: Floats
    low: Floats
    high: Floats
    spread: Floats
    distance: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """The members that share one bank of filters; M members, Q filtered colours, N training rows.

    Attributes
    ----------
    sigmas : float64 [S]
        Standard deviations of the filters, in rows.
    centre : float64 [Q]
        Mean of the filtered colours of the training rows.
    rows : float64 [N, Q]
        The training rows' filtered colours, less the centre.
    lengths : float64 [M]
        Length scale of a member's Matérn 3/2 kernel; 0 for a member that is linear.
    slope : float64 [M, Q, T]
    weight : float64 [M, N, T]
        Of each training row in the smooth correction.
    offset : float64 [M, T]
    """

    sigmas: Floats
    centre: Floats
    rows: Floats
    lengths: Floats
    slope: Floats
    weight: Floats
    offset: Floats

    def filtered(self, colour: Floats, core: Bools) -> Floats:
        """Row colours [L, C] through the filters, less the centre: float64 [L, Q]."""
        return filtered(colour, core, self.sigmas) - self.centre

    def members(self, seen: Floats) -> Floats:
        """Predictions of each member for filtered colours [L, Q], in label standard deviations: [M, L, T]."""
        apart = distances(seen, self.rows)
        found = np.einsum("lq,mqt->mlt", seen, self.slope) + self.offset[:, None]
        for length in np.unique(self.lengths[self.lengths > 0]):
            kernel = matern(apart / length)
            for member in np.flatnonzero(self.lengths == length):
                found[member] += kernel @ self.weight[member]
        return np.asarray(found)


@dataclass(frozen=True, slots=True, eq=False)
class DepthModel:
    """A fitted depth model of T targets on C channels.

    Attributes
    ----------
    logarithmic : bool [T]
        Targets learned as their natural logarithm.
    label_mean, label_std : float64 [T]
        Of the labels, or of their logarithms.
    colour_mean : float64 [C]
    whitening : float64 [C, C]
    banks : tuple of Bank
        The last one holds the widest filters; distance is measured in it.
    precision_root : float64 [Q, Q]
        Its square is the inverse covariance of the last bank's training rows.
    distance_limit : float
        Beyond it a row is unlike the training rows.
    factor_90 : float64 [T]
        Half width of the 90 % interval, in spreads; from rows that were held out.
    """

    logarithmic: Bools
    label_mean: Floats
    label_std: Floats
    colour_mean: Floats
    whitening: Floats
    banks: tuple[Bank, ...]
    precision_root: Floats
    distance_limit: float
    factor_90: Floats

    def predict(self, colour: Floats, core: Bools) -> DepthPrediction:
        """Predict the rows of one section.

        Parameters
        ----------
        colour : float64 [L, C]
            Mean of the core in each row, rows in order of depth and of equal height; anything where there is none.
        core : bool [L]
            Rows with core.
        """
        white = (np.where(core[:, None], colour, self.colour_mean) - self.colour_mean) @ self.whitening
        seen = [bank.filtered(white, core) for bank in self.banks]
        members = np.concatenate(
            [self._members(seen, at) for at in range(0, len(core), ROWS_AT_ONCE)], axis=1
        )
        # sqrt(mean square): as far as one standard deviation in every direction is a distance of 1.
        distance = np.sqrt(np.mean((seen[-1] @ self.precision_root) ** 2, axis=1))
        spread = np.sqrt(NOISE**2 + members.var(axis=0)) * self.label_std
        spread = widened(spread, distance, self.distance_limit, self.label_std)
        middle = members.mean(axis=0) * self.label_std + self.label_mean
        middle[~core], spread[~core], distance[~core] = np.nan, np.nan, np.nan
        half = self.factor_90 * spread
        value, low, high = (self._in_units(x) for x in (middle, middle - half, middle + half))
        return DepthPrediction(value, low, high, spread, distance)

    def _members(self, seen: Sequence[Floats], at: int) -> Floats:
        """Predictions of all members for the rows from `at`, so many that memory is bounded: float64 [M, l, T]."""
        rows = slice(at, at + ROWS_AT_ONCE)
        return np.concatenate([bank.members(one[rows]) for bank, one in zip(self.banks, seen, strict=True)])

    def _in_units(self, values: Floats) -> Floats:
        return np.where(self.logarithmic, np.exp(np.where(self.logarithmic, values, 0.0)), values)

    def to_bytes(self) -> bytes:
        """Write everything as a safetensors file of float64 arrays."""
        flat = {name: np.asarray(getattr(self, name), np.float64) for name in _SHARED}
        for number, bank in enumerate(self.banks):
            flat |= {f"bank{number}.{name}": np.ascontiguousarray(getattr(bank, name)) for name in _OF_BANK}
        return save(flat)

    @classmethod
    def from_bytes(cls, content: bytes) -> "DepthModel":
        """Read what `to_bytes` wrote.

        Raises
        ------
        ValueError
            Not a safetensors file, or an array is missing, unknown, not finite or of a shape that does not fit
            the others.
        """
        try:
            arrays = load(content)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file: {error}") from error
        _check(arrays)
        count = sum(name.endswith(".sigmas") for name in arrays)
        banks = tuple(Bank(**{n: arrays[f"bank{i}.{n}"] for n in _OF_BANK}) for i in range(count))
        shared = {name: arrays[name] for name in _SHARED}
        shared["logarithmic"] = shared["logarithmic"] != 0
        return cls(banks=banks, **shared | {"distance_limit": float(shared["distance_limit"])})  # type: ignore[arg-type]


_OF_BANK = ("sigmas", "centre", "rows", "lengths", "slope", "weight", "offset")
_SHARED = (
    "logarithmic",
    "label_mean",
    "label_std",
    "colour_mean",
    "whitening",
    "precision_root",
    "distance_limit",
    "factor_90",
)


def widened(spread: Floats, distance: Floats, limit: float, label_std: Floats) -> Floats:
    """Spread [L, T] that turns into the labels' own [T] as the distance [L] goes from its limit to twice that."""
    strange = np.clip(distance / limit - 1.0, 0.0, 1.0)
    return np.asarray(np.sqrt(spread**2 + strange[:, None] * label_std**2))


def filtered(colour: Floats, core: Bools, sigmas: Floats) -> Floats:
    """Means of row colours [L, C] under Gaussian weights along depth, over rows with core only.

    Returns
    -------
    float64 [L, S * C]
        All channels of the first filter, then of the next. 0 where a filter meets no core.
    """
    shown = np.where(core[:, None], colour, 0.0)
    return np.concatenate([_smooth(shown, core.astype(np.float64), float(sigma)) for sigma in sigmas], axis=1)


def _smooth(shown: Floats, core: Floats, sigma: float) -> Floats:
    reach = int(np.ceil(FILTER_REACH * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    around = slice(reach, reach + len(core))  # mode "same" would return the kernel's length in short sections
    total = np.stack([np.convolve(channel, kernel)[around] for channel in shown.T], axis=1)
    weight = np.convolve(core, kernel)[around, None]
    means = np.zeros_like(total)
    np.divide(total, weight, out=means, where=weight > 0)
    return means


def distances(some: Floats, others: Floats) -> Floats:
    """Root mean square differences between rows [L, Q] and rows [N, Q]: float64 [L, N]."""
    square = np.sum(some**2, axis=1)[:, None] + np.sum(others**2, axis=1) - 2.0 * some @ others.T
    return np.asarray(np.sqrt(np.maximum(square / some.shape[1], RELATED)))


def matern(distance: Floats) -> Floats:
    """Matérn kernel of smoothness 3/2 (Rasmussen and Williams 2006, eq. 4.17)."""
    scaled = np.sqrt(3.0) * distance
    return np.asarray((1.0 + scaled) * np.exp(-scaled))


def _check(arrays: Mapping[str, Floats]) -> None:
    """Hold stored arrays to each other: a model that is read is data of somebody else."""
    count = sum(name.endswith(".sigmas") for name in arrays)
    names = {*_SHARED, *(f"bank{i}.{name}" for i in range(count) for name in _OF_BANK)}
    if set(arrays) != names or count == 0:
        raise ValueError(f"arrays {sorted(set(arrays) ^ names) or 'of no bank'} are missing or unknown")
    bad = sorted(n for n, a in arrays.items() if a.dtype != np.float64 or not np.isfinite(a).all())
    if bad:
        raise ValueError(f"{bad[0]} holds values that are not finite float64 numbers")
    channels, targets = arrays["colour_mean"].size, arrays["label_mean"].size
    shapes: dict[str, tuple[int, ...]] = {name: (targets,) for name in _SHARED}
    shapes |= {"colour_mean": (channels,), "whitening": (channels, channels), "distance_limit": ()}
    for i in range(count):
        part = {name: arrays[f"bank{i}.{name}"] for name in _OF_BANK}
        q, n, m = part["sigmas"].size * channels, len(np.atleast_1d(part["rows"])), part["lengths"].size
        wanted = (
            (q // max(channels, 1),),
            (q,),
            (n, q),
            (m,),
            (m, q, targets),
            (m, n, targets),
            (m, targets),
        )
        shapes |= {f"bank{i}.{name}": shape for name, shape in zip(_OF_BANK, wanted, strict=True)}
        shapes["precision_root"] = (q, q)
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
    if wrong:
        raise ValueError(f"{wrong[0]} is {list(arrays[wrong[0]].shape)}, expected {list(shapes[wrong[0]])}")
    if not (
        arrays["distance_limit"] > 0 and np.all(arrays["factor_90"] > 0) and np.all(arrays["label_std"] > 0)
    ):
        raise ValueError("distance_limit, factor_90 and label_std must be positive")
    if any(
        np.any(arrays[f"bank{i}.sigmas"] <= 0) or np.any(arrays[f"bank{i}.lengths"] < 0) for i in range(count)
    ):
        raise ValueError("sigmas must be positive and lengths not negative")
