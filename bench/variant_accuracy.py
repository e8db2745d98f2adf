"""R2 of the network in fp32, fp16 and int8 on rows of real core that it has not seen.

    python bench/variant_accuracy.py training/configs/m9907-11pc.toml
    python bench/variant_accuracy.py training/configs/m9907-11pc.toml --seeds 0 1 2

The folds are those of `lithostream train properties`; each fold's network is exported, brought to fewer bits with
calibration tiles of its own training rows, and run by ONNX Runtime on the rows held out. Per property: R2 of each
precision over all held-out rows, and by how much it lies below fp32's (at most 0.01 is asked for).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from lithostream.engine.config import load_toml
from lithostream.export.graph import to_onnx
from lithostream.export.int8 import to_int8
from lithostream.export.variants import to_fp16
from lithostream.training.checkpoint import calibration_tiles
from lithostream.training.config import TrainConfig
from lithostream.training.data.profile import on_scale
from lithostream.training.data.sources import training_sections
from lithostream.training.data.splits import away_from, validation_parts, validation_splits
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.fit import fit
from lithostream.training.metrics import score
from lithostream.training.out_of_fold import folds_of

BATCH = 256
ALLOWED_DROP = 0.01

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def main() -> None:
    """Print a table per target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    config = load_toml(given.config, TrainConfig)
    tiles = cut(config, given.config)
    found = [out_of_fold(tiles, config, seed) for seed in given.seeds]
    flags = config.logarithmic_flags()
    measured = on_scale(tiles.labels, flags)
    for target, name in enumerate(config.targets):
        r2 = {
            precision: np.array([score(run[precision][:, target], measured[:, target]).r2 for run in found])
            for precision in found[0]
        }
        for precision, each in r2.items():
            drop = r2["fp32"] - each
            print(
                f"{name:24} {precision}  R2 {each.mean():.4f}  drop {drop.mean():+.4f}, at worst {drop.max():+.4f}"
                f"  {'met' if drop.max() <= ALLOWED_DROP else 'MISSED'} ({len(found)} seeds)"
            )


def cut(config: TrainConfig, path: Path) -> TileSet:
    """All labelled tiles of a configuration."""
    with training_sections(config, path, ()) as sections:
        return build_tiles(
            sections,
            config.targets,
            config.tile.as_input(),
            config.run_settings(),
            config.qc,
            interpolate_cm=config.interpolate_cm,
        )


def out_of_fold(tiles: TileSet, config: TrainConfig, seed: int) -> dict[str, Floats]:
    """Predictions [R, T] of each precision, on the scale that targets are scored on."""
    fold, flags = folds_of(tiles, config.split, seed), config.logarithmic_flags()
    found: dict[str, Floats] = {}
    for k in range(config.split.folds):
        held = fold == k
        seen = away_from(tiles, held, config.split.gap_cm)
        part = tiles.of_rows(held)
        for precision, graph in graphs(tiles, seen, config, seed, seed * config.split.folds + k):
            values = found.setdefault(precision, np.full(tiles.labels.shape, np.nan))
            values[held] = part.row_mean(run(graph, part))
    # A network is not bound to positive values.
    lowest = np.nanmin(np.where(tiles.labels > 0, tiles.labels, np.nan), axis=0)
    return {
        precision: on_scale(np.where(flags, np.maximum(values, lowest), values), flags)
        for precision, values in found.items()
    }


def graphs(
    tiles: TileSet, seen: Bools, config: TrainConfig, seed: int, network_seed: int
) -> Iterator[tuple[str, bytes]]:
    """Fit a network to the `seen` rows, and yield it in each precision."""
    parts = validation_parts(tiles, config.split, seen)
    splits = validation_splits(tiles, seen, parts, config.split.gap_cm, config.fit.validations, seed)
    fitted = fit(tiles, seen, splits, config.fit, network_seed)
    print(f"fold of network {network_seed}: {fitted.best_epoch} epochs", flush=True)
    graph = to_onnx(fitted.model, config.tile.size_px)
    yield "fp32", graph
    yield "fp16", to_fp16(onnx.load_from_string(graph)).SerializeToString()
    calibration = calibration_tiles(tiles.of_rows(seen))[::2]  # as many as an export uses
    yield "int8", to_int8(onnx.load_from_string(graph), calibration).SerializeToString()


def run(graph: bytes, tiles: TileSet) -> npt.NDArray[np.float32]:
    """Properties [N, T] of all tiles."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["properties"], {"tiles": part})[0] for part in tiles.batches(BATCH)])


if __name__ == "__main__":
    main()
