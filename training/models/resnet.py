"""ResNet-18 at any width."""

from typing import cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

STAGES = 4
COUNTER = "num_batches_tracked"  # of batch normalisation: older files have none, and no result depends on it
SMALL_PX = 64  # tiles up to this size would be pooled away by the stem made for photographs
PHOTOGRAPHS = 32  # stride under the stem made for them


class ResNet18(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """The convolutional part of ResNet-18 (He et al. 2016, arXiv 1512.03385), 8 x `width` features.

    torchvision fixes the width at 64 and the stem at 7 x 7, stride 2 and max-pooling; small tiles get the
    3 x 3, stride 1 stem of the paper's CIFAR networks instead.

    Parameters
    ----------
    width : int
        Channels of the first stage, doubled by each of the next three.
    size_px : int
        Edge of the input.
    channels : int
        C, of the input.
    """

    def __init__(self, width: int, size_px: int, channels: int = 3) -> None:
        super().__init__()
        self.features = width * 2 ** (STAGES - 1)
        self.stride = 8 if size_px <= SMALL_PX else PHOTOGRAPHS
        stem: list[nn.Module]
        if size_px <= SMALL_PX:
            stem = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        else:
            stem = [
                nn.Conv2d(channels, width, 7, 2, 3, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, 1),
            ]
        stages = [_stage(width * 2 ** max(0, i - 1), width * 2**i, 1 if i == 0 else 2) for i in range(STAGES)]
        self.layers = nn.Sequential(*stem, *stages)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, S, S] to features [N, 8 * width, s, s], s = ceil(S / stride)."""
        return cast(Tensor, self.layers(images))

    def published_names(self) -> dict[str, str]:
        """Tensors here to their names in torchvision and timm; the stem for small tiles is not among them."""
        first = len(self.layers) - STAGES
        modules = {str(first + stage): f"layer{stage + 1}" for stage in range(STAGES)}
        if self.stride == PHOTOGRAPHS:
            modules |= {"0": "conv1", "1": "bn1"}
        parts = {name: name.split(".", 2) for name in self.state_dict() if not name.endswith(COUNTER)}
        return {
            name: f"{modules[number]}.{rest}"
            for name, (_, number, rest) in parts.items()
            if number in modules
        }


def _stage(channels: int, out: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels != out:
        shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return nn.Sequential(BasicBlock(channels, out, stride, shortcut), BasicBlock(out, out))
