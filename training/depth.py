"""Fit a depth model: the average of Gaussian processes that `lithostream.engine.core.depth_model` predicts with."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from sklearn.covariance import LedoitWolf
from threadpoolctl import threadpool_limits

from lithostream.engine.core.depth_model import Bank, DepthModel, DepthPrediction, distances, filtered, matern
from lithostream.training.data.profile import Profile, on_scale

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

BANKS = ((0.6,), (1.5,), (4.0,), (1.0, 3.0), (1.0, 3.0, 8.0))  # standard deviations of filters, in rows
NOISE_SHARE = 0.3  # variance that colour does not explain, of unit variance that it could
LINGERING = 10.0  # rows over which what colour does not explain stays alike: a bed is a bed
ALIKE = 0.8  # share of that noise which lingers; the rest is the sensor's
MOST_ROWS = 2000  # training rows at most; the cost grows with their cube
LEAST_EIGENVALUE = 1e-3  # of the largest: channels that vary together part no further


class Member(NamedTuple):
    """A Gaussian process: length scale of its Matérn kernel (0: linear only) and share of noise that lingers."""

    length: float
    alike: float


MEMBERS = (Member(0.0, 0.0), Member(0.0, ALIKE), Member(3.0, 0.0), Member(3.0, ALIKE), Member(1.0, ALIKE))


def fit_depth_model(profile: Profile, at: Ints, labels: Floats, logarithmic: Bools) -> DepthModel:
    """Fit all members to labelled rows.

    The noise of some members lingers along depth, so that a bed of many rows does not count as many
    observations (generalised least squares). What lingers is never predicted: on unseen depth it is unknown.

    Parameters
    ----------
    profile : Profile
        Of whole sections: the colour around labelled rows counts, whether labelled or not.
    at : int64 [R]
        Labelled rows, as places in the profile. Of more than `MOST_ROWS`, evenly spaced ones of each target are used.
    labels : float64 [R, T]
        NaN where not known; each target has at least one label.
    logarithmic : bool [T]
        Targets to learn as their logarithm; labels that are not positive then count as unknown.

    Returns
    -------
    DepthModel
        Not yet `calibrated`: its intervals and distance limit are infinite.
    """
    wanted = on_scale(labels, logarithmic)
    kept = _thinned(wanted)
    at, wanted = at[kept], wanted[kept]
    mean, std = np.nanmean(wanted, axis=0), np.maximum(np.nanstd(wanted, axis=0), 1e-9)
    colour_mean, whitening = _whitening(profile.colour[at])
    white = (profile.colour - colour_mean) @ whitening
    lingers = _lingering(profile, at)
    scaled = (wanted - mean) / std
    with threadpool_limits(1):  # threads change the order of sums
        banks = tuple(_bank(profile, white, at, scaled, np.array(sigmas), lingers) for sigmas in BANKS)
    root = _precision_root(banks[-1].rows)
    return DepthModel(
        logarithmic, mean, std, colour_mean, whitening, banks, root, np.inf, np.full(len(mean), np.inf)
    )


def predict_profile(model: DepthModel, profile: Profile) -> DepthPrediction:
    """Predict every row of a profile; the arrays are [P, T] and [P]."""
    parts = []
    for number in np.unique(profile.section):
        here = profile.section == number
        found, place = model.predict(*_dense(profile, profile.colour, here)), profile.place[here]
        parts.append(DepthPrediction(*(values[place] for values in found)))
    return DepthPrediction(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def calibrated(model: DepthModel, factor_90: Floats, distance_limit: float) -> DepthModel:
    """Set the interval factor [T] and the distance limit that held-out rows gave."""
    return replace(model, factor_90=factor_90, distance_limit=distance_limit)


def _thinned(labels: Floats) -> Ints:
    """Rows of labels [R, T] to use: all, or of each target an even share of `MOST_ROWS`."""
    if len(labels) <= MOST_ROWS:
        return np.arange(len(labels))
    known = [np.flatnonzero(np.isfinite(label)) for label in labels.T]
    share = MOST_ROWS // len(known)
    return np.unique(np.concatenate([rows[:: -(-len(rows) // share)] for rows in known if len(rows)]))


def _whitening(colour: Floats) -> tuple[Floats, Floats]:
    """Mean [C] and matrix [C, C] that make the channels of rows [N, C] uncorrelated and of unit variance."""
    mean, std = colour.mean(axis=0), np.maximum(colour.std(axis=0), 1e-9)
    scaled = (colour - mean) / std
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(colour))
    kept = np.maximum(values, LEAST_EIGENVALUE * values.max())
    return mean, vectors / std[:, None] / np.sqrt(kept)


def _lingering(profile: Profile, at: Ints) -> Floats:
    """Correlation along depth between labelled rows, float64 [N, N]; none between sections."""
    section, place = profile.section[at], profile.place[at].astype(np.float64)
    same = section[:, None] == section
    return np.where(same, np.exp(-np.abs(place[:, None] - place) / LINGERING), 0.0)


def _bank(profile: Profile, white: Floats, at: Ints, wanted: Floats, sigmas: Floats, lingers: Floats) -> Bank:
    """Fit the members of one bank to normalised labels [N, T]."""
    everywhere = np.zeros((len(white), len(sigmas) * white.shape[1]))
    for number in np.unique(profile.section):
        here = profile.section == number
        everywhere[here] = filtered(*_dense(profile, white, here), sigmas)[profile.place[here]]
    centre = everywhere[at].mean(axis=0)
    rows = everywhere[at] - centre
    fits = [_member(rows, wanted, member, lingers) for member in MEMBERS]
    slope, weight, offset = (np.stack(parts) for parts in zip(*fits, strict=True))
    return Bank(sigmas, centre, rows, np.array([m.length for m in MEMBERS]), slope, weight, offset)


def _member(rows: Floats, wanted: Floats, member: Member, lingers: Floats) -> tuple[Floats, Floats, Floats]:
    """Slope [Q, T], weight [N, T] and offset [T] of one Gaussian process (Rasmussen and Williams 2006, eq. 2.25)."""
    count, width = rows.shape
    covariance = rows @ rows.T / width + 1.0  # a constant of unit variance
    if member.length:
        covariance += matern(distances(rows, rows) / member.length)
    covariance += NOISE_SHARE * ((1.0 - member.alike) * np.eye(count) + member.alike * lingers)
    weight = np.zeros(wanted.shape)
    for target, label in enumerate(wanted.T):
        known = np.flatnonzero(np.isfinite(label))
        weight[known, target] = cho_solve(cho_factor(covariance[np.ix_(known, known)]), label[known])
    return rows.T @ weight / width, weight if member.length else np.zeros_like(weight), weight.sum(axis=0)


def _precision_root(rows: Floats) -> Floats:
    """Matrix [Q, Q] that whitens filtered colours [N, Q]; covariance after Ledoit and Wolf (2004)."""
    scale = np.maximum(rows.std(axis=0), 1e-9)
    values, vectors = np.linalg.eigh(LedoitWolf().fit(rows / scale).covariance_)
    root: Floats = vectors / np.sqrt(np.maximum(values, 1e-9)) / scale[:, None]
    return root


def _dense(profile: Profile, values: Floats, here: Bools) -> tuple[Floats, Bools]:
    """Put the rows of one section where they lie: values float64 [L, C], and which rows have core, bool [L]."""
    place = profile.place[here]
    dense, core = np.zeros((int(place.max()) + 1, values.shape[1])), np.zeros(int(place.max()) + 1, np.bool_)
    dense[place], core[place] = values[here], True
    return dense, core
