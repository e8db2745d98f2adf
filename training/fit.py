"""Fit one property network, the same way to the last bit for the same seed, data and thread count."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from lithostream.training.config import FitConfig
from lithostream.training.data.loader import row_batches, tile_batches
from lithostream.training.data.splits import check_measured
from lithostream.training.data.tiles import TileSet
from lithostream.training.models.properties import PropertyNet, colour_features

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RIDGE_PENALTY = (
    1e-5  # per label, on standardised features: hue is a small difference of channels that vary together
)
PREDICT_BATCH = 256
DISTANCE_TILES = 100_000  # enough for any covariance; the embeddings of all tiles would not fit into memory


class Fitted(NamedTuple):
    """A fitted network and how many epochs it was trained; with 0 it is the linear model."""

    model: PropertyNet
    best_epoch: int


class Prediction(NamedTuple):
    """What a network gives for tiles: properties float32 [N, T] and distance float32 [N]."""

    properties: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Fix the thread count and allow deterministic algorithms only, for the time of a block."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def fit(
    tiles: TileSet, rows: Bools, splits: Sequence[tuple[Bools, Bools]], config: FitConfig, seed: int
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

    Raises
    ------
    ConfigError
        A target has no reading among the rows that the buffers leave.
    """
    for part in (rows, *(train for train, _ in splits)):
        check_measured(tiles, part)
    with deterministic(config.threads), torch.random.fork_rng(devices=[]):
        best = _epochs_that_pay(tiles, splits, config, seed)
        run = _Run(tiles.of_rows(rows), config, seed)
        for _ in range(best):
            run.epoch()
        _fit_distance(run.model, run.seen)
    return Fitted(run.model.eval(), best)


def _epochs_that_pay(
    tiles: TileSet, splits: Sequence[tuple[Bools, Bools]], config: FitConfig, seed: int
) -> int:
    """Epoch with the lowest validation loss, averaged over the splits; 0 where the linear start is best."""
    runs = [(_Run(tiles.of_rows(train), config, seed), tiles.of_rows(unseen)) for train, unseen in splits]
    lowest, best = float(np.mean([run.loss(unseen) for run, unseen in runs])), 0
    for epoch in range(1, config.epochs + 1):
        for run, _ in runs:
            run.epoch()
        loss = float(np.mean([run.loss(unseen) for run, unseen in runs]))
        if loss < lowest:
            lowest, best = loss, epoch
        if epoch - best >= config.patience:
            break
    return best


def predict(model: PropertyNet, pixels: npt.NDArray[np.uint8]) -> Prediction:
    """Run a network over tiles [N, S, S, 3] as it will be exported."""
    starts = range(0, max(len(pixels), 1), PREDICT_BATCH)
    return _predict(model, (torch.from_numpy(pixels[at : at + PREDICT_BATCH]) for at in starts))


def predict_tiles(model: PropertyNet, tiles: TileSet) -> Prediction:
    """Run a network over all tiles of a set, read batch by batch."""
    return _predict(model, tile_batches(tiles, PREDICT_BATCH))


def _predict(model: PropertyNet, batches: Iterable[Tensor]) -> Prediction:
    model.eval()
    with torch.no_grad():
        parts = [model(batch) for batch in batches]
    properties, distance = zip(*parts, strict=True)
    return Prediction(torch.cat(properties).numpy(), torch.cat(distance).numpy())


def _start_linear(model: PropertyNet, seen: TileSet) -> None:
    """Fit the colour head to single tiles, each carrying the label of its row.

    A fit to row means would predict the rows as well, but its tiles would scatter: colour varies more within
    a row than between rows, and only a fit to tiles is told to ignore that.
    """
    with torch.no_grad():
        batches = tile_batches(seen, PREDICT_BATCH)
        parts = [colour_features(_images(model, part)).numpy() for part in batches]
    features = np.concatenate(parts).astype(np.float64)
    labels = _normalised_labels(model, seen)[seen.row]
    weight, bias = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    for target, label in enumerate(labels.T):
        known = np.isfinite(label)
        centre, scale = features[known].mean(axis=0), np.maximum(features[known].std(axis=0), 1e-6)
        ridge = Ridge(RIDGE_PENALTY * known.sum()).fit((features[known] - centre) / scale, label[known])
        weight[target] = ridge.coef_ / scale
        bias[target] = ridge.intercept_ - weight[target] @ centre
    model.set_colour_head(weight, bias)


