"""One network while it is being fitted: its start, its epochs, and its state between two of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lithostream.training.config import FitConfig
from lithostream.training.data.loader import row_batches, tile_batches
from lithostream.training.data.tiles import TileSet
from lithostream.training.losses import beta_gaussian, huber, total_weight
from lithostream.training.models.properties import PropertyNet, colour_features
from lithostream.training.pretrained import load_pretrained
from lithostream.training.state import Phase, Saved

Floats = npt.NDArray[np.float64]

RIDGE_PENALTY = (
    1e-5  # per label, on standardised features: hue is a small difference of channels that vary together
)
PREDICT_BATCH = 256


class Run:
    """One network on its way: AdamW under a cosine schedule of `config.epochs`.

    Parameters
    ----------
    seen : TileSet
        Rows to learn from.
    config : FitConfig
    seed : int
        Of initial weights, batches and augmentation; PyTorch's generator is seeded with it too.
    device : torch.device
        Batches are read and drawn on the CPU, so every device sees the same ones.
    """

    def __init__(self, seen: TileSet, config: FitConfig, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.seen, self.config, self.device, self.rng = seen, config, device, np.random.default_rng(seed)
        self.model = PropertyNet(
            len(seen.targets),
            config.width,
            seen.pixels.shape[1],
            config.dropout,
            config.network,
            channels=seen.pixels.shape[3],
            variance=config.loss == "gaussian",
        )
        if config.init_weights is not None:
            load_pretrained(self.model, config.init_weights)
        self.model.set_normalisation(*seen.colour_scale(), seen.labels)
        _start_linear(self.model, seen)
        self.labels = torch.from_numpy(normalised_labels(self.model, seen).astype(np.float32))
        self.model.to(device)
        average = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(self.model, multi_avg_fn=average) if config.ema else None
        weights = [config.target_weights.get(name, 1.0) for name in seen.targets]
        self.weights = torch.tensor(weights, device=device)
        self.steps = math.ceil(len(self.labels) / (config.batch_rows * config.accumulate))
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, config.epochs * self.steps)

    @property
    def result(self) -> PropertyNet:
        """The network to judge and to ship: the average of its weights where one is taken."""
        return self.model if self.average is None else self.average.module

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def epoch(self) -> float:
        """Pass over all rows once, and return the mean loss of its steps."""
        self.model.train()
        total, on_gpu = torch.zeros((), device=self.device), self.device.type == "cuda"
        for rows, pixels in row_batches(
            self.seen, self.steps, self.config.tiles_per_row, self.rng, pin=on_gpu
        ):
            images = normalised_images(self.model, pixels.to(self.device, non_blocking=True))
            images = augment(images, self.config, self.rng)
            total += self.backward(images, self.labels[rows].to(self.device))
            self.optimiser.step()
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        return float(total) / self.steps

    def backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Set the gradients of one step, `batch_rows` rows at a time, and return the loss.

        Parameters
        ----------
        images : float32 [B * K, 3, S, S]
            K tiles of each row, row by row.
        labels : float32 [B, T]
        """
        parts = math.ceil(len(labels) / self.config.batch_rows)
        by_row = images.unflatten(0, (len(labels), -1))
        share, sums = total_weight(labels, self.weights), []
        self.optimiser.zero_grad()
        for tiles, wanted in zip(by_row.tensor_split(parts), labels.tensor_split(parts), strict=True):
            loss = self._loss_sum(tiles.flatten(0, 1), wanted) / share
            loss.backward()
            sums.append(loss.detach())
        return torch.stack(sums).sum()

    def _loss_sum(self, images: Tensor, labels: Tensor) -> Tensor:
        found, embedding = self.model.normalised(images, amp=self.config.amp)
        by_row = (len(labels), -1, found.shape[1])
        mean = found.reshape(by_row).mean(1)
        if self.config.loss == "huber":
            return huber(mean, labels, self.weights)
        log_variance = self.model.log_variance(embedding).reshape(by_row).mean(1)
        return beta_gaussian(mean, log_variance, labels, self.weights)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, their average, and the optimiser's moments."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
        return found

    def facts(self) -> dict[str, Any]:
        """Random state and schedule, as plain JSON."""
        return {
            "rng": self.rng.bit_generator.state,
            "schedule": self.schedule.state_dict(),
            "rates": [group["lr"] for group in self.optimiser.param_groups],
        }

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go back to a state of the same network."""
        self.model.load_state_dict(_below("model.", tensors))
        if self.average is not None:
            self.average.load_state_dict(_below("average.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below("optimiser.", tensors).items():
            number, moment = name.split(".")
            state.setdefault(int(number), {})[moment] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        for group, rate in zip(groups, facts["rates"], strict=True):
            group["lr"] = rate
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.schedule.load_state_dict(facts["schedule"])
        self.rng.bit_generator.state = facts["rng"]


def pack(phase: Phase, runs: Sequence[Run], **facts: object) -> Saved:
    """Put the state of networks that are fitted side by side, and PyTorch's, into one."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if runs[0].device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(runs[0].device)
    for number, run in enumerate(runs):
        tensors |= {f"{number}.{name}": tensor for name, tensor in run.tensors().items()}
    return Saved(phase, tensors, {"runs": [run.facts() for run in runs], **facts})


