"""Score a bundle on labelled sections, beside baselines on mean colour."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from rich.console import Console

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import RunSettings, StrictModel
from lithostream.engine.core.section import Section
from lithostream.engine.errors import BundleError, ConfigError
from lithostream.engine.inference import open_session
from lithostream.engine.io.mscl import read_log
from lithostream.training.baselines import BASELINES
from lithostream.training.checkpoint import DataFile
from lithostream.training.config import SplitConfig, TrainConfig
from lithostream.training.crossval import MODEL, baseline_folds
from lithostream.training.data.sources import data_hashes, labelled_sections
from lithostream.training.data.splits import depth_blocks
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.metrics import Scores, score
from lithostream.training.tables import evaluation_table

Floats = npt.NDArray[np.float64]


class TargetEvaluation(StrictModel):
    """One property on one data set.

    Attributes
    ----------
    scores : dict of model name to Scores
        The bundle as it is; baselines fitted to these data, out of fold over depth blocks.
    half_width_90, coverage_90 : float
        The bundle's interval, and the share of readings inside it.
    """

    scores: dict[str, Scores]
    half_width_90: float
    coverage_90: float


class Evaluation(StrictModel):
    """What `lithostream evaluate` prints.

    Attributes
    ----------
    bundle : str
    seen_in_training : tuple of str
        Files that the bundle was trained on: with any, the scores are not honest.
    rows : int
        Labelled rows of depth.
    out_of_domain_share : float
        Share of rows that a run would flag, and give no minerals for.
    targets : dict of target to TargetEvaluation
    """

    bundle: str
    seen_in_training: tuple[str, ...]
    rows: int
    out_of_domain_share: float
    targets: dict[str, TargetEvaluation]


class _Trained(StrictModel):
    """The parts of a bundle's training record that evaluation needs."""

    config: TrainConfig
    data: tuple[DataFile, ...]


def evaluate(bundle_path: Path, data_path: Path, console: Console | None = None) -> Evaluation:
    """Score a bundle and print the table.

    Parameters
    ----------
    bundle_path : Path
    data_path : Path
        Manifest, folder or image with sensor logs.
    console : Console, optional
        For the table; stderr by default.

    Raises
    ------
    LithostreamError
        The bundle or the data cannot be used.
    """
    console = console or Console(stderr=True)
    bundle = load_bundle(bundle_path)
    trained = _trained(bundle)
    config = trained.config
    sections = labelled_sections([data_path])
    tiles = build_tiles(
        sections, _measured(bundle, sections), bundle.manifest.input, config.run_settings(), config.qc
    )
    found, outside = _predict_rows(bundle, sections, tiles, config.run_settings())
    known = {file.sha256 for file in trained.data}
    result = Evaluation(
        bundle=bundle.manifest.name,
        seen_in_training=tuple(sorted(n for n, sha in data_hashes(sections).items() if sha in known)),
        rows=len(tiles.labels),
        out_of_domain_share=float(outside.mean()),
        targets=_evaluate_targets(bundle, tiles, found),
    )
    _print(result, console)
    return result


def _trained(bundle: Bundle) -> _Trained:
    record = {key: bundle.manifest.training.get(key) for key in _Trained.model_fields}
    try:
        return _Trained.model_validate(record)
    except ValidationError as error:
        raise BundleError(
            "does not say how it was trained",
            file=bundle.path,
            place="training",
            fix="evaluate a bundle that `lithostream export` wrote from a checkpoint",
        ) from error


def _measured(bundle: Bundle, sections: list[Section]) -> tuple[str, ...]:
    """Return the bundle's targets that the logs of these sections hold."""
    held = {name for one in sections if one.log for name in read_log(one.log, one.section).values}
    measured = tuple(name for name in bundle.targets if name in held)
    if not measured:
        raise ConfigError(
            f"no log has a usable column for {', '.join(bundle.targets)}",
            file=sections[0].log,
            fix="check the columns and units of the logs",
        )
    return measured


def _predict_rows(
    bundle: Bundle, sections: list[Section], tiles: TileSet, settings: RunSettings
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Row means of the measured targets as a run gives them, float64 [R, T], and rows it would flag, bool [R]."""
    domain = bundle.manifest.domain
    session = open_session(bundle, batch=settings.batch, threads=settings.threads)
    parts = [session.infer(batch) for batch in tiles.batches(settings.batch)]
    properties, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    far = tiles.row_mean((distance > domain.distance_limit)[:, None].astype(np.float64))[:, 0] > 0.5
    strange = np.array([not domain.admits(one.scanner, one.px_per_cm) for one in sections])
    columns = [bundle.targets.index(name) for name in tiles.targets]
    return tiles.row_mean(properties[:, columns]), far | strange[tiles.section]


def _evaluate_targets(bundle: Bundle, tiles: TileSet, found: Floats) -> dict[str, TargetEvaluation]:
    split = SplitConfig()
    blocks = int(depth_blocks(tiles, split.block_cm).max()) + 1
    split = SplitConfig(folds=max(2, min(split.folds, blocks)))
    baselines = [baseline_folds(tiles, split, seed) for seed in split.seeds]
    half_widths = {output.name: output.half_width_90 for output in bundle.manifest.outputs}
    result = {}
    for column, name in enumerate(tiles.targets):
        reading, half_width = tiles.labels[:, column], half_widths[name]
        scores = {MODEL: score(found[:, column], reading)}
        for baseline in BASELINES:
            scores[baseline] = Scores.mean(
                [score(run.found[baseline][:, column], reading) for run in baselines]
            )
        known = np.isfinite(reading)
        inside = np.abs(found[known, column] - reading[known]) <= half_width
        result[name] = TargetEvaluation(
            scores=scores, half_width_90=half_width, coverage_90=float(inside.mean())
        )
    return result


def _print(result: Evaluation, console: Console) -> None:
    console.print(f"{result.bundle}; baselines are fitted to these data, out of fold over depth blocks")
    for target, one in result.targets.items():
        console.print(evaluation_table(target, one.scores, one.half_width_90, one.coverage_90))
    console.print(f"{100 * result.out_of_domain_share:.0f} % of the rows lie outside the bundle's domain")
    if result.seen_in_training:
        console.print(
            f"seen in training: not an honest score ({', '.join(result.seen_in_training)})", style="yellow"
        )
