"""The property network: uint8 tiles in, physical units and distance from the training data out."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lithostream.engine.errors import ConfigError
from lithostream.training.models.resnet import ResNet18

Network = Literal["resnet18", "hrnet_w18", "hrnet_w32"]

COLOUR_FEATURES = 6  # mean and standard deviation of each channel
VARIANCE_FLOOR = 1e-4  # of a normalised channel: keeps the slope of the root finite on flat tiles


class PropertyNet(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """A linear model of a tile's colour plus what a convolutional network adds to it.

    Everything between the scanner's bytes and the unit of a property is part of the graph. Targets are
    normalised linearly, never by a logarithm: density and volume susceptibility average over a row of tiles
    in their own units, and the row is what a run reports.

    Parameters
    ----------
    targets : int
        T, number of properties.
    width, size_px : int
        As in `ResNet18`.
    dropout : float
        Share of the embedding dropped while training.
    network : str
        What gives the features: ResNet-18, or HRNet-DeepLabV3+ of a fixed width.

    Raises
    ------
    ConfigError
        timm, which holds HRNet, is not installed.
    """

    def __init__(
        self, targets: int, width: int, size_px: int, dropout: float, network: Network = "resnet18"
    ) -> None:
        super().__init__()
        self.backbone = _backbone(network, width, size_px)
        self.dropout = nn.Dropout(dropout)
        self.colour_head = nn.Linear(COLOUR_FEATURES, targets)
        self.head = nn.Linear(self.backbone.features, targets, bias=False)
        nn.init.zeros_(self.head.weight)  # the network starts as the linear model
        embedded = self.backbone.features + COLOUR_FEATURES
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.register_buffer("pixel_std", torch.ones(3, 1, 1))
        self.register_buffer("target_mean", torch.zeros(targets))
        self.register_buffer("target_std", torch.ones(targets))
        self.register_buffer("embedding_mean", torch.zeros(embedded))
        self.register_buffer("whitening", torch.eye(embedded))
        self.register_buffer("ones", torch.ones(1, embedded), persistent=False)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Parameters
        ----------
        tiles : uint8 [N, S, S, 3]

        Returns
        -------
        properties : float32 [N, T]
            In the units of the training labels.
        distance : float32 [N]
            Mahalanobis distance of the embedding from the training tiles.
        """
        # Cast first: TensorRT wants a uint8 input to feed a Cast and nothing else.
        images = (tiles.to(torch.float32).permute(0, 3, 1, 2) - self.pixel_mean) / self.pixel_std
        normalised, embedding = self.normalised(images)
        properties = normalised * self.target_std + self.target_mean
        offset = _product(embedding - self.embedding_mean, self.whitening.T)
        return properties, _product(offset * offset, self.ones).squeeze(1).sqrt()

    def normalised(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised properties [N, T] and embedding [N, D] of normalised images [N, 3, S, S]."""
        # mean((2, 3)) exports as one ReduceMean, flatten after pooling does not.
        colour, features = colour_features(images), self.backbone(images).mean((2, 3))
        linear = _product(colour, self.colour_head.weight) + self.colour_head.bias
        properties = linear + _product(self.dropout(features), self.head.weight)
        return properties, torch.cat([features, colour], 1)

    def set_normalisation(
        self,
        mean: npt.NDArray[np.float64],
        std: npt.NDArray[np.float64],
        labels: npt.NDArray[np.float64],
    ) -> None:
        """Take the scale of the channels, mean and deviation [3], and of labels [R, T] from the training data."""
        self.pixel_mean.copy_(_tensor(mean)[:, None, None])
        self.pixel_std.copy_(_tensor(np.maximum(std, 1.0))[:, None, None])
        self.target_mean.copy_(_tensor(np.nanmean(labels, axis=0)))
        self.target_std.copy_(_tensor(np.maximum(np.nanstd(labels, axis=0), 1e-6)))

    def set_colour_head(self, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
        """Start from a linear model, weight [T, 6] and bias [T]."""
        with torch.no_grad():
            self.colour_head.weight.copy_(_tensor(weight))
            self.colour_head.bias.copy_(_tensor(bias))

    def set_distance(self, mean: npt.NDArray[np.float64], whitening: npt.NDArray[np.float64]) -> None:
        """Set the centre [D] and a matrix [D, D] whose square is the inverse covariance."""
        self.embedding_mean.copy_(_tensor(mean))
        self.whitening.copy_(_tensor(whitening))


def _backbone(network: Network, width: int, size_px: int) -> nn.Module:
    if network == "resnet18":
        return ResNet18(width, size_px)
    try:
        from lithostream.training.models.hrnet import HRNetDeepLab
    except ImportError as error:
        raise ConfigError(
            f"{network} needs timm: {error}", place="fit.network", fix="pip install 'lithostream[train]'"
        ) from error
    return HRNetDeepLab(network.removeprefix("hrnet_"))


def colour_features(images: Tensor) -> Tensor:
    """Mean and standard deviation of each channel of normalised images [N, 3, S, S]: [N, 6]."""
    mean = images.mean((2, 3), keepdim=True)
    # Two passes: mean(x^2) - mean(x)^2 would be all rounding on a flat tile.
    variance = ((images - mean) ** 2).mean((2, 3))
    return torch.cat([mean.squeeze((2, 3)), (variance + VARIANCE_FLOOR).sqrt()], 1)


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """Product of rows [N, D] with a matrix [K, D]: [N, K].

    Written as a 1 x 1 convolution, which runtimes compute tile by tile: a matrix product sums in an order
    that depends on how many tiles share the batch, and with it the last bit of the result.
    """
    return nn.functional.conv2d(rows[:, :, None, None], matrix[:, :, None, None]).squeeze((2, 3))


def _tensor(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
