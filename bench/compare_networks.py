"""ResNet-18 beside HRNet-DeepLabV3+ on the same generated cores, whole cores held out, same folds and seeds.

    python bench/compare_networks.py
    python bench/compare_networks.py --cores 24 --length-cm 100 --epochs 40 --size-px 200 --device cuda --width 64

Per scale and property: R2 of both networks, the highest R2 that the noise of the sensors leaves to anyone, and the
difference of the two with a 95 % interval over cores (bootstrap: a core is the unit that is independent). The floor
of noise compares the log with the same footprints read without noise. P-wave velocity also scatters by what no
camera sees, so no network can reach its bound.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import SENSORS, generate
from lithostream.engine.io.mscl import read_log
from lithostream.engine.manifest import TileInput
from lithostream.training.config import FitConfig, SplitConfig, SyntheticConfig
from lithostream.training.data.labels import row_labels
from lithostream.training.data.sources import labelled_sections
from lithostream.training.data.splits import (
    assign_folds,
    away_from,
    cores,
    validation_parts,
    validation_splits,
)
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.demo_data import write_cores
from lithostream.training.device import deterministic, fit_device
from lithostream.training.fit import fit, predict_tiles
from lithostream.training.metrics import score
from lithostream.training.run import Run

Floats = npt.NDArray[np.float64]

TARGETS = tuple(sensor.name for sensor in SENSORS)
FIRST_SEED = 3000
TRUTH_PX_PER_CM = 4.0  # truth does not depend on the scale of the image, and the coarsest is the fastest
RESAMPLES = 2000
TIMED_EPOCHS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One network at one scale: out-of-fold values [R, T], epochs per fold, seconds in all and per step."""

    found: Floats
    epochs: tuple[int, ...]
    seconds: float
    step_s: float


def arguments() -> argparse.Namespace:
    """What may be varied; the defaults are small, for a CPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=6)
    parser.add_argument("--length-cm", type=float, default=40.0)
    parser.add_argument("--width-cm", type=float, default=6.0)
    parser.add_argument("--px-per-cm", type=float, nargs="+", default=[200.0, 15.0])
    parser.add_argument("--size-px", type=int, default=64, help="tiles of 1 cm are at most this large")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-rows", type=int, default=16)
    parser.add_argument("--tiles-per-row", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=16, help="of ResNet-18; 64 is the published one")
    parser.add_argument("--hrnet", choices=["hrnet_w18", "hrnet_w32"], default="hrnet_w18")
    parser.add_argument("--init-resnet", type=Path, help="ImageNet weights; needs --width 64")
    parser.add_argument("--init-hrnet", type=Path, help="ImageNet weights")
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def fit_configs(given: argparse.Namespace) -> dict[str, FitConfig]:
    """Equal settings but for the network."""
    shared = FitConfig(
        width=given.width,
        epochs=given.epochs,
        patience=given.epochs,
        batch_rows=given.batch_rows,
        tiles_per_row=given.tiles_per_row,
        learning_rate=given.learning_rate,
        threads=given.threads,
        device=given.device,
    )
    return {
        "resnet18": shared.model_copy(update={"init_weights": given.init_resnet}),
        given.hrnet: shared.model_copy(update={"network": given.hrnet, "init_weights": given.init_hrnet}),
    }


def quiet_labels(tiles: TileSet, sections: Sequence[Section], given: argparse.Namespace) -> Floats:
    """Labels [R, T] that the same log would give without the noise of its sensors."""
    found = np.full(tiles.labels.shape, np.nan)
    for index, section in enumerate(sections):
        here = np.flatnonzero(tiles.section == index)
        assert section.log is not None
        _write_quiet(section.log, given)
        log = read_log(section.log.with_suffix(".quiet.csv"), section.section)
        found[here] = row_labels(log, TARGETS, tiles.top_cm[here], tiles.base_cm[here], {}).value
    return found


def _write_quiet(log: Path, given: argparse.Namespace) -> None:
    """Write a log again beside itself, each reading replaced by the mean truth of its footprint."""
    seed = int(log.name.split("_")[1])
    core = generate(seed, length_cm=given.length_cm, width_cm=given.width_cm, px_per_cm=TRUTH_PX_PER_CM)
    with log.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    depth = np.array([float(row["sb_depth_cm"]) for row in rows])
    for sensor in SENSORS:
        half = 0.5 * sensor.footprint_cm
        truth = core.truth_at(depth - half, depth + half)[sensor.name]
        for row, value in zip(rows, truth, strict=True):
            row[sensor.column] = row[sensor.column] and f"{value:.6f}"
    with log.with_suffix(".quiet.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def out_of_fold(tiles: TileSet, config: FitConfig, split: SplitConfig, seed: int) -> Outcome:
    """Predict every row by a network that saw no other row of its core."""
    started, part = time.perf_counter(), cores(tiles)
    fold, found, epochs = assign_folds(part, split.folds, seed), np.full(tiles.labels.shape, np.nan), []
    for k in range(split.folds):
        held = fold == k
        allowed = away_from(tiles, held, split.gap_cm)
        parts = validation_parts(tiles, split, allowed)
        splits = validation_splits(tiles, allowed, parts, split.gap_cm, config.validations, seed)
        fitted, unseen = fit(tiles, allowed, splits, config, seed + k), tiles.of_rows(held)
        found[held] = unseen.row_mean(predict_tiles(fitted.model, unseen).properties)
        epochs.append(fitted.best_epoch)
        print(f"  {config.network} fold {k}: {time.perf_counter() - started:.0f} s", flush=True)
    seconds = time.perf_counter() - started
    return Outcome(found, tuple(epochs), seconds, step_seconds(tiles, config, seed))


def step_seconds(tiles: TileSet, config: FitConfig, seed: int) -> float:
    """Median over epochs of the time of one step: forward, backward, AdamW, and reading the tiles."""
    device, times = fit_device(config.device), []
    with deterministic(config.threads, device):
        run = Run(tiles, config, seed, device)
        for _ in range(TIMED_EPOCHS):
            started = time.perf_counter()
            run.epoch()  # ends by reading the loss, so work queued on a device is done
            times.append((time.perf_counter() - started) / run.steps)
    return statistics.median(times)


def gap_interval(ours: Floats, theirs: Floats, measured: Floats, core: npt.NDArray[np.int64]) -> Floats:
    """2.5 % and 97.5 % quantiles of R2(ours) - R2(theirs) over cores drawn with replacement: float64 [2]."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(core == number) for number in np.unique(core)]
    gaps = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        gaps.append(score(ours[rows], measured[rows]).r2 - score(theirs[rows], measured[rows]).r2)
    return np.asarray(np.nanquantile(gaps, [0.025, 0.975]))


