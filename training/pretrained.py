"""Start from weights learned on ImageNet, read from a local file: nothing is fetched, nothing is unpickled."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lithostream.engine.bundle import sha256_file
from lithostream.engine.errors import ConfigError
from lithostream.training.models.properties import PropertyNet
from lithostream.training.models.resnet import COUNTER, ResNet18
from lithostream.training.tensors import read_tensors

PLACE = "fit.init_weights"
FIX = "give the weights of torchvision's or timm's resnet18, or timm's hrnet_w18 or hrnet_w32, as fit.network says"
FEATURES = 512  # of the published ResNet-18
COLOURS = 3


class Pretrained(NamedTuple):
    """What a network started from.

    Attributes
    ----------
    file : str
        Name of the file.
    sha256 : str
    tensors : int
        Taken from it.
    adapted : tuple of str
        Tensors of the network that were made from those of three colours.
    random : tuple of str
        Modules of the backbone that the file has nothing for, left as they were drawn.
    """

    file: str
    sha256: str
    tensors: int
    adapted: tuple[str, ...]
    random: tuple[str, ...]


def load_pretrained(model: PropertyNet, path: Path) -> Pretrained:
    """Put ImageNet weights into the backbone of a network; heads and normalisation are left alone.

    The classifier of the file is not used. The published networks expect pixels less the mean of ImageNet, in
    its deviations; here it is the mean and deviation of the training tiles. Both have about zero mean and unit
    spread, and what differs is taken up by the batch normalisation behind the first convolution, which is
    fitted here. With more or fewer channels than three the first convolution gets the mean over colours of the
    published one, scaled so that a grey tile excites it as before. ResNet-18 on tiles of up to 64 px has another
    stem than the published one: that convolution and its normalisation stay random.

    Parameters
    ----------
    model : PropertyNet
    path : Path
        `.pth` or `.safetensors` with the state of torchvision's or timm's `resnet18`, or timm's `hrnet_w18` or
        `hrnet_w32`, whichever the network is.

    Returns
    -------
    Pretrained
        What was loaded, for the record.

    Raises
    ------
    ConfigError
        The file is missing, damaged, holds more than tensors, or is of another network; or ResNet-18 is not 64
        wide.
    """
    backbone = model.backbone
    if isinstance(backbone, ResNet18) and backbone.features != FEATURES:
        raise ConfigError(
            f"ImageNet weights need width 64, ResNet-18 is {backbone.features // 8} wide here",
            place="fit.width",
            fix="set width = 64, or leave init_weights out",
        )
    names: dict[str, str] = backbone.published_names()
    published, own = read_tensors(path, partial(_error, path=path)), backbone.state_dict()
    absent = sorted(set(names.values()) - set(published))
    if absent:
        raise _error(
            f"holds {len(names) - len(absent)} of {len(names)} tensors of the network", path, absent[0]
        )
    taken = {name: _fitting(published[source], own[name]) for name, source in names.items()}
    for name, tensor in taken.items():
        if tensor.shape != own[name].shape:
            reason = f"is {tuple(published[names[name]].shape)}, the network needs {tuple(own[name].shape)}"
            raise _error(reason, path, names[name])
        if not torch.isfinite(tensor).all():
            raise _error("weights are not finite numbers", path, names[name])
    backbone.load_state_dict(own | taken)
    adapted = tuple(name for name in taken if taken[name].shape != published[names[name]].shape)
    drawn = {part for name in own.keys() - taken.keys() for part in _module(name)}
    return Pretrained(path.name, sha256_file(path), len(taken), adapted, tuple(sorted(drawn)))


def _fitting(tensor: Tensor, own: Tensor) -> Tensor:
    """Spread a convolution of three colours over as many channels as there are here; a grey tile sums as before."""
    if own.ndim != 4 or tensor.ndim != 4 or tensor.shape[1] != COLOURS or own.shape[1] == COLOURS:
        return tensor
    channels = own.shape[1]
    return tensor.mean(1, keepdim=True).expand(-1, channels, -1, -1) * (COLOURS / channels)


def _module(name: str) -> list[str]:
    """Return the first two parts of the name of a tensor, unless it is a counter."""
    return [] if name.endswith(COUNTER) else [".".join(name.split(".")[:2])]


def _error(reason: str, path: Path, tensor: str = "") -> ConfigError:
    place = f"{PLACE}, {tensor}" if tensor else PLACE
    return ConfigError(reason, file=path, place=place, fix=FIX)
