"""The property network: uint8 tiles in, physical units and distance from the training data out."""

from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lithostream.engine.errors import ConfigError
from lithostream.training.losses import bounded_log_variance
from lithostream.training.models.resnet import ResNet18

Network = Literal["resnet18", "hrnet_w18", "hrnet_w32"]

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
    channels : int
        C, of a tile.
    variance : bool
        Add the head of `log_variance`, which is no part of the exported graph.

    Raises
    ------
    ConfigError
        timm, which holds HRNet, is not installed.
    """

    def __init__(
        self,
        targets: int,
        width: int,
        size_px: int,
        dropout: float,
        network: Network = "resnet18",
        *,
        channels: int = 3,
        variance: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = _backbone(network, width, size_px, channels)
        self.dropout = nn.Dropout(dropout)
        colours = 2 * channels  # mean and standard deviation of each
        self.colour_head = nn.Linear(colours, targets)
        self.head = nn.Linear(self.backbone.features, targets, bias=False)
        nn.init.zeros_(self.head.weight)  # the network starts as the linear model
        embedded = self.backbone.features + colours
        self.variance_head = _zero_linear(embedded, targets) if variance else None
        self.register_buffer("pixel_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("pixel_std", torch.ones(channels, 1, 1))
        self.register_buffer("target_mean", torch.zeros(targets))
        self.register_buffer("target_std", torch.ones(targets))
        self.register_buffer("embedding_mean", torch.zeros(embedded))
        self.register_buffer("whitening", torch.eye(embedded))
        self.register_buffer("ones", torch.ones(1, embedded), persistent=False)

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Parameters
        ----------
        tiles : uint8 [N, S, S, C]

        Returns
        -------
        properties : float32 [N, T]
            In the units of the training labels.
        distance : float32 [N]
            Mahalanobis distance of the embedding from the training tiles.
        """
        return self._in_units(*self.normalised(self._images(tiles)))

    def with_rows(self, tiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict as `forward` does, and along depth within each tile.

        A row is one row of the feature map, and sees more than its own strip of the tile. The mean of a tile's
        rows is its property: what the linear model makes of the strips, and the network of the map's rows, is
        shifted by one number, for contrast between strips is in the deviation of a tile and in none of theirs.

        Returns
        -------
        properties : float32 [N, T]
        distance : float32 [N]
        rows : float32 [N, K, T]
            From top to base, `stride` pixels each (the last may be less), K = ceil(S / stride).
        """
        images = self._images(tiles)
        maps = self.backbone(images)
        properties, distance = self._in_units(*self._heads(colour_features(images), maps))
        colour = strip_colours(images, self.backbone.stride)
        found = _product(colour, self.colour_head.weight) + _product(maps.mean(3), self.head.weight)
        share = torch.full_like(found[0, :1], 1 / found.shape[2])
        offset = (found - _product(found.transpose(1, 2), share).transpose(1, 2)) * self.target_std[:, None]
        return properties, distance, (properties[:, :, None] + offset).transpose(1, 2)

    def _images(self, tiles: Tensor) -> Tensor:
        # Cast first: TensorRT wants a uint8 input to feed a Cast and nothing else.
        return (tiles.to(torch.float32).permute(0, 3, 1, 2) - self.pixel_mean) / self.pixel_std

    def _in_units(self, normalised: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        properties = normalised * self.target_std + self.target_mean
        offset = _product(embedding - self.embedding_mean, self.whitening.T)
        return properties, _product(offset * offset, self.ones).squeeze(1).sqrt()

    def normalised(self, images: Tensor, *, amp: bool = False) -> tuple[Tensor, Tensor]:
        """Normalised properties [N, T] and embedding [N, D] of normalised images [N, C, S, S].

        With `amp` the convolutions are computed in bfloat16. Never the colour model: it subtracts nearly equal
        channels, of which eight bits would leave little.
        """
        return self._heads(colour_features(images), self._features(images, amp=amp))

    def _heads(self, colour: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        # mean((2, 3)) exports as one ReduceMean, flatten after pooling does not.
        features = maps.mean((2, 3))
        linear = _product(colour, self.colour_head.weight) + self.colour_head.bias
        properties = linear + _product(self.dropout(features), self.head.weight)
        return properties, torch.cat([features, colour], 1)

    def log_variance(self, embedding: Tensor) -> Tensor:
        """Logarithm of the variance of normalised properties [N, T] about those given, from an embedding [N, D].

        Used while training; a network made without `variance` has none.
        """
        assert self.variance_head is not None
        return bounded_log_variance(self.variance_head(embedding))

    def _features(self, images: Tensor, *, amp: bool) -> Tensor:
        if not amp:
            return cast(Tensor, self.backbone(images))
        with torch.autocast(images.device.type, torch.bfloat16):
            return cast(Tensor, self.backbone(images)).float()

    def set_normalisation(
        self,
        mean: npt.NDArray[np.float64],
        std: npt.NDArray[np.float64],
        labels: npt.NDArray[np.float64],
    ) -> None:
        """Take the scale of the channels, mean and deviation [C], and of labels [R, T] from the training data."""
        self.pixel_mean.copy_(_tensor(mean)[:, None, None])
        self.pixel_std.copy_(_tensor(np.maximum(std, 1.0))[:, None, None])
        self.target_mean.copy_(_tensor(np.nanmean(labels, axis=0)))
        self.target_std.copy_(_tensor(np.maximum(np.nanstd(labels, axis=0), 1e-6)))

    def set_colour_head(self, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
        """Start from a linear model, weight [T, 2 C] and bias [T]."""
        with torch.no_grad():
            self.colour_head.weight.copy_(_tensor(weight))
            self.colour_head.bias.copy_(_tensor(bias))

    def set_distance(self, mean: npt.NDArray[np.float64], whitening: npt.NDArray[np.float64]) -> None:
        """Set the centre [D] and a matrix [D, D] whose square is the inverse covariance."""
        self.embedding_mean.copy_(_tensor(mean))
        self.whitening.copy_(_tensor(whitening))


def _backbone(network: Network, width: int, size_px: int, channels: int) -> nn.Module:
    if network == "resnet18":
        return ResNet18(width, size_px, channels)
    try:
        from lithostream.training.models.hrnet import HRNetDeepLab
    except ImportError as error:
        raise ConfigError(
            f"{network} needs timm: {error}", place="fit.network", fix="pip install 'lithostream[train]'"
        ) from error
    return HRNetDeepLab(network.removeprefix("hrnet_"), channels)


def _zero_linear(features: int, targets: int) -> nn.Linear:
    """Return a layer that gives 0, the logarithm of a unit variance, until it has learned."""
    layer = nn.Linear(features, targets)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def colour_features(images: Tensor) -> Tensor:
    """Mean and standard deviation of each channel of normalised images [N, C, S, S]: [N, 2 C]."""
    mean = images.mean((2, 3), keepdim=True)
    # Two passes: mean(x^2) - mean(x)^2 would be all rounding on a flat tile.
    variance = ((images - mean) ** 2).mean((2, 3))
    return torch.cat([mean.squeeze((2, 3)), (variance + VARIANCE_FLOOR).sqrt()], 1)


def strip_colours(images: Tensor, stride: int) -> Tensor:
    """`colour_features` of each strip of `stride` pixel rows of images [N, C, S, S]: [N, 2 C, ceil(S / stride)]."""
    # Made by NumPy, so that the exported graph holds the shares as a constant.
    edge = images.shape[2]
    strips = np.arange(edge) // stride
    member = strips == np.arange(-(-edge // stride))[:, None]
    share = _tensor(member / member.sum(1, keepdims=True)).to(images)
    strip = torch.from_numpy(strips).to(images.device)
    mean = _product(images.mean(3).transpose(1, 2), share).transpose(1, 2)
    offset = images - mean.index_select(2, strip)[..., None]
    variance = _product((offset**2).mean(3).transpose(1, 2), share).transpose(1, 2)
    return torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], 1)


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """Product of rows [N, D] with a matrix [K, D]: [N, K]; of columns [N, D, L]: [N, K, L].

    Written as a 1 x 1 convolution, which runtimes compute tile by tile: a matrix product sums in an order
    that depends on how many tiles share the batch, and with it the last bit of the result.
    """
    if rows.ndim == 3:
        return nn.functional.conv1d(rows, matrix[:, :, None])
    return nn.functional.conv2d(rows[:, :, None, None], matrix[:, :, None, None]).squeeze((2, 3))


def _tensor(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