def compare(given: argparse.Namespace, px_per_cm: float, folder: Path) -> None:
    """Train both networks at one scale and print how they did."""
    length = (given.length_cm, given.length_cm)
    synthetic = SyntheticConfig(
        cores=given.cores,
        first_seed=FIRST_SEED,
        length_cm=length,
        width_cm=given.width_cm,
        px_per_cm=(px_per_cm,),
    )
    sections = labelled_sections(write_cores(synthetic, folder))
    tile = TileInput(tile_cm=1.0, size_px=min(given.size_px, round(px_per_cm)))
    tiles = build_tiles(sections, TARGETS, tile, RunSettings(), {}, cache=folder / "cache")
    print(
        f"\n{px_per_cm:g} px/cm: {given.cores} cores, {len(tiles.labels)} rows, {len(tiles.tile)} tiles of"
        f" {tile.size_px} px, {given.folds} folds of whole cores, at most {given.epochs} epochs",
        flush=True,
    )
    split = SplitConfig(kind="core", folds=given.folds, buffer_cm=0.0, seeds=(given.seed,))
    configs = fit_configs(given)
    outcomes = {name: out_of_fold(tiles, config, split, given.seed) for name, config in configs.items()}
    report(tiles, quiet_labels(tiles, sections, given), outcomes, given)


def report(tiles: TileSet, quiet: Floats, outcomes: dict[str, Outcome], given: argparse.Namespace) -> None:
    """Print scores, their bound, the difference, and times."""
    ours, theirs = outcomes[given.hrnet], outcomes["resnet18"]
    print(f"{'property':24} {'noise floor':>12} {'resnet18':>9} {given.hrnet:>9} {'gap':>7}  95 % over cores")
    for target, name in enumerate(TARGETS):
        measured = tiles.measured[:, target]
        bound, a, b = (score(v[:, target], measured).r2 for v in (quiet, theirs.found, ours.found))
        low, high = gap_interval(ours.found[:, target], theirs.found[:, target], measured, cores(tiles))
        print(f"{name:24} {bound:12.3f} {a:9.3f} {b:9.3f} {b - a:+7.3f}  [{low:+.3f}, {high:+.3f}]")
    for name, outcome in outcomes.items():
        print(
            f"{name}: {outcome.step_s * 1e3:.0f} ms a step of {given.batch_rows * given.tiles_per_row} tiles,"
            f" {outcome.seconds:.0f} s in all, epochs kept {outcome.epochs}"
        )


def main() -> None:
    """Compare at every scale asked for."""
    given = arguments()
    for px_per_cm in given.px_per_cm:
        with TemporaryDirectory(prefix="lithostream_networks_") as folder:
            compare(given, px_per_cm, Path(folder))


if __name__ == "__main__":
    main()
