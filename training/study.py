"""The `properties` study: cross-validate a network beside its baselines, then fit the one to ship."""

import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lithostream.engine.bundle import UNSPECIFIED
from lithostream.engine.config import load_toml
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.training.checkpoint import DataFile, TrainingRecord, save_checkpoint
from lithostream.training.config import TrainConfig
from lithostream.training.crossval import TargetReport, cross_validate, report_target
from lithostream.training.data.sources import data_hashes, training_sections
from lithostream.training.data.splits import validation_parts, validation_splits
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.fit import Fitted, fit, predict_tiles
from lithostream.training.tables import cross_validation_table

# A tile further out than all but one in a thousand training tiles, by half as much again, is unknown material:
# held-out tiles of the same core lie beyond the training quantile, because the covariance was fitted to it.
DISTANCE_QUANTILE, DISTANCE_MARGIN = 0.999, 1.5
SCALE_MARGIN = 0.10
PACKAGES = ("lithostream", "torch", "torchvision", "scikit-learn", "numpy")


def train_properties(
    config_path: Path,
    out: Path,
    data: Sequence[Path] = (),
    console: Console | None = None,
) -> dict[str, object]:
    """Train and write a checkpoint.

    Parameters
    ----------
    config_path : Path
        TOML, see `TrainConfig`.
    out : Path
        Folder to make; must not exist.
    data : sequence of Path
        Manifests, folders or images in place of those that the configuration names.
    console : Console, optional
        For progress and tables; stderr by default.

    Returns
    -------
    dict
        JSON-ready: checkpoint, rows, tiles, best epoch and the cross-validation per target.

    Raises
    ------
    LithostreamError
        Naming the file, the place, the reason and the fix.
    """
    console = console or Console(stderr=True)
    config = load_toml(config_path, TrainConfig)
    if out.exists():
        raise ConfigError("exists already", file=out, fix="choose another --out, or remove it")
    with training_sections(config, config_path, data) as sections:
        tiles = build_tiles(
            sections,
            config.targets,
            config.tile.as_input(),
            config.run_settings(),
            config.qc,
            interpolate_cm=config.interpolate_cm,
        )
        hashes = data_hashes(sections)
    metrics, fitted = _fit_all(tiles, config, console)
    record = _record(config, tiles, sections, hashes, metrics, fitted)
    _write(out, fitted, record)
    _print(record, console)
    return {
        "checkpoint": str(out),
        "rows": record.rows,
        "tiles": record.tiles,
        "best_epoch": record.best_epoch,
        "targets": {name: report.model_dump() for name, report in metrics.items()},
    }


def _print(record: TrainingRecord, console: Console) -> None:
    split = record.config.split
    console.print(
        f"{record.config.name}: {record.rows} labelled rows, out of fold: {split.describe()}, {len(split.seeds)} seeds"
    )
    for target, report in record.metrics.items():
        console.print(cross_validation_table(target, report))


def _fit_all(tiles: TileSet, config: TrainConfig, console: Console) -> tuple[dict[str, TargetReport], Fitted]:
    split = config.split
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("networks", total=split.folds * len(split.seeds) + 1)

        def advance() -> None:
            progress.advance(task)

        runs = [cross_validate(tiles, config.fit, split, seed, advance) for seed in split.seeds]
        fitted = _fit_final(tiles, config)
        advance()
    reports = {
        name: report_target(tiles, i, runs, leaky=split.leaky) for i, name in enumerate(config.targets)
    }
    return reports, fitted


def _fit_final(tiles: TileSet, config: TrainConfig) -> Fitted:
    seed, split = config.split.seeds[0], config.split
    everything = np.ones(len(tiles.labels), np.bool_)
    parts = validation_parts(tiles, split, everything)
    splits = validation_splits(tiles, everything, parts, split.gap_cm, config.fit.validations, seed)
    return fit(tiles, everything, splits, config.fit, seed)


def _record(
    config: TrainConfig,
    tiles: TileSet,
    sections: Sequence[Section],
    hashes: dict[str, str],
    metrics: dict[str, TargetReport],
    fitted: Fitted,
) -> TrainingRecord:
    distance = predict_tiles(fitted.model, tiles).distance
    scales = [section.px_per_cm for section in sections]
    return TrainingRecord(
        config=config,
        seed=config.split.seeds[0],
        rows=len(tiles.labels),
        tiles=len(tiles.tile),
        best_epoch=fitted.best_epoch,
        metrics=metrics,
        distance_limit=float(np.quantile(distance, DISTANCE_QUANTILE)) * DISTANCE_MARGIN,
        scanners=tuple(sorted({section.scanner or UNSPECIFIED for section in sections})),
        px_per_cm=(min(scales) * (1 - SCALE_MARGIN), max(scales) * (1 + SCALE_MARGIN)),
        data=tuple(DataFile(name=name, sha256=sha256) for name, sha256 in sorted(hashes.items())),
        versions={name: version(name) for name in PACKAGES},
    )


def _write(out: Path, fitted: Fitted, record: TrainingRecord) -> None:
    """Write beside `out`, then rename: a checkpoint is there whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o755)
        save_checkpoint(folder, fitted.model, record)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
