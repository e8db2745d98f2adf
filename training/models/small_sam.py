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
WAVES: Final = (0.25, 0.75)  # of the positions that prompts start to look at, along each axis: per half view
NEAR_PX: Final = (12, 12, 16, 16, 24, 24, 32, 48)  # how far each head of a prompt's attention starts to reach
FAR_PX: Final = (16, 24, 32, 48, 64, 96, 128, 192)  # and each of the image's attention to the prompt


def small_sam() -> Sam:
    """Build the network with random weights: 3.1 M parameters, 1.7 GMAC a view and 0.1 GMAC a prompt.

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
    with torch.no_grad():
        _start_near(sam)
    return sam


def _start_near(sam: Sam) -> None:
    """Draw weights under which a prompt attends to what lies near it, and under which it is heard at all.

    Queries and keys between tokens and image start as one projection, so that equal positions attract: it reads
    channels of the position that hold waves so long that no other place of the view is like the prompt's own, and
    in which tokens and image hold nothing else. The self-attention passes the position on to the tokens of the
    masks. Layers start with Xavier's spread: under PyTorch's own a prompt changes the masks by a fiftieth of theirs.
    """
    decoder, prompts, transformer = sam.mask_decoder, sam.prompt_encoder, sam.mask_decoder.transformer
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    waves = prompts.pe_layer.positional_encoding_gaussian_matrix
    waves[:, :4] = torch.block_diag(*[torch.tensor([WAVES])] * 2)
    places = [*range(4), *range(EMBEDDING // 2, EMBEDDING // 2 + 4)]  # their sines and cosines
    sam.image_encoder.normalise.weight[places] = 0
    own = (decoder.iou_token, decoder.mask_tokens, prompts.no_mask_embed, prompts.not_a_point_embed)
    for embedding in (*own, *prompts.point_embeddings):
        embedding.weight *= 0.3
        embedding.weight[:, places] = 0
    passing = transformer.layers[0].self_attn
    passing.v_proj.weight.copy_(torch.eye(EMBEDDING))
    passing.out_proj.weight.copy_(2 * torch.eye(EMBEDDING))
    across = [layer.cross_attn_token_to_image for layer in transformer.layers]
    back = [layer.cross_attn_image_to_token for layer in transformer.layers]
    for attention in (*across, transformer.final_attn_token_to_image, *back):
        reach = FAR_PX if attention in back else NEAR_PX
        weight = attention.q_proj.weight
        weight *= 0.15
        for head, deviation in enumerate(reach):
            rows = torch.arange(len(places)) + head * len(places)
            weight[rows, places] += 0.4 * VIEW_PX / 2 / deviation  # a bell, about
        attention.k_proj.weight.copy_(weight)


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
        self.from_4 = _projection(widths[0], EMBEDDING, 4, stride=4)
        self.from_8 = _projection(widths[1], EMBEDDING, 2, stride=2)
        self.from_16 = _projection(widths[2], EMBEDDING, 1)
        self.from_32 = _projection(widths[3], EMBEDDING, 1)
        self.place = nn.Parameter(_waves(VIEW_PX // STRIDE))
        self.fuse = nn.Sequential(Block(EMBEDDING, 5), Block(EMBEDDING, 5))
        self.last = nn.Conv2d(EMBEDDING, EMBEDDING, 3, padding=1, bias=False)
        self.normalise = LayerNorm2d(EMBEDDING)

    def forward(self, image: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Embed normalised views float32 [B, 3, H, W] as float32 [B, 128, H / 16, W / 16]; H and W by 32.

        A cut-out of a view has its `corner` in it: row and column, by 16 px.
        """
        found = []
        image = self.stem(image)
        for stage in self.stages:
            image = stage(image)
            found.append(image)
        at_4, at_8, at_16, at_32 = found
        coarse = interpolate(self.from_32(at_32), scale_factor=2.0, mode="nearest")
        near = self.from_4(at_4) + self.from_8(at_8) + self.from_16(at_16)
        top, left = corner
        place = self.place[..., top : top + near.shape[-2], left : left + near.shape[-1]]
        fused: Tensor = self.fuse(near + coarse + place)
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


def _waves(side: int) -> Tensor:
    """Draw waves over a view in random directions, [1, 128, side, side], a few of them across."""
    at = torch.linspace(-1, 1, side)
    slopes = torch.pi * torch.randn(2, EMBEDDING // 2)
    slopes[:, :2] = torch.pi / 4 * torch.eye(2)  # nearly the coordinates themselves
    angles = slopes[0, :, None, None] * at[:, None] + slopes[1, :, None, None] * at
    return torch.cat([angles.sin(), angles.cos()])[None]


def _projection(come: int, go: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = 0 if kernel == stride else kernel // 2
    convolution = nn.Conv2d(come, go, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(go))


def _convolution(come: int, go: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_projection(come, go, kernel, stride), nn.ReLU(inplace=True))
