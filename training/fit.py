"""Fit one property network, the same way to the last bit for the same seed, data and thread count."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from lithostream.training.config import FitConfig
from lithostream.training.data.loader import tile_batches
from lithostream.training.data.splits import check_measured
from lithostream.training.data.tiles import TileSet
from lithostream.training.device import deterministic, fit_device
from lithostream.training.losses import huber, total_weight
from lithostream.training.models.properties import PropertyNet
from lithostream.training.run import (
    PREDICT_BATCH,
    Run,
    normalised_images,
    normalised_labels,
    pack,
    unpack,
)
from lithostream.training.state import Epoch, Page, Saved

Bools = npt.NDArray[np.bool_]

DISTANCE_TILES = 100_000  # enough for any covariance; the embeddings of all tiles would not fit into memory


class Fitted(NamedTuple):
    """A fitted network and how many epochs it was trained; with 0 it is the linear model."""

    model: PropertyNet
    best_epoch: int


class Prediction(NamedTuple):
    """What a network gives for tiles: properties float32 [N, T] and distance float32 [N]."""

    properties: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]


def fit(
    tiles: TileSet,
    rows: Bools,
    splits: Sequence[tuple[Bools, Bools]],
    config: FitConfig,
    seed: int,
    page: Page | None = None,
) -> Fitted:
    """Fit a network to all of `rows`, for as many epochs as pay on rows it has not seen.

    The loss is taken on the mean over tiles of a row, the value that a run reports and a sensor measures. First
    one network per split is trained, and the epoch of the lowest mean validation loss is kept; then one network
    is trained on all rows that long. A core has few rows: those that decide when to stop are too many to lose.

    Parameters
    ----------
    tiles : TileSet
    rows : bool [R]
        Rows to learn from.
    splits : sequence of (train, validation)
        From `validation_splits` of those rows.
    config : FitConfig
    seed : int
        Of initial weights, batches and augmentation.
    page : Page, optional
        Where the state after an epoch is kept, and taken up again to the same result.

    Returns
    -------
    Fitted
        The network on the CPU, without a head for the variance: what it was needed for is over.

    Raises
    ------
    ConfigError
        A target has no reading among the rows that the buffers leave, or the device is missing.
    """
    for part in (rows, *(train for train, _ in splits)):
        check_measured(tiles, part)
    page = page or Page()
    with deterministic(config.threads, fit_device(config.device)):
        saved = page.load("final")
        best = int(saved.facts["of"]) if saved else _epochs_that_pay(tiles, splits, config, seed, page)
        run = Run(tiles.of_rows(rows), config, seed, fit_device(config.device))
        _train_final(run, best, saved, page)
        model = run.result
        _fit_distance(model, run.seen)
    model.variance_head = None
    return Fitted(model.cpu().eval(), best)


def _epochs_that_pay(
    tiles: TileSet, splits: Sequence[tuple[Bools, Bools]], config: FitConfig, seed: int, page: Page
) -> int:
    """Epoch with the lowest validation loss, averaged over the splits; 0 where the linear start is best."""
    device, unseen = fit_device(config.device), [tiles.of_rows(held) for _, held in splits]
    runs = [Run(tiles.of_rows(train), config, seed, device) for train, _ in splits]
    saved = page.load("search")
    if saved:
        unpack(saved, runs)
        lowest, best, done = float(saved.facts["lowest"]), int(saved.facts["best"]), int(saved.facts["done"])
    else:
        lowest, best, done = _validation_loss(runs, unseen), 0, 0
    while done < config.epochs and done - best < config.patience:
        training = float(np.mean([run.epoch() for run in runs]))
        done, loss = done + 1, _validation_loss(runs, unseen)
        if loss < lowest:
            lowest, best = loss, done
        page.keep(
            Epoch("search", done, config.epochs, training, loss, runs[0].learning_rate),
            partial(pack, "search", runs, lowest=lowest, best=best, done=done),
        )
    return best


def _train_final(run: Run, epochs: int, saved: Saved | None, page: Page) -> None:
    if saved:
        unpack(saved, [run])
    for done in range(saved.facts["done"] + 1 if saved else 1, epochs + 1):
        training = run.epoch()
        page.keep(
            Epoch("final", done, epochs, training, None, run.learning_rate),
            partial(pack, "final", [run], done=done, of=epochs),
        )


def _validation_loss(runs: Sequence[Run], unseen: Sequence[TileSet]) -> float:
    """Huber's loss on other rows, each the mean over all of its tiles; mean over the runs."""
    return float(np.mean([_loss(run, part) for run, part in zip(runs, unseen, strict=True)]))


def _loss(run: Run, unseen: TileSet) -> float:
    model = run.result
    mean, std = (part.cpu().numpy() for part in (model.target_mean, model.target_std))
    found = torch.from_numpy((unseen.row_mean(predict_tiles(model, unseen).properties) - mean) / std)
    wanted, weights = torch.from_numpy(normalised_labels(model, unseen)), run.weights.cpu()
    return float(huber(found, wanted, weights) / total_weight(wanted, weights))


def predict(model: PropertyNet, pixels: npt.NDArray[np.uint8]) -> Prediction:
    """Run a network over tiles [N, S, S, 3] as it will be exported."""
    starts = range(0, max(len(pixels), 1), PREDICT_BATCH)
    return _predict(model, (torch.from_numpy(pixels[at : at + PREDICT_BATCH]) for at in starts))


def predict_tiles(model: PropertyNet, tiles: TileSet) -> Prediction:
    """Run a network over all tiles of a set, read batch by batch."""
    return _predict(model, tile_batches(tiles, PREDICT_BATCH))


def _predict(model: PropertyNet, batches: Iterable[Tensor]) -> Prediction:
    model.eval()
    device = model.target_mean.device
    with torch.no_grad():
        parts = [model(batch.to(device)) for batch in batches]
    properties, distance = zip(*parts, strict=True)
    return Prediction(torch.cat(properties).cpu().numpy(), torch.cat(distance).cpu().numpy())


def _fit_distance(model: PropertyNet, seen: TileSet) -> None:
    """Mahalanobis distance with the shrunk covariance of Ledoit and Wolf (2004)."""
    model.eval()
    device = model.target_mean.device
    some = seen.every(math.ceil(len(seen.tile) / DISTANCE_TILES))
    with torch.no_grad():
        batches = tile_batches(some, PREDICT_BATCH)
        images = (normalised_images(model, part.to(device)) for part in batches)
        parts = [model.normalised(part)[1].cpu().numpy() for part in images]
    embedding = np.concatenate(parts).astype(np.float64)
    # Standardised first: shrinkage pulls towards a sphere, so the axes must share a scale.
    scale = np.maximum(embedding.std(axis=0), 1e-3)
    fitted = LedoitWolf().fit(embedding / scale)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-6))
    model.set_distance(embedding.mean(axis=0), whitening / scale[:, None])
