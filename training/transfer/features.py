"""From predictors to the inputs of a model: logarithms, then one affine map that is fitted on training rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import Study
from lithostream.training.transfer.models import View
from lithostream.training.transfer.tables import Flags, Floats

SMALLEST = 1e-12  # a standard deviation of a predictor that does not vary


@dataclass(frozen=True, slots=True)
class Logarithms:
    """Which predictors also enter as logarithms: sign(x) ln(1 + |x| / scale).

    Attributes
    ----------
    columns : tuple of L int
    scales : tuple of L float
    """

    columns: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()

    def extend(self, raw: Floats) -> Floats:
        """Put the logarithms beside the predictors: [N, P] to float64 [N, P + L]."""
        chosen = raw[:, list(self.columns)]
        logs = np.sign(chosen) * np.log1p(np.abs(chosen) / np.array(self.scales))
        extended: Floats = np.concatenate([raw, logs], axis=1)
        return extended


@dataclass(frozen=True, slots=True)
class Inputs:
    """The affine map of extended predictors: clip(e @ matrix + offset).

    Attributes
    ----------
    matrix : float64 [P + L, D]
    offset : float64 [D]
    clip : float, optional
    """

    matrix: Floats
    offset: Floats
    clip: float | None

    def __call__(self, extended: Floats) -> Floats:
        """Return the inputs of a model, float64 [N, D]."""
        inputs: Floats = extended @ self.matrix + self.offset
        return inputs if self.clip is None else inputs.clip(-self.clip, self.clip)


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of the study as extended predictors.

    Attributes
    ----------
    logarithms : Logarithms
    extended : float64 [N, P + L]
        The labelled rows; `pretext` and `unlabelled` likewise.
    labels : int64 [N]
    pretext_labels : int64 [T]
    """

    logarithms: Logarithms
    extended: Floats
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    pretext: Floats
    pretext_labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    unlabelled: Floats

    def part(self, rows: Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> "Rows":
        """Keep some of the labelled rows; what is carried over from stays whole."""
        return Rows(
            self.logarithms,
            self.extended[rows],
            self.labels[rows],
            self.pretext,
            self.pretext_labels,
            self.unlabelled,
        )


def extended_rows(study: Study, config: TransferConfig) -> Rows:
    """Extend the predictors of all rows of a study."""
    columns = tuple(config.columns.predictors.index(name) for name in config.logarithmic)
    logs = Logarithms(columns, tuple(config.logarithmic.values()))
    return Rows(
        logs,
        logs.extend(study.raw),
        study.labels,
        logs.extend(study.pretext),
        study.pretext_labels,
        logs.extend(study.unlabelled[study.fresh]),
    )


def fit_inputs(
    extended: Floats, mask: Flags, view: View, logarithms: Logarithms, clip: float | None = None
) -> Inputs:
    """Fit scaling and components on the rows of a mask.

    Parameters
    ----------
    extended : float64 [N, P + L]
    mask : bool [N]
    view : str
        See `Net.views`.
    """
    seen = extended[mask]
    total, plain = extended.shape[1], extended.shape[1] - len(logarithms.columns)
    mean, spread = seen.mean(axis=0), np.maximum(seen.std(axis=0), SMALLEST)
    scale = np.diag(1 / spread)
    logs = np.array([*range(plain)])
    logs[list(logarithms.columns)] = range(plain, total)
    parts = []
    if view in ("logarithmic", "both"):
        parts.append(scale[:, logs])
    if view != "logarithmic":
        parts.append(_components(seen, mean, scale[:, :plain], whiten=view != "components"))
    matrix = np.concatenate(parts, axis=1)
    return Inputs(matrix, -mean @ matrix, clip)


def _components(seen: Floats, mean: Floats, scale: Floats, *, whiten: bool) -> Floats:
    """Principal axes [P + L, P] of standardised predictors, of fixed sign, most variance first."""
    standard = (seen - mean) @ scale
    variance, axes = np.linalg.eigh(standard.T @ standard / len(seen))
    variance, axes = variance[::-1], axes[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    if whiten:
        axes = axes / np.sqrt(np.maximum(variance, SMALLEST))
    found: Floats = scale @ axes
    return found