def unpack(saved: Saved, runs: Sequence[Run]) -> None:
    """Go back to what was packed."""
    for number, (run, facts) in enumerate(zip(runs, saved.facts["runs"], strict=True)):
        run.restore(_below(f"{number}.", saved.tensors), facts)
    torch.set_rng_state(saved.tensors["random.cpu"])
    if "random.cuda" in saved.tensors:
        torch.cuda.set_rng_state(saved.tensors["random.cuda"], runs[0].device)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def augment(images: Tensor, config: FitConfig, rng: np.random.Generator) -> Tensor:
    """Flip across the core, brighten and stretch normalised images [N, 3, S, S], each as a whole and by itself.

    Never top to bottom: a graded bed upside down is another bed.
    """
    flip = torch.from_numpy(rng.random((len(images), 1, 1, 1)) < 0.5).to(images.device)
    images = torch.where(flip, images.flip(3), images)
    drawn = rng.uniform(-1, 1, (2, len(images), 1, 1, 1)).astype(np.float32)
    change = torch.from_numpy(drawn).to(images.device)
    centre = images.mean((2, 3), keepdim=True)
    return centre + (images - centre) * (1 + config.contrast * change[0]) + config.brightness * change[1]


def normalised_labels(model: PropertyNet, tiles: TileSet) -> Floats:
    """Labels [R, T] as the network sees them."""
    mean, std = (part.cpu().numpy() for part in (model.target_mean, model.target_std))
    labels: Floats = (tiles.labels - mean) / std
    return labels


def normalised_images(model: PropertyNet, pixels: Tensor) -> Tensor:
    """Images [N, 3, S, S] as the network sees tiles [N, S, S, 3]."""
    return (pixels.permute(0, 3, 1, 2).float() - model.pixel_mean) / model.pixel_std


def _start_linear(model: PropertyNet, seen: TileSet) -> None:
    """Fit the colour head to single tiles, each carrying the label of its row.

    A fit to row means would predict the rows as well, but its tiles would scatter: colour varies more within
    a row than between rows, and only a fit to tiles is told to ignore that.
    """
    with torch.no_grad():
        batches = tile_batches(seen, PREDICT_BATCH)
        parts = [colour_features(normalised_images(model, part)).numpy() for part in batches]
    features = np.concatenate(parts).astype(np.float64)
    labels = normalised_labels(model, seen)[seen.row]
    weight, bias = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    for target, label in enumerate(labels.T):
        known = np.isfinite(label)
        centre, scale = features[known].mean(axis=0), np.maximum(features[known].std(axis=0), 1e-6)
        ridge = Ridge(RIDGE_PENALTY * known.sum()).fit((features[known] - centre) / scale, label[known])
        weight[target] = ridge.coef_ / scale
        bias[target] = ridge.intercept_ - weight[target] @ centre
    model.set_colour_head(weight, bias)
