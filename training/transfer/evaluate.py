"""Score a map bundle on labelled rows, and find those that it was trained on."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError
from rich.console import Console

from lithostream.engine.config import StrictModel
from lithostream.engine.errors import BundleError, ConfigError, SourceError
from lithostream.engine.maps.bundle import MapBundle, load_map_bundle
from lithostream.engine.maps.session import MapSession
from lithostream.training.transfer.alike import fingerprints
from lithostream.training.transfer.scores import evaluate, ranking
from lithostream.training.transfer.tables import (
    ColumnError,
    Flags,
    Floats,
    Integers,
    read_columns,
    read_labels,
)

RESULT = "evaluation.json"
DRAWS = 200  # of the bootstrap


class MapScores(StrictModel):
    """Metrics of rows, each as value, low and high of the 95 % interval over bootstrap draws of these rows."""

    rows: int
    deposits: int
    metrics: dict[str, tuple[float, float, float]]


class MapEvaluation(StrictModel):
    """What `lithostream evaluate` prints of a map bundle.

    Attributes
    ----------
    bundle : str
    seen_in_training : int
        Rows that the bundle was trained on, or that are nearly such rows, found by their values.
    all_rows : MapScores
        Flattered by rows seen in training, where there are any.
    unseen_rows : MapScores or None
        None where they are all seen, or of one class.
    unknown_ground_share : float
        Share of rows further from the training rows than the bundle's limit.
    """

    bundle: str
    seen_in_training: int
    all_rows: MapScores
    unseen_rows: MapScores | None
    unknown_ground_share: float


class _Components(StrictModel):
    names: tuple[str, ...]
    matrix: list[list[float]]
    offset: list[float]
    spread: list[float]


class _Training(BaseModel):
    """What an evaluation needs of `training` in the manifest."""

    label: str
    components: _Components
    row_hashes: list[list[str]]


def evaluate_map(
    bundle_path: Path, data: Path, console: Console | None = None, out: Path | None = None
) -> MapEvaluation:
    """Score a map bundle on a table of labelled rows.

    Parameters
    ----------
    bundle_path : Path
    data : Path
        CSV with the label's column and the bundle's predictors by name, or the principal components it knows.
    console : Console, optional
        For the table; stderr by default.
    out : Path, optional
        Folder to make for `evaluation.json`.

    Raises
    ------
    LithostreamError
        The bundle or the table cannot be read, or the rows are of one class.
    """
    console = console or Console(stderr=True)
    if out is not None and out.exists():
        raise ConfigError("exists already", file=out, fix="choose another --out, or remove it")
    bundle = load_map_bundle(bundle_path)
    raw, labels, seen = _rows(bundle, data)
    if not 0 < labels.sum() < len(labels):
        raise SourceError(
            "the rows have one class",
            file=data,
            place=f"column {_training(bundle).label}",
            fix="give rows with and without deposits",
        )
    found = MapSession(bundle).infer(raw.astype(np.float32))
    probability = found.probability.astype(np.float64)
    called = (probability >= bundle.manifest.threshold).astype(np.int64)
    fresh = ~seen
    both = 0 < labels[fresh].sum() < fresh.sum()
    result = MapEvaluation(
        bundle=bundle.manifest.name,
        seen_in_training=int(seen.sum()),
        all_rows=_scores(probability, called, labels),
        unseen_rows=_scores(probability[fresh], called[fresh], labels[fresh]) if both else None,
        unknown_ground_share=float((found.distance > bundle.manifest.distance_limit).mean()),
    )
    _print(result, data, console)
    if out is not None:
        out.mkdir(parents=True)
        (out / RESULT).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return result


def _training(bundle: MapBundle) -> _Training:
    try:
        return _Training.model_validate(bundle.manifest.training)
    except ValidationError as error:
        raise BundleError(
            "does not say which column is the label, or which rows it was trained on",
            file=bundle.path,
            place="training." + ".".join(str(part) for part in error.errors()[0]["loc"]),
            fix="export it from a checkpoint of `lithostream train transfer`",
        ) from error


def _rows(bundle: MapBundle, data: Path) -> tuple[Floats, Integers, Flags]:
    """Read what the bundle takes, labels, and which rows were, nearly, seen in training."""
    training = _training(bundle)
    names, known = tuple(one.name for one in bundle.manifest.predictors), training.components
    matrix, offset = np.array(known.matrix), np.array(known.offset)
    try:
        table = read_columns(data, (training.label, *names))
        taken = table[:, 1:]
        components = taken if names == known.names else taken @ matrix + offset
    except ColumnError:
        if names == known.names:
            raise
        table = read_columns(data, (training.label, *known.names))
        components = table[:, 1:]
        taken = (components - offset) @ np.linalg.pinv(matrix)
    labels = read_labels(table[:, 0], data, training.label, most=1)
    trained = {one for row in training.row_hashes for one in row}
    found = fingerprints(components, np.array(known.spread))
    return taken, labels, np.array([not trained.isdisjoint(row) for row in found], np.bool_)


def _scores(probability: Floats, called: Integers, labels: Integers) -> MapScores:
    value = ranking(probability, labels) | evaluate(probability, called, labels)
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in value}
    for _ in range(DRAWS):
        rows = rng.integers(0, len(labels), len(labels))
        if 0 < labels[rows].sum() < len(rows):
            one = ranking(probability[rows], labels[rows])
            one |= evaluate(probability[rows], called[rows], labels[rows])
            for name, found in one.items():
                drawn[name].append(found)
    metrics = {}
    for name, found in value.items():
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        metrics[name] = (found, float(low), float(high))
    return MapScores(rows=len(labels), deposits=int(labels.sum()), metrics=metrics)


def _print(result: MapEvaluation, data: Path, console: Console) -> None:
    console.print(f"{result.bundle} on {data.name}", highlight=False)
    if result.seen_in_training:
        console.print(
            f"{result.seen_in_training} rows were trained on: scores of all rows are not honest",
            style="yellow",
        )
    for name, scores in (("all rows", result.all_rows), ("rows not seen in training", result.unseen_rows)):
        if scores is None:
            continue
        console.print(f"{name}: {scores.deposits} deposits of {scores.rows}", highlight=False)
        for metric, (value, low, high) in scores.metrics.items():
            console.print(f"  {metric:18} {value:.3f} [{low:.3f}, {high:.3f}]", markup=False, highlight=False)
    share = 100 * result.unknown_ground_share
    console.print(f"{share:.0f} % of rows lie further from the training rows than the bundle's limit")
