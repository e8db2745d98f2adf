"""Score a bundle on labelled sections, beside baselines on mean colour."""

from collections.abc import Callable, Sequence
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
from lithostream.training.data.profile import in_profile, on_scale
from lithostream.training.data.sources import data_hashes, labelled_sections
from lithostream.training.data.splits import cores, depth_blocks
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.depth import predict_profile
from lithostream.training.metrics import Interval, Scores, interval, score, unseen_factors
from lithostream.training.out_of_fold import OutOfFold, baseline_folds
from lithostream.training.plots import RowValues, write_plots
from lithostream.training.report import MODEL
from lithostream.training.tables import core_table, evaluation_table

Floats = npt.NDArray[np.float64]


class SplitEvaluation(StrictModel):
    """Baselines under one way to hold rows out; `leaky` ones say nothing about unseen depth."""

    described: str
    leaky: bool
    scores: dict[str, Scores]
    intervals: dict[str, Interval]


class TargetEvaluation(StrictModel):
    """One property on one data set; of its natural logarithm where the bundle learned that.

    Attributes
    ----------
    scores : dict of model name to Scores
        The bundle as it is; baselines fitted to these data, out of fold over depth blocks.
    logarithmic : bool
    intervals : dict of model name to Interval
        The bundle's stated one; the baselines' own, each fold of depth blocks judged by the others.
    splits : dict of split kind to SplitEvaluation
        `block`, `core` where two or more cores have readings, and `random`, which leaks.
    cores : dict of first section's name to Scores
        The bundle, core by core.
    """

    scores: dict[str, Scores]
    logarithmic: bool
    intervals: dict[str, Interval]
    splits: dict[str, SplitEvaluation]
    cores: dict[str, Scores]


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


