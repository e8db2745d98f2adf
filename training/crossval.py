"""Cross-validation over what a split holds out whole, paired with the baselines on the same folds."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from lithostream.training.config import FitConfig, SplitConfig, TrainConfig
from lithostream.training.data.profile import on_scale
from lithostream.training.data.splits import away_from, validation_parts, validation_splits
from lithostream.training.data.tiles import TileSet
from lithostream.training.fit import fit, predict_tiles
from lithostream.training.out_of_fold import OutOfFold, baseline_folds, depth_folds, folds_of
from lithostream.training.report import MODEL
from lithostream.training.state import Journal, Page, Saved

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NETWORK = "network"


def cross_validate(
    tiles: TileSet,
    config: TrainConfig,
    seed: int,
    on_fold: Callable[[], None],
    journal: Journal | None = None,
) -> OutOfFold:
    """Predict each row by a network, by a depth model where one is wanted, and by baselines fitted away from it.

    All train on the same rows. What a run would give for a row is filed under `MODEL`: the depth model's value
    where there is one, and the network's under `NETWORK` then. A fold that the journal holds is not fitted again.
    """
    split, logarithmic = config.split, config.logarithmic_flags()
    network = _network_folds(tiles, config.fit, split, seed, on_fold, journal)
    found = _on_scale(network.found[NETWORK], tiles.labels, logarithmic)
    baselines = baseline_folds(tiles, split, seed, logarithmic)
    if not config.depth_model:
        return OutOfFold(network.fold, {MODEL: found}, best_epochs=network.best_epochs).joined(baselines)
    ours = depth_folds(MODEL, tiles, split, seed, logarithmic)
    return ours.joined(OutOfFold(network.fold, {NETWORK: found}, best_epochs=network.best_epochs)).joined(
        baselines
    )


def _on_scale(found: Floats, labels: Floats, logarithmic: Bools) -> Floats:
    """Bring a network's values [R, T] to the scale of scoring; it is not bound to positive ones."""
    lowest = np.nanmin(np.where(labels > 0, labels, np.nan), axis=0)
    return on_scale(np.where(logarithmic, np.maximum(found, lowest), found), logarithmic)


def _network_folds(
    tiles: TileSet,
    config: FitConfig,
    split: SplitConfig,
    seed: int,
    on_fold: Callable[[], None],
    journal: Journal | None,
) -> OutOfFold:
    fold = folds_of(tiles, split, seed)
    found, stops = np.full(tiles.labels.shape, np.nan), []
    for k in range(split.folds):
        held = fold == k
        page = journal.page(f"seed{seed}-fold{k}") if journal else Page()
        done = page.load("done")
        if done is None:
            done = _fit_fold(tiles, held, config, split, seed, seed * split.folds + k, page)
            page.write(done)
        found[held] = done.tensors["found"].numpy()
        stops.append(int(done.facts["best_epoch"]))
        on_fold()
    return OutOfFold(fold, {NETWORK: found}, best_epochs=tuple(stops))


def _fit_fold(
    tiles: TileSet,
    held: Bools,
    config: FitConfig,
    split: SplitConfig,
    seed: int,
    network_seed: int,
    page: Page,
) -> Saved:
    """Predictions of the `held` rows, float64 [rows, T], by a network fitted away from them."""
    allowed = away_from(tiles, held, split.gap_cm)
    parts = validation_parts(tiles, split, allowed)
    splits = validation_splits(tiles, allowed, parts, split.gap_cm, config.validations, seed)
    fitted = fit(tiles, allowed, splits, config, network_seed, page)
    part = tiles.of_rows(held)
    found = torch.from_numpy(part.row_mean(predict_tiles(fitted.model, part).properties))
    return Saved("done", {"found": found}, {"best_epoch": fitted.best_epoch})
