"""A small Segment Anything: the published prompt encoder and mask decoder behind a convolutional image encoder."""

from typing import Final

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import interpolate

VIEW_PX: Final = 512
STRIDE: Final = 16
EMBEDDING: Final = 128
PIXEL_MEAN: Final = (123.675, 116.28, 103.53)  # of ImageNet, as Segment Anything takes them
PIXEL_STD: Final = (58.395, 57.12, 57.375)
WIDTHS: Final = (16, 32, 64, 128, 256)  # at strides 2, 4, 8, 16 and 32
DEPTHS: Final = (1, 2, 4, 2)  # blocks at strides 4, 8, 16 and 32
EXPAND: Final = 3
NEARNESS: Final = 1.5  # of the projections that start equal


def small_sam() -> Sam:
    """Build the network with random weights: 2.8 M parameters, 1.6 GMAC a view and 0.1 GMAC a prompt.

    Returns
    -------
    Sam
        The package's own class, so that its predictor and its automatic mask generator run on it. Views are
        uint8 [512, 512, 3], the embedding is [128, 32, 32], mask logits are [128, 128].
    """
    side = VIEW_PX // STRIDE
    sam = Sam(
        image_encoder=TinyEncoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=EMBEDDING,
            image_embedding_size=(side, side),
            input_image_size=(VIEW_PX, VIEW_PX),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=EMBEDDING, mlp_dim=512, num_heads=8),
            transformer_dim=EMBEDDING,
            iou_head_depth=3,
            iou_head_hidden_dim=128,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    _start_near(sam.mask_decoder)
    return sam


def _start_near(decoder: MaskDecoder) -> None:
    """Draw weights under which a prompt attends to what lies near it, and under which it is heard at all.

    Queries and keys between tokens and image start as one projection, so that equal positions attract. Layers
    start with Xavier's spread: under PyTorch's own a prompt changes the masks by a fiftieth of their spread.
    """
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    transformer = decoder.transformer
    across = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        across += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in across:
            attention.q_proj.weight.mul_(NEARNESS)
            attention.k_proj.weight.copy_(attention.q_proj.weight)


class TinyEncoder(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """Convolutions down to stride 32, brought back to stride 16 with the finer strides beside them.

    The two blocks at stride 32 see 224 px each; normalisation is by batch, which folds into the convolutions.
    """

    img_size = VIEW_PX

    def __init__(self) -> None:
        super().__init__()
        stem, *widths = WIDTHS
        self.stem = _convolution(3, stem, 3, stride=2)
        self.stages = nn.ModuleList()
        for width, depth, kernel in zip(widths, DEPTHS, (3, 5, 5, 7), strict=True):
            blocks = [Block(width, kernel) for _ in range(depth)]
            self.stages.append(nn.Sequential(_convolution(stem, width, 3, stride=2), *blocks))
            stem = width
        self.from_8 = _projection(widths[1], EMBEDDING, 3, stride=2)
        self.from_16 = _projection(widths[2], EMBEDDING, 1)
        self.from_32 = _projection(widths[3], EMBEDDING, 1)
        self.fuse = Block(EMBEDDING, 5)
        self.last = nn.Conv2d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False)
        self.normalise = LayerNorm2d(EMBEDDING)

    def forward(self, image: Tensor) -> Tensor:
        """Embed normalised views float32 [B, 3, H, W] as float32 [B, 128, H / 16, W / 16]; H and W by 32."""
        found = []
        image = self.stem(image)
        for stage in self.stages:
            image = stage(image)
            found.append(image)
        _, at_8, at_16, at_32 = found
        coarse = interpolate(self.from_32(at_32), scale_factor=2.0, mode="nearest")
        fused: Tensor = self.fuse(self.from_8(at_8) + self.from_16(at_16) + coarse)
        return self.normalise(self.last(fused))


class Block(nn.Module):  # type: ignore[misc]
    """Inverted residual: wider by 1 x 1, a convolution per channel, narrow again, added to what came in."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        wide = EXPAND * width
        self.near = _projection(width, width, kernel, groups=width)
        self.widen = _convolution(width, wide, 1)
        self.narrow = _projection(wide, width, 1)
        nn.init.zeros_(self.narrow[1].weight)  # starts as the identity

    def forward(self, image: Tensor) -> Tensor:
        """Return an image of the same shape."""
        return image + self.narrow(self.widen(self.near(image)))


def _projection(come: int, go: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(come, go, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(go))


def _convolution(come: int, go: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_projection(come, go, kernel, stride), nn.ReLU(inplace=True))