class _Run:
    """One network on its way: AdamW under a cosine schedule of `config.epochs`."""

    def __init__(self, seen: TileSet, config: FitConfig, seed: int) -> None:
        torch.manual_seed(seed)
        self.seen, self.config, self.rng = seen, config, np.random.default_rng(seed)
        size_px = seen.pixels.shape[1]
        self.model = PropertyNet(len(seen.targets), config.width, size_px, config.dropout, config.network)
        self.model.set_normalisation(*seen.colour_scale(), seen.labels)
        _start_linear(self.model, seen)
        self.labels = torch.from_numpy(_normalised_labels(self.model, seen).astype(np.float32))
        self.steps = math.ceil(len(self.labels) / config.batch_rows)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, config.epochs * self.steps)

    def epoch(self) -> None:
        """Pass over all rows once."""
        self.model.train()
        config = self.config
        for rows, pixels in row_batches(self.seen, self.steps, config.tiles_per_row, self.rng):
            images = _augment(_images(self.model, pixels), config, self.rng)
            found = self.model.normalised(images)[0].reshape(len(rows), config.tiles_per_row, -1).mean(1)
            self.optimiser.zero_grad()
            _masked_loss(found, self.labels[rows]).backward()
            self.optimiser.step()
            self.schedule.step()

    def loss(self, unseen: TileSet) -> float:
        """Loss on other rows, each the mean over all of its tiles."""
        mean, std = self.model.target_mean.numpy(), self.model.target_std.numpy()
        found = (unseen.row_mean(predict_tiles(self.model, unseen).properties) - mean) / std
        return float(_masked_loss(torch.from_numpy(found), torch.from_numpy((unseen.labels - mean) / std)))


def _augment(images: Tensor, config: FitConfig, rng: np.random.Generator) -> Tensor:
    """Flip across the core, brighten and stretch normalised images [N, 3, S, S], each as a whole and by itself.

    Never top to bottom: a graded bed upside down is another bed.
    """
    flip = torch.from_numpy(rng.random((len(images), 1, 1, 1)) < 0.5)
    images = torch.where(flip, images.flip(3), images)
    change = torch.from_numpy(rng.uniform(-1, 1, (2, len(images), 1, 1, 1)).astype(np.float32))
    centre = images.mean((2, 3), keepdim=True)
    return centre + (images - centre) * (1 + config.contrast * change[0]) + config.brightness * change[1]


def _masked_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Huber loss over measured labels only; found, wanted [B, T], NaN where not measured."""
    known = torch.isfinite(wanted)
    loss = smooth_l1_loss(found, torch.where(known, wanted, found.detach()), reduction="sum")
    return loss / known.sum().clamp(min=1)


def _normalised_labels(model: PropertyNet, tiles: TileSet) -> Floats:
    labels: Floats = (tiles.labels - model.target_mean.numpy()) / model.target_std.numpy()
    return labels


def _images(model: PropertyNet, pixels: Tensor) -> Tensor:
    """Normalised images [N, 3, S, S] of tiles [N, S, S, 3]."""
    return (pixels.permute(0, 3, 1, 2).float() - model.pixel_mean) / model.pixel_std


def _fit_distance(model: PropertyNet, seen: TileSet) -> None:
    """Mahalanobis distance with the shrunk covariance of Ledoit and Wolf (2004)."""
    model.eval()
    some = seen.every(math.ceil(len(seen.tile) / DISTANCE_TILES))
    with torch.no_grad():
        batches = tile_batches(some, PREDICT_BATCH)
        parts = [model.normalised(_images(model, part))[1].numpy() for part in batches]
    embedding = np.concatenate(parts).astype(np.float64)
    # Standardised first: shrinkage pulls towards a sphere, so the axes must share a scale.
    scale = np.maximum(embedding.std(axis=0), 1e-3)
    fitted = LedoitWolf().fit(embedding / scale)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-6))
    model.set_distance(embedding.mean(axis=0), whitening / scale[:, None])
