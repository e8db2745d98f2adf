"""The `transfer` study, from CSV to table and to models that can be exported."""

import csv
import hashlib
import io
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from lithostream.engine.config import load_toml
from lithostream.engine.errors import ConfigError
from lithostream.training.checkpoint import DataFile
from lithostream.training.device import deterministic
from lithostream.training.transfer.alike import alike, fingerprints
from lithostream.training.transfer.checkpoint import (
    MAPPED,
    RECORD,
    TABLE,
    TABLE_TEXT,
    TransferRecord,
    model_bytes,
    stored,
)
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.data import Study, read_study
from lithostream.training.transfer.features import extended_rows
from lithostream.training.transfer.final import Distance, Final, fit_distance, fit_final
from lithostream.training.transfer.importance import importances
from lithostream.training.transfer.protocol import SEED, parts, pool, run_all
from lithostream.training.transfer.published import Figures, reproduce
from lithostream.training.transfer.table import (
    JUDGED,
    Table,
    as_text,
    compare_published,
    experiment_of,
    winner,
)
from lithostream.training.transfer.tables import Floats, Integers, read_columns, read_labels

GOLDEN_ROWS = 64


def train_transfer(config_path: Path, out: Path, console: Console | None = None) -> dict[str, object]:
    """Reproduce, compare, and fit every model; write tables and checkpoint into `out`.

    Parameters
    ----------
    config_path : Path
        TOML, see `TransferConfig`.
    out : Path
        Folder to make; must not exist.
    console : Console, optional
        For the table; stderr by default.

    Returns
    -------
    dict
        A summary: `winner`, `deep_holds`, `seconds`, and `auc` and `average_precision` of the winner by experiment.

    Raises
    ------
    LithostreamError
        Naming the file, the place, the reason and the fix.
    """
    began, console = time.monotonic(), console or Console(stderr=True)
    config = load_toml(config_path, TransferConfig)
    if out.exists():
        raise ConfigError("exists already", file=out, fix="choose another --out, or remove it")
    root = Path(os.path.normpath(config_path.parent / config.root))
    study = read_study(config, root)
    validation, notes = _validation(config, study, root)
    with deterministic(1, torch.device("cpu")):
        table = _table(config, study, validation, (*study.notes, *notes), console)
        finals, repeat = fit_final(study, config)
    leaning = {
        name: importances(finals[name], study, config, repeat)
        for name in dict.fromkeys((table.winner, config.deep))
    }
    table = table.model_copy(update={"importance": leaning})
    record = _record(config, study, table, finals, root)
    _write(out, table, record, finals, study, config)
    console.print(as_text(table), markup=False, highlight=False)
    best = {name: one.models.get(table.winner, {}) for name, one in table.experiments.items()}
    return {
        "winner": table.winner,
        "deep_holds": table.deep_holds,
        "seconds": round(time.monotonic() - began, 1),
        **{metric: {name: own[metric][0] for name, own in best.items() if own} for metric in JUDGED},
    }


def _validation(
    config: TransferConfig, study: Study, root: Path
) -> tuple[tuple[Floats, Integers] | None, list[str]]:
    """Read the validation rows, if there are any, and leave out those that were learned from."""
    if config.tables.validation is None:
        return None, []
    file = root / config.tables.validation
    rows = read_columns(file, (config.columns.label, *config.columns.components))
    labels = read_labels(rows[:, 0], file, config.columns.label, most=1)
    leaked = alike(rows[:, 1:], study.components, study.spread)
    found = (
        f"{leaked.sum()} of {len(rows)} validation rows ({labels[leaked].sum()} deposits) are training rows too, or nearly:"
        " they tell nothing, and are left out of the validation figures below (the published figures have them in)"
    )
    kept = labels[~leaked]
    if not 0 < kept.sum() < len(kept):
        return None, [found, "what is left of the validation rows has one class: it is not scored"]
    return (rows[~leaked, 1:], kept), [found]


