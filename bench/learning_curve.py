"""How a network's score on fresh generated cores grows with the cores it learned from, beside ridge on mean colour.

    python bench/learning_curve.py --network resnet18 --cores 6 12 24 48 96

Every size adds cores to the smaller one; all are scored on the same cores, which none has seen.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import SENSORS
from lithostream.engine.manifest import TileInput
from lithostream.training.config import FitConfig, SplitConfig, SyntheticConfig
from lithostream.training.data.sources import labelled_sections
from lithostream.training.data.splits import validation_parts, validation_splits
from lithostream.training.data.tiles import TileSet, build_tiles
from lithostream.training.demo_data import write_cores
from lithostream.training.fit import fit, predict_tiles
from lithostream.training.metrics import score

TARGETS = tuple(sensor.name for sensor in SENSORS)
FIRST_SEED, FRESH_SEED, FRESH_CORES = 3000, 9000, 16

Floats = npt.NDArray[np.float64]


def generated(seed: int, cores: int, px_per_cm: float, folder: Path) -> TileSet:
    """Cut the tiles of so many cores of 40 cm."""
    config = SyntheticConfig(
        cores=cores, first_seed=seed, length_cm=(40.0, 40.0), width_cm=6.0, px_per_cm=(px_per_cm,)
    )
    folder.mkdir()
    sections = labelled_sections(write_cores(config, folder))
    tile = TileInput(tile_cm=1.0, size_px=min(64, round(px_per_cm)))
    return build_tiles(sections, TARGETS, tile, RunSettings(), {}, cache=folder / "cache")


def network_rows(tiles: TileSet, fresh: TileSet, config: FitConfig) -> Floats:
    """Row values [R, T] of the fresh cores by a network fitted to others."""
    everything, split = np.ones(len(tiles.labels), np.bool_), SplitConfig(kind="core")
    parts = validation_parts(tiles, split, everything)
    splits = validation_splits(tiles, everything, parts, 0.0, config.validations, 0)
    fitted = fit(tiles, everything, splits, config, 0)
    print(f"  {fitted.best_epoch} epochs kept", flush=True)
    return fresh.row_mean(predict_tiles(fitted.model, fresh).properties)


def ridge_rows(tiles: TileSet, fresh: TileSet) -> Floats:
    """Row values [R, T] of the fresh cores by ridge on mean colour."""
    found = np.full(fresh.labels.shape, np.nan)
    for column, label in enumerate(tiles.labels.T):
        known = np.isfinite(label)
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
        found[:, column] = ridge.fit(tiles.mean_colour()[known], label[known]).predict(fresh.mean_colour())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=["resnet18", "hrnet_w18", "hrnet_w32"], default="resnet18")
    parser.add_argument("--width", type=int, default=16, help="of ResNet-18")
    parser.add_argument("--cores", type=int, nargs="+", default=[6, 12, 24, 48])
    parser.add_argument("--px-per-cm", type=float, default=15.0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="cpu")
    given = parser.parse_args()
    config = FitConfig(
        network=given.network,
        width=given.width,
        epochs=given.epochs,
        patience=given.epochs,
        tiles_per_row=2,
        device=given.device,
    )
    with TemporaryDirectory(prefix="lithostream_curve_") as name:
        folder = Path(name)
        fresh = generated(FRESH_SEED, FRESH_CORES, given.px_per_cm, folder / "fresh")
        print(f"{given.px_per_cm:g} px/cm, {len(fresh.labels)} fresh rows; R2 of {', '.join(TARGETS)}")
        for cores in given.cores:
            tiles = generated(FIRST_SEED, cores, given.px_per_cm, folder / f"{cores}")
            found = {"ridge": ridge_rows(tiles, fresh), given.network: network_rows(tiles, fresh, config)}
            for model, rows in found.items():
                r2 = [score(rows[:, i], fresh.labels[:, i]).r2 for i in range(len(TARGETS))]
                print(f"{cores:4d} cores {model:10} {' '.join(f'{value:7.3f}' for value in r2)}", flush=True)


if __name__ == "__main__":
    main()
