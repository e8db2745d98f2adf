"""The `properties` study: cross-validate a network beside its baselines, then fit the one to ship."""

import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from lithostream.engine.config import load_toml
from lithostream.engine.core.depth_model import DepthModel
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.engine.manifest import UNSPECIFIED
from lithostream.training.checkpoint import DataFile, TrainingRecord, calibration_tiles, save_checkpoint
from lithostream.training.config import TrainConfig
from lithostream.training.crossval import cross_validate
from lithostream.training.data.cache import cache_key
from lithostream.training.data.profile import in_profile
from lithostream.training.data.sources import data_hashes, training_sections
from lithostream.training.data.splits import validation_parts, validation_splits
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.depth import calibrated, fit_depth_model
from lithostream.training.device import fit_device
from lithostream.training.fit import Fitted, fit, predict_tiles
from lithostream.training.models.properties import PropertyNet
from lithostream.training.out_of_fold import OutOfFold
from lithostream.training.pretrained import Pretrained, load_pretrained
from lithostream.training.report import TargetReport, calibration, error_correlation, report_target
from lithostream.training.state import Journal, training_code
from lithostream.training.tables import cross_validation_table
from lithostream.training.watch import SCALARS, Watch

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

    What is done is kept in a folder beside `out`, from which the same call goes on after a kill, to the same
    result; it is removed once the checkpoint is written.

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
    weights = _checked_weights(config, config_path, console)
    with training_sections(config, config_path, data) as sections:
        tiles = build_tiles(
            sections,
            config.targets,
            config.tile.as_input(),
            config.run_settings(),
            config.qc,
            interpolate_cm=config.interpolate_cm,
        )
        hashes = data_hashes(sections) | {f"init_weights/{one.file}": one.sha256 for one in weights}
        journal = Journal(out.parent / f".{out.name}.partial", _key(config, sections, weights))
    if journal.found:
        console.print(journal.found)
    runs, fitted = _fit_all(tiles, _beside(config, config_path), console, journal)
    metrics = {
        name: report_target(tiles, i, runs, config.logarithmic_flags(), leaky=config.split.leaky)
        for i, name in enumerate(config.targets)
    }
    correlation = error_correlation(tiles, runs, config.logarithmic_flags())
    record = _record(config, tiles, sections, hashes, metrics, correlation, fitted)
    _write(out, fitted, _depth_model(tiles, config, runs), record, calibration_tiles(tiles), journal)
    journal.remove()
    _print(record, console)
    return {
        "checkpoint": str(out),
        "rows": record.rows,
        "tiles": record.tiles,
        "best_epoch": record.best_epoch,
        "targets": {name: report.model_dump() for name, report in metrics.items()},
    }


def _beside(config: TrainConfig, config_path: Path) -> TrainConfig:
    """Let the path of initial weights start at the folder of the configuration."""
    given = config.fit.init_weights
    if given is None:
        return config
    fit = config.fit.model_copy(update={"init_weights": config_path.parent / given})
    return config.model_copy(update={"fit": fit})


def _checked_weights(config: TrainConfig, config_path: Path, console: Console) -> tuple[Pretrained, ...]:
    """Try the initial weights before hours of cutting tiles, and say what they leave to chance."""
    path = _beside(config, config_path).fit.init_weights
    if path is None:
        return ()
    tile, fit = config.tile.as_input(), config.fit
    network = PropertyNet(
        len(config.targets), fit.width, tile.size_px, fit.dropout, fit.network, channels=tile.channels
    )
    found = load_pretrained(network, path)
    console.print(
        f"initial weights: {found.tensors} tensors of {found.file};"
        f" adapted: {', '.join(found.adapted) or 'none'}; random: {', '.join(found.random) or 'none'}"
    )
    return (found,)


def _key(config: TrainConfig, sections: Sequence[Section], weights: Sequence[Pretrained]) -> str:
    """SHA-256 of all that decides the result, and its last bit."""
    return cache_key(
        sections,
        weights=[one.sha256 for one in weights],
        config=config.model_dump(mode="json"),
        packages=_versions(),
        training=training_code(),
        device=str(fit_device(config.fit.device)),
    )


def _print(record: TrainingRecord, console: Console) -> None:
    split = record.config.split
    console.print(
        f"{record.config.name}: {record.rows} labelled rows, out of fold: {split.describe()}, {len(split.seeds)} seeds"
    )
    for target, report in record.metrics.items():
        console.print(cross_validation_table(target, report))


def _depth_model(tiles: TileSet, config: TrainConfig, runs: Sequence[OutOfFold]) -> DepthModel | None:
    if not config.depth_model:
        return None
    flags = config.logarithmic_flags()
    fitted = fit_depth_model(tiles.profile, in_profile(tiles), tiles.labels, flags)
    return calibrated(fitted, *calibration(tiles, runs, flags))


def _fit_all(
    tiles: TileSet, config: TrainConfig, console: Console, journal: Journal
) -> tuple[list[OutOfFold], Fitted]:
    split = config.split
    scalars = journal.folder / SCALARS if config.fit.tensorboard else None
    with Watch(console, split.folds * len(split.seeds) + 1, scalars) as watch:
        journal.on_epoch = watch.epoch
        runs = [cross_validate(tiles, config, seed, watch.network_done, journal) for seed in split.seeds]
        fitted = _fit_final(tiles, config, journal)
        watch.network_done()
    return runs, fitted


def _fit_final(tiles: TileSet, config: TrainConfig, journal: Journal) -> Fitted:
    seed, split = config.split.seeds[0], config.split
    everything = np.ones(len(tiles.labels), np.bool_)
    parts = validation_parts(tiles, split, everything)
    splits = validation_splits(tiles, everything, parts, split.gap_cm, config.fit.validations, seed)
    return fit(tiles, everything, splits, config.fit, seed, journal.page("final"))


def _record(
    config: TrainConfig,
    tiles: TileSet,
    sections: Sequence[Section],
    hashes: dict[str, str],
    metrics: dict[str, TargetReport],
    correlation: tuple[tuple[float, ...], ...],
    fitted: Fitted,
) -> TrainingRecord:
    distance = predict_tiles(fitted.model, tiles).distance
    scales = [section.px_per_cm for section in sections]
    given = config.fit.init_weights  # the name says enough: where it lay is nobody's business
    fit = config.fit.model_copy(update={"init_weights": given and Path(given.name)})
    return TrainingRecord(
        config=config.model_copy(update={"fit": fit}),
        seed=config.split.seeds[0],
        rows=len(tiles.labels),
        tiles=len(tiles.tile),
        best_epoch=fitted.best_epoch,
        metrics=metrics,
        distance_limit=float(np.quantile(distance, DISTANCE_QUANTILE)) * DISTANCE_MARGIN,
        scanners=tuple(sorted({section.scanner or UNSPECIFIED for section in sections})),
        px_per_cm=(min(scales) * (1 - SCALE_MARGIN), max(scales) * (1 + SCALE_MARGIN)),
        error_correlation=correlation,
        data=tuple(DataFile(name=name, sha256=sha256) for name, sha256 in sorted(hashes.items())),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _write(
    out: Path,
    fitted: Fitted,
    depth_model: DepthModel | None,
    record: TrainingRecord,
    calibration_pixels: npt.NDArray[np.uint8],
    journal: Journal,
) -> None:
    """Write beside `out`, then rename: a checkpoint is there whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o755)
        save_checkpoint(folder, fitted.model, depth_model, record, calibration_pixels)
        if record.config.fit.tensorboard:
            shutil.copytree(journal.folder / SCALARS, folder / SCALARS)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
