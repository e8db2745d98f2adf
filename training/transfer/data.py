"""The tables of the study: read by column name, joined by value, searched for rows that occur twice."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import SourceError
from lithostream.training.transfer.config import TransferConfig

SAME = 1e-3  # rows nearer than this in every component are one observation
LINEAR = 1e-3  # largest residual of components that count as a linear function of the predictors
NO_PLACE = 0.0  # both coordinates of a row that was never located

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


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


def read_columns(file: Path, columns: Sequence[str]) -> Floats:
    """Read columns of a table by name, whatever their order, float64 [N, len(columns)].

    The separator is a semicolon where the header holds one, else a comma.

    Raises
    ------
    SourceError
        The file cannot be read, a column is absent, or a value is not a finite number.
    """
    fix = "correct the table or the column names of the study"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot be read: {error}", file=file, fix="check the path") from error
    lines = text.splitlines()
    if len(lines) < 2:
        raise SourceError("holds no rows", file=file, fix=fix)
    rows = list(csv.reader(lines, delimiter=";" if ";" in lines[0] else ","))
    header = [name.strip() for name in rows[0]]
    absent = [name for name in columns if header.count(name) != 1]
    if absent:
        raise SourceError(f"no column, or several, called {absent[0]!r}", file=file, place="line 1", fix=fix)
    order = [header.index(name) for name in columns]
    values = np.empty((len(rows) - 1, len(columns)))
    for number, row in enumerate(rows[1:]):
        try:
            values[number] = [float(row[column]) for column in order]
        except (ValueError, IndexError) as error:
            raise SourceError(
                f"not a row of numbers: {error}", file=file, place=f"line {number + 2}", fix=fix
            ) from error
        if not np.isfinite(values[number]).all():
            raise SourceError("not a finite number", file=file, place=f"line {number + 2}", fix=fix)
    return values


def read_study(config: TransferConfig, root: Path) -> Study:
    """Read the tables that a configuration names; paths in it start at `root`.

    Raises
    ------
    SourceError
        A table cannot be read, or does not fit the others.
    """
    files, names = config.tables, config.columns
    table = read_columns(root / files.predictors, (names.label, *names.place, *names.predictors))
    labels, place, raw = table[:, 0].astype(np.int64), table[:, 1:3], table[:, 3:]
    published = read_columns(root / files.components, (names.label, *names.components))
    if len(published) != len(table) or (published[:, 0] != table[:, 0]).any():
        raise SourceError(
            f"does not have the rows and labels of {files.predictors}",
            file=root / files.components,
            fix="give both tables of the same rows, in the same order",
        )
    components = published[:, 1:]
    place = np.where((place == NO_PLACE).all(axis=1, keepdims=True), np.nan, place)
    matrix, offset = fit_linear(raw, components, root / files.components)
    pretext = read_columns(
        root / files.pretext, (names.pretext_label, *names.pretext_place, *names.components)
    )
    unlabelled = read_columns(root / files.unlabelled, names.components)
    back = np.linalg.pinv(matrix)
    known = nearest(unlabelled, components) < SAME
    notes = [*row_notes(components, labels, place)]
    if known.any():
        notes.append(f"{known.sum()} unlabelled rows are labelled rows too: not learned from")
    experiments = {
        name: match_rows(read_columns(root / file, (names.label, *names.components)), published, root / file)
        for name, file in files.experiments.items()
    }
    return Study(
        predictors=names.predictors,
        raw=raw,
        components=components,
        labels=labels,
        place=place,
        experiments=experiments,
        pretext=(pretext[:, 3:] - offset) @ back,
        pretext_labels=pretext[:, 0].astype(np.int64),
        pretext_place=pretext[:, 1:3],
        pretext_components=pretext[:, 3:],
        unlabelled=(unlabelled - offset) @ back,
        unlabelled_components=unlabelled,
        fresh=~known,
        to_components=(matrix, offset),
        notes=tuple(notes),
    )


def fit_linear(raw: Floats, components: Floats, file: Path) -> tuple[Floats, Floats]:
    """Find the linear map from predictors [N, P] to components [N, C]: matrix [P, C] and offset [C].

    Raises
    ------
    SourceError
        The components are something else, or do not tell the predictors.
    """
    centre = raw.mean(axis=0)
    solution, _, rank, _ = np.linalg.lstsq(np.c_[raw - centre, np.ones(len(raw))], components, rcond=None)
    matrix = np.asarray(solution[:-1], np.float64)
    offset = np.asarray(solution[-1] - centre @ matrix, np.float64)
    worst = float(np.abs(raw @ matrix + offset - components).max())
    if worst > LINEAR or rank <= raw.shape[1] or np.linalg.matrix_rank(matrix) < raw.shape[1]:
        raise SourceError(
            f"components are no invertible linear function of the predictors (off by {worst:.3g})",
            file=file,
            fix="give the components of the same predictors, as many as there are predictors",
        )
    return matrix, offset


def match_rows(wanted: Floats, known: Floats, file: Path) -> Integers:
    """Find rows [K, C] among others [N, C] by value, each of those at most once, int64 [K].

    Raises
    ------
    SourceError
        A row is not there.
    """
    apart = np.abs(wanted[:, None] - known[None]).max(axis=2)
    free, found = np.ones(len(known), np.bool_), np.empty(len(wanted), np.int64)
    for number, distances in enumerate(apart):
        candidates = np.flatnonzero((distances < SAME) & free)
        if not len(candidates):
            raise SourceError(
                "this row is not in the table of components",
                file=file,
                place=f"line {number + 2}",
                fix="give experiments that are parts of that table",
            )
        found[number] = candidates[distances[candidates].argmin()]
        free[found[number]] = False
    return found


def nearest(rows: Floats, others: Floats) -> Floats:
    """Largest difference in any column to the nearest of the others, float64 [len(rows)]."""
    distances: Floats = np.array([np.abs(others - row).max(axis=1).min() for row in rows])
    return distances


def row_notes(components: Floats, labels: Integers, place: Floats) -> list[str]:
    """Say what is unusual about labelled rows: repeated, contradicting, without a place."""
    same = np.abs(components[:, None] - components[None]).max(axis=2) < SAME
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


def leaked_rows(validation: Floats, training: Floats) -> Flags:
    """Tell which validation rows also occur among training rows, by their components, bool [V]."""
    return nearest(validation, training) < SAME