def _table(
    config: TransferConfig,
    study: Study,
    validation: tuple[Floats, Integers] | None,
    notes: tuple[str, ...],
    console: Console,
) -> Table:
    made = parts(study, config)
    figures: Figures = {}
    with pool(config.workers) as workers:
        reproduced = None
        if config.published is not None:
            reproduced = workers.submit(reproduce, study, config.published, validation)
        scores = run_all(config, study, made, workers, lambda done: console.print(done, style="dim"))
        if reproduced is not None:
            figures = reproduced.result()
    experiments = {part.name: experiment_of(part, scores[part.name], study, config) for part in made}
    ends = [experiments[part.name] for part in (made[0], made[-1])]
    blocks = config.blocks
    return Table(
        notes=notes,
        protocol=(
            f"{blocks.folds} folds of square blocks of {blocks.edge_m / 1000:g} km, shifted, turned and dealt anew in"
            f" each repeat; rows within {blocks.buffer_m / 1000:g} km of a held-out row are not learned from; rows of one"
            " place, or alike, stay together. Scaling, components, threshold (of balanced accuracy) and calibration are"
            " found on the training folds. Means and 95 % intervals over repeats: of another partition of these rows,"
            " not of other rows."
        ),
        published=compare_published(figures, config, study),
        experiments=experiments,
        winner=winner(ends),
        deep=config.deep,
        deep_holds=all(one.deep_against_best[metric].gain[0] >= 0 for one in ends for metric in JUDGED),
    )


def _record(
    config: TransferConfig, study: Study, table: Table, finals: dict[str, Final], root: Path
) -> TransferRecord:
    tables = config.tables
    files = [tables.predictors, tables.components, tables.pretext, tables.unlabelled]
    matrix, offset = study.to_components
    logs = extended_rows(study, config).logarithms
    every = list(table.experiments)
    ends = every[0], every[-1]
    return TransferRecord(
        config=config,
        winner=table.winner,
        models={name: stored(final) for name, final in finals.items()},
        distance_limit=fit_distance(study.raw[study.located]).limit,
        logarithmic=(logs.columns, logs.scales),
        to_components=(matrix.tolist(), offset.tolist()),
        files=tuple(
            DataFile(name=file.name, sha256=hashlib.sha256((root / file).read_bytes()).hexdigest())
            for file in (*files, *tables.experiments.values())
        ),
        spread=tuple(study.spread.tolist()),
        row_hashes=tuple(fingerprints(study.components, study.spread)),
        notes=table.notes,
        metrics={name: {end: table.experiments[end].models[name] for end in ends} for name in finals},
        versions={name: version(name) for name in ("torch", "scikit-learn", "numpy")},
    )


def _write(
    out: Path,
    table: Table,
    record: TransferRecord,
    finals: dict[str, Final],
    study: Study,
    config: TransferConfig,
) -> None:
    rows = extended_rows(study, config)
    distance = fit_distance(study.raw[study.located])
    golden = _golden(study)
    out.mkdir(parents=True)
    for name, final in finals.items():
        (out / f"{name}.safetensors").write_bytes(model_bytes(final, distance, golden, rows.logarithms))
    mapped = _mapped(finals[table.winner], distance, study, config)
    (out / MAPPED).write_text(mapped, encoding="utf-8")
    (out / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (out / TABLE).write_text(table.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (out / TABLE_TEXT).write_text(as_text(table), encoding="utf-8")


def _golden(study: Study) -> npt.NDArray[np.float32]:
    """Rows like the training rows but none of them, float32 [G, P]."""
    raw = study.raw[study.located]
    rng = np.random.default_rng(SEED)
    parents = raw[rng.integers(0, len(raw), (2, GOLDEN_ROWS))]
    share = rng.random((GOLDEN_ROWS, 1))
    golden: npt.NDArray[np.float32] = (parents[0] * share + parents[1] * (1 - share)).astype(np.float32)
    return golden


def _mapped(final: Final, distance: Distance, study: Study, config: TransferConfig) -> str:
    """Probability, its uncertainty and the distance of every unlabelled row, in their order, as CSV."""
    logs = extended_rows(study, config).logarithms
    probability, uncertainty = final.predict(logs.extend(study.unlabelled))
    away = distance(study.unlabelled)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*config.columns.components, "probability", "uncertainty", "distance", "known_ground"])
    columns = (probability, uncertainty, away)
    for number, components in enumerate(study.unlabelled_components):
        values = [f"{column[number]:.6g}" for column in columns]
        writer.writerow([*(f"{one:.5f}" for one in components), *values, int(away[number] <= distance.limit)])
    return text.getvalue()
