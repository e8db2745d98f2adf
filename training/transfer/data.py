"""The tables of the study: read by column name, joined by value, searched for rows that occur twice."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lithostream.engine.errors import SourceError
from lithostream.training.transfer.alike import ALIKE, alike, distances
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.tables import Flags, Floats, Integers, read_columns, read_labels

LINEAR = 1e-3  # largest residual of components that are a linear function of the predictors, in standard deviations
NO_PLACE = 0.0  # both coordinates of a row that was never located


@dataclass(frozen=True, slots=True)
class Study:
    """What the study learns from.

    Attributes
    ----------
    predictors : tuple of P str
    raw : float64 [N, P]
        Predictors of the labelled rows, in their own units.
    components : float64 [N, C]
        Their principal components as published.
    labels : int64 [N]
        1 where there is a deposit.
    place : float64 [N, 2]
        Easting and northing in m, NaN for a row without a place.
    experiments : dict of name to int64 [K]
        Rows of `raw` that each experiment learns from.
    pretext, pretext_labels, pretext_place
        Predictors [T, P], rock class [T] and place [T, 2] of the rows of the pretext task.
    pretext_components : float64 [T, C]
    unlabelled, unlabelled_components
        Predictors [U, P] and components [U, C] of rows that nothing is known of.
    fresh : bool [U]
        Those of them that are no labelled rows.
    to_components : (float64 [P, C], float64 [C])
        The published components as a linear function of the predictors.
    notes : tuple of str
        What was found and decided while reading.
    """

    predictors: tuple[str, ...]
    raw: Floats
    components: Floats
    labels: Integers
    place: Floats
    experiments: dict[str, Integers]
    pretext: Floats
    pretext_labels: Integers
    pretext_place: Floats
    pretext_components: Floats
    unlabelled: Floats
    unlabelled_components: Floats
    fresh: Flags
    to_components: tuple[Floats, Floats]
    notes: tuple[str, ...]

    @property
    def located(self) -> Flags:
        """Rows that have a place, bool [N]."""
        return np.asarray(np.isfinite(self.place).all(axis=1))

    @property
    def spread(self) -> Floats:
        """Standard deviations of the components of the labelled rows, float64 [C]."""
        spread: Floats = self.components.std(axis=0)
        return spread


def read_study(config: TransferConfig, root: Path) -> Study:
    """Read the tables that a configuration names; paths in it start at `root`.

    Raises
    ------
    SourceError
        A table cannot be read, or does not fit the others.
    """
    files, names = config.tables, config.columns
    raw, components, labels, place = _labelled(config, root)
    matrix, offset = fit_linear(raw, components, root / files.components)
    pretext = read_columns(
        root / files.pretext, (names.pretext_label, *names.pretext_place, *names.components)
    )
    unlabelled = read_columns(root / files.unlabelled, names.components)
    back, spread = np.linalg.pinv(matrix), components.std(axis=0)
    known = alike(unlabelled, components, spread)
    notes = [*row_notes(components / spread, labels, place)]
    if known.all():
        raise SourceError(
            "holds no row that is not labelled",
            file=root / files.unlabelled,
            fix="give rows of which nothing is known: the autoencoder learns from them",
        )
    if known.any():
        notes.append(f"{known.sum()} unlabelled rows are labelled rows too: not learned from")
    published = np.c_[labels, components]
    experiments = {
        name: match_rows(
            read_columns(root / file, (names.label, *names.components)), published, spread, root / file
        )
        for name, file in files.experiments.items()
    }
    for name, rows in experiments.items():
        _two_classes(labels[rows], root / files.experiments[name], names.label)
    return Study(
        predictors=names.predictors,
        raw=raw,
        components=components,
        labels=labels,
        place=place,
        experiments=experiments,
        pretext=(pretext[:, 3:] - offset) @ back,
        pretext_labels=read_labels(pretext[:, 0], root / files.pretext, names.pretext_label),
        pretext_place=pretext[:, 1:3],
        pretext_components=pretext[:, 3:],
        unlabelled=(unlabelled - offset) @ back,
        unlabelled_components=unlabelled,
        fresh=~known,
        to_components=(matrix, offset),
        notes=tuple(notes),
    )


def _labelled(config: TransferConfig, root: Path) -> tuple[Floats, Floats, Integers, Floats]:
    """Predictors, components, labels and places of the labelled rows, from both of their tables."""
    names, one, other = config.columns, root / config.tables.predictors, root / config.tables.components
    table = read_columns(one, (names.label, *names.place, *names.predictors))
    published = read_columns(other, (names.label, *names.components))
    if len(published) != len(table) or (published[:, 0] != table[:, 0]).any():
        raise SourceError(
            f"does not have the rows and labels of {one.name}",
            file=other,
            fix="give both tables of the same rows, in the same order",
        )
    labels = read_labels(table[:, 0], one, names.label, most=1)
    _two_classes(labels, one, names.label)
    for file, columns, values in (
        (one, names.predictors, table[:, 3:]),
        (other, names.components, published[:, 1:]),
    ):
        for column, same in zip(columns, np.ptp(values, axis=0) == 0, strict=True):
            if same:
                raise SourceError(
                    "has one value in every row, and tells nothing",
                    file=file,
                    place=f"column {column}",
                    fix="leave it out of the predictors, and make the components without it",
                )
    place = table[:, 1:3]
    place = np.where((place == NO_PLACE).all(axis=1, keepdims=True), np.nan, place)
    return table[:, 3:], published[:, 1:], labels, place


def _two_classes(labels: Integers, file: Path, column: str) -> None:
    if not 0 < labels.sum() < len(labels):
        raise SourceError(
            f"all {len(labels)} rows have one label",
            file=file,
            place=f"column {column}",
            fix="give rows with and without deposits",
        )


def fit_linear(raw: Floats, components: Floats, file: Path) -> tuple[Floats, Floats]:
    """Find the linear map from predictors [N, P] to components [N, C]: matrix [P, C] and offset [C].

    Raises
    ------
    SourceError
        The components are something else, or do not tell the predictors.
    """
    centre, unit = raw.mean(axis=0), raw.std(axis=0)
    standard = np.c_[(raw - centre) / unit, np.ones(len(raw))]
    solution, _, rank, _ = np.linalg.lstsq(standard, components, rcond=None)
    matrix = np.asarray(solution[:-1] / unit[:, None], np.float64)
    offset = np.asarray(solution[-1] - centre @ matrix, np.float64)
    spread = components.std(axis=0)
    worst = float((np.abs(standard @ solution - components) / spread).max())
    if worst > LINEAR or rank <= raw.shape[1] or np.linalg.matrix_rank(solution[:-1] / spread) < raw.shape[1]:
        raise SourceError(
            f"components are no invertible linear function of the predictors (off by {worst:.3g} standard deviations)",
            file=file,
            fix="give the components of the same predictors, as many as there are predictors",
        )
    return matrix, offset


def match_rows(wanted: Floats, known: Floats, spread: Floats, file: Path) -> Integers:
    """Find rows [K, 1 + C] of a label and components among others, each of those at most once, int64 [K].

    Raises
    ------
    SourceError
        A row is not there.
    """
    apart = distances(wanted[:, 1:], known[:, 1:], spread)
    apart[wanted[:, None, 0] != known[None, :, 0]] = np.inf
    free, found = np.ones(len(known), np.bool_), np.empty(len(wanted), np.int64)
    for number, own in enumerate(apart):
        candidates = np.flatnonzero((own < ALIKE) & free)
        if not len(candidates):
            raise SourceError(
                "this row is not in the table of components",
                file=file,
                place=f"row {number + 1}",
                fix="give experiments that are parts of that table",
            )
        found[number] = candidates[own[candidates].argmin()]
        free[found[number]] = False
    return found


def row_notes(components: Floats, labels: Integers, place: Floats) -> list[str]:
    """Say what is unusual about labelled rows: repeated, contradicting, without a place."""
    same = distances(components, components, np.ones(1)) < ALIKE
    repeated, lost = same.sum(axis=1) > 1, ~np.isfinite(place).all(axis=1)
    contradicting = (same & (labels[:, None] != labels[None])).any(axis=1)
    notes = []
    if repeated.any():
        notes.append(
            f"{repeated.sum()} of {len(labels)} rows occur more than once: kept on one side of a split"
        )
    if contradicting.any():
        notes.append(f"{contradicting.sum()} rows have a twin with the other label")
    if lost.any():
        notes.append(
            f"{lost.sum()} rows ({labels[lost].sum()} positive) have no place: they define no block, and are left"
            " out of the spatial cross-validation"
        )
    return notes