def evaluate(
    bundle_path: Path, data_path: Path, console: Console | None = None, out: Path | None = None
) -> Evaluation:
    """Score a bundle and print the tables.

    Parameters
    ----------
    bundle_path : Path
    data_path : Path
        Manifest, folder or image with sensor logs.
    console : Console, optional
        For the tables; stderr by default.
    out : Path, optional
        Folder for `evaluation.json` and a PNG per section.

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
    found = _predict_rows(bundle, sections, tiles, config.run_settings())
    known = {file.sha256 for file in trained.data}
    result = Evaluation(
        bundle=bundle.manifest.name,
        seen_in_training=tuple(sorted(n for n, sha in data_hashes(sections).items() if sha in known)),
        rows=len(tiles.labels),
        out_of_domain_share=float(found.outside.mean()),
        targets=_evaluate_targets(tiles, found, config),
    )
    if out is not None:
        _write(out, result, lambda folder: write_plots(folder, tiles, found))
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
) -> RowValues:
    """Values of the measured targets in the labelled rows as a run gives them."""
    domain = bundle.manifest.domain
    session = open_session(bundle, batch=settings.batch, threads=settings.threads)
    parts = [session.infer(batch) for batch in tiles.batches(settings.batch)]
    properties, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    far = tiles.row_mean((distance > domain.distance_limit)[:, None].astype(np.float64))[:, 0] > 0.5
    strange = np.array([not domain.admits(one.scanner, one.px_per_cm) for one in sections])
    outside = far | strange[tiles.section]
    columns = [bundle.targets.index(name) for name in tiles.targets]
    if bundle.depth_model is None:
        half = np.array([bundle.manifest.outputs[column].half_width_90 for column in columns])
        value = tiles.row_mean(properties[:, columns])
        return RowValues(value, value - half, value + half, outside)
    at = in_profile(tiles)
    rows = predict_profile(bundle.depth_model, tiles.profile)
    value, low, high = (part[at][:, columns] for part in (rows.value, rows.low, rows.high))
    return RowValues(value, low, high, outside | (rows.distance[at] > bundle.depth_model.distance_limit))


def _evaluate_targets(tiles: TileSet, found: RowValues, config: TrainConfig) -> dict[str, TargetEvaluation]:
    logarithmic = np.array([name in config.logarithmic for name in tiles.targets])
    readings = on_scale(tiles.measured, logarithmic)
    value, low, high = (on_scale(part, logarithmic) for part in (found.value, found.low, found.high))
    runs = {
        split: [baseline_folds(tiles, split, seed, logarithmic) for seed in split.seeds]
        for split in _splits(tiles)
    }
    result = {}
    for column, name in enumerate(tiles.targets):
        reading = readings[:, column]
        ours = interval(value[:, column] - reading, 0.5 * (high - low)[:, column])
        splits: dict[str, SplitEvaluation] = {
            split.kind: _baseline_scores(parts, split, column, reading) for split, parts in runs.items()
        }
        result[name] = TargetEvaluation(
            scores={MODEL: score(value[:, column], reading)} | splits["block"].scores,
            logarithmic=bool(logarithmic[column]),
            intervals={MODEL: ours} | splits["block"].intervals,
            splits=splits,
            cores=_core_scores(tiles, value[:, column], reading),
        )
    return result


def _splits(tiles: TileSet) -> list[SplitConfig]:
    """Depth blocks; one core at a time where two or more have readings of every target; random rows."""
    split = SplitConfig()
    blocks = int(depth_blocks(tiles, split.block_cm).max()) + 1
    found = [SplitConfig(folds=max(2, min(split.folds, blocks)))]
    core = cores(tiles)
    if min(len(np.unique(core[np.isfinite(reading)])) for reading in tiles.measured.T) > 1:
        found.append(SplitConfig(kind="core", folds=len(np.unique(core)), seeds=split.seeds[:1]))
    folds = min(split.folds, len(tiles.labels))
    return [*found, SplitConfig(kind="random", folds=folds, seeds=split.seeds[:1])]


def _baseline_scores(
    runs: Sequence[OutOfFold], split: SplitConfig, column: int, reading: Floats
) -> SplitEvaluation:
    scores, intervals = {}, {}
    for name in BASELINES:
        values = [run.found[name][:, column] for run in runs]
        scores[name] = Scores.mean([score(value, reading) for value in values])
        gaps = [(value - reading, run.fold) for value, run in zip(values, runs, strict=True)]
        intervals[name] = Interval.mean(
            [interval(gap, unseen_factors(gap, np.ones(len(gap)), fold)) for gap, fold in gaps]
        )
    return SplitEvaluation(described=split.describe(), leaky=split.leaky, scores=scores, intervals=intervals)


def _core_scores(tiles: TileSet, found: Floats, reading: Floats) -> dict[str, Scores]:
    """Scores of the bundle in each core with readings, named by its first section."""
    core = cores(tiles)
    result = {}
    for number in np.unique(core[np.isfinite(reading)]):
        here = core == number
        name = tiles.sections[int(tiles.section[here][0])].name
        result[name] = score(found[here], reading[here])
    return result


def _write(out: Path, result: Evaluation, plot: Callable[[Path], object]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError("is a file", file=out, fix="choose another --out") from error
    plot(out)
    (out / "evaluation.json").write_text(result.model_dump_json(indent=2) + "\n")


def _print(result: Evaluation, console: Console) -> None:
    console.print(f"{result.bundle}, fixed; baselines are fitted to these data, out of fold")
    for target, one in result.targets.items():
        for split in one.splits.values():
            console.print(
                evaluation_table(
                    target,
                    {MODEL: one.scores[MODEL]} | split.scores,
                    {MODEL: one.intervals[MODEL]} | split.intervals,
                    split.described,
                    logarithmic=one.logarithmic,
                )
            )
        if len(one.cores) > 1:
            console.print(core_table(target, one.cores, logarithmic=one.logarithmic))
    console.print(f"{100 * result.out_of_domain_share:.0f} % of the rows lie outside the bundle's domain")
    if result.seen_in_training:
        console.print(
            f"seen in training: not an honest score ({', '.join(result.seen_in_training)})", style="yellow"
        )
