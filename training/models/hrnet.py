"""HRNet-DeepLabV3+: parallel resolutions, a pyramid of fields of view, and a decoder that keeps thin beds."""

from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from lithostream.training.models.resnet import COUNTER

PADDED_TO = 32  # the coarsest branch must come out even, or branches of 200 px disagree (50 against 52)
PYRAMID = 128
DETAIL = 48
# At stride 8 on tiles of about 200 px: the 6, 12, 18 of photographs at stride 16 see only padding.
RATES = (2, 4, 6)


class HRNetDeepLab(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """HRNet (Wang et al. 2021, arXiv 1908.07919) under the decoder of DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611).

    The four branches are brought to stride 8 and joined, seen through an atrous pyramid, and refined at stride 4
    with the output of the first stage.

    Parameters
    ----------
    size : {"w18", "w32"}
        Channels of the finest branch.
    channels : int
        C, of the input.
    """

    def __init__(self, size: str, channels: int = 3) -> None:
        super().__init__()
        self.features, self.stride = PYRAMID, 4
        self.backbone = timm.create_model(
            f"hrnet_{size}", pretrained=False, features_only=True, feature_location="", in_chans=channels
        )
        widths = self.backbone.feature_info.channels()
        self.pyramid = _Pyramid(sum(widths[1:]), PYRAMID)
        self.detail = _conv(widths[0], DETAIL, 1)
        self.decoder = nn.Sequential(_conv(PYRAMID + DETAIL, PYRAMID, 3), _conv(PYRAMID, PYRAMID, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, S, S] to features [N, 128, ceil(S / 4), ceil(S / 4)]."""
        edge = images.shape[-1]
        missing = -edge % PADDED_TO
        # Replicated, not zero: a black border would be a bed of its own.
        padded = nn.functional.pad(images, (0, missing, 0, missing), mode="replicate")
        stem, *branches = self.backbone(padded)
        size = padded.shape[-1] // 8
        deep = torch.cat([_resized(branch, size) for branch in branches], 1)
        fine = _resized(self.pyramid(deep), padded.shape[-1] // 4)
        detail = self.detail(_resized(stem, padded.shape[-1] // 4))
        keep = -(-edge // 4)
        return cast(Tensor, self.decoder(torch.cat([fine, detail], 1))[:, :, :keep, :keep])

    def published_names(self) -> dict[str, str]:
        """Tensors here to their names in timm; pyramid and decoder are not among them."""
        own = [name for name in self.backbone.state_dict() if not name.endswith(COUNTER)]
        return {f"backbone.{name}": name for name in own}


class _Pyramid(nn.Module):  # type: ignore[misc]
    """Atrous spatial pyramid pooling: one pixel, three dilated fields, and the whole tile."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            [_conv(channels, out, 1), *(_conv(channels, out, 3, dilation=rate) for rate in RATES)]
        )
        # No normalisation: the mean of one tile has no spread of its own.
        self.whole = nn.Sequential(nn.Conv2d(channels, out, 1), nn.ReLU())
        self.join = _conv(out * (len(RATES) + 2), out, 1)

    def forward(self, deep: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, out, h, w]."""
        whole = self.whole(deep.mean((2, 3), keepdim=True)).expand(-1, -1, *deep.shape[2:])
        return cast(Tensor, self.join(torch.cat([*(view(deep) for view in self.views), whole], 1)))


def _conv(channels: int, out: int, kernel: int, **options: Any) -> nn.Sequential:
    padding = kernel // 2 * int(options.get("dilation", 1))
    conv = nn.Conv2d(channels, out, kernel, padding=padding, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


def _resized(maps: Tensor, edge: int) -> Tensor:
    if maps.shape[-1] == edge:
        return maps
    return nn.functional.interpolate(maps, (edge, edge), mode="bilinear", align_corners=False)
