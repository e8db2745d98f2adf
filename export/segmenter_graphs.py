"""Segment Anything rearranged: what depends on the image alone is computed once, not once a prompt.

The networks here compute what the package's `Sam`, `PromptEncoder` and `MaskDecoder` compute, from the same weights,
up to rounding. What is rearranged, and why:

* of the first layer, keys and values of the image (for the tokens) and its queries (to the tokens) belong to the image;
* later image-side projections are applied to the few tokens instead: (x W) k = x (W k), so no array of the image's size
  is projected, split into heads and transposed;
* a transposed convolution of stride 2 by 2 is one matrix product, and channels stay last;
* prompts are encoded by arithmetic, where the package writes into slices chosen by label.
"""

import math

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn

HIDDEN = -1e4  # added to the score of a token that is not there: its exponential is 0


class ViewEncoder(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    """From a view to what all its prompts share."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        side = self.encoder.img_size
        layer = sam.mask_decoder.transformer.layers[0]
        self.to_image, self.to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        self.register_buffer("mean", sam.pixel_mean.detach().clone())
        self.register_buffer("deviation", sam.pixel_std.detach().clone())
        self.register_buffer("rows", torch.arange(side).view(1, side, 1))
        self.register_buffer("columns", torch.arange(side).view(1, 1, side))
        self.register_buffer("no_mask", sam.prompt_encoder.no_mask_embed.weight.detach().clone()[:, None])
        self.register_buffer("position", _position(sam))

    def forward(self, view: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode.

        Parameters
        ----------
        view : uint8 [1, S, S, 3]
        valid : int64 [2]
            Height and width of what is image; the rest becomes 0 after normalising, as `Sam.preprocess` pads.

        Returns
        -------
        image : float32 [1, N, C]
            Embedding with that of an absent mask.
        keys : float32 [h, c, N]
        values : float32 [h, N, c]
        queries : float32 [1, N, h c]
            Divided by the root of c.
        """
        pixels = (view.float().permute(0, 3, 1, 2) - self.mean) / self.deviation
        inside = (self.rows < valid[0]).float() * (self.columns < valid[1]).float()
        embedding = self.encoder(pixels * inside[:, None])
        image = embedding.flatten(2).transpose(1, 2) + self.no_mask
        placed = image + self.position
        keys = _heads(self.to_image, self.to_image.k_proj(placed)[0]).permute(1, 2, 0)
        values = _heads(self.to_image, self.to_image.v_proj(image)[0]).transpose(0, 1)
        return image, keys, values, self.to_tokens.q_proj(placed) * _scale(self.to_tokens)


class PromptDecoder(nn.Module):  # type: ignore[misc]
    """From prompts and what a view's prompts share to masks and their quality."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        decoder, prompts = sam.mask_decoder, sam.prompt_encoder
        self.transformer = decoder.transformer
        self.side = prompts.input_image_size[0]
        self.grid = prompts.image_embedding_size[0]
        self.iou_head = decoder.iou_prediction_head
        self.hyper = decoder.output_hypernetworks_mlps[1:]  # the first is for a prompt that leaves no doubt
        first, norm, _, second, _ = decoder.output_upscaling
        self.norm_weight, self.norm_bias, self.norm_eps = norm.weight, norm.bias, norm.eps
        buffers = {
            "frequencies": prompts.pe_layer.positional_encoding_gaussian_matrix,
            "position": _position(sam),
            "point": prompts.point_embeddings[1].weight,
            "corners": torch.cat([prompts.point_embeddings[2].weight, prompts.point_embeddings[3].weight]),
            "no_point": prompts.not_a_point_embed.weight,
            "outputs": torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None],
            "first_weight": first.weight.permute(0, 2, 3, 1).flatten(1),
            "first_bias": first.bias.repeat(4),
            "second_weight": second.weight.permute(0, 2, 3, 1).flatten(1),
            "second_bias": second.bias.repeat(4),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().clone())
        count = self.outputs.shape[1] + 3
        self.register_buffer("last", (torch.arange(count) == count - 1).float()[None])

    def forward(
        self, image: Tensor, keys: Tensor, values: Tensor, queries: Tensor, points: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode.

        Parameters
        ----------
        image, keys, values, queries
            What `ViewEncoder` gives.
        points : float32 [P, 2]
            x, y in px of the view, inside the object.
        boxes : float32 [P, 4]
            x, y of two corners; no box where the second is not to the right of the first.

        Returns
        -------
        logits : float32 [P, 3, 4 H, 4 W]
        quality : float32 [P, 3]
        """
        tokens, hidden = self._tokens(points, boxes)
        states, pixels = tokens, image
        for place, layer in enumerate(self.transformer.layers):
            states = layer.norm1(_among_tokens(layer, states, tokens, hidden))
            asking = states + tokens
            if place == 0:
                found = _ask_shared(layer.cross_attn_token_to_image, asking, keys, values)
            else:
                placed = pixels + self.position
                found = _ask_image(layer.cross_attn_token_to_image, asking, placed, pixels)
            states = layer.norm2(states + found)
            states = layer.norm3(states + layer.mlp(states))
            asked = states + tokens
            answer = layer.cross_attn_image_to_token
            if place == 0:
                scores = queries @ _in_blocks(answer, answer.k_proj(asked))
            else:
                scores = placed @ _through_queries(answer, asked)
            pixels = layer.norm4(pixels + _answer(answer, scores, asked, states, hidden, place > 0))
        last = self.transformer.final_attn_token_to_image
        found = _ask_image(last, states + tokens, pixels + self.position, pixels)
        states = self.transformer.norm_final_attn(states + found)
        return self._masks(states, pixels), self.iou_head(states[:, 0])[:, 1:]

    def _tokens(self, points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [P, T, C], and what is added to a token's score [P, T]: the last is there for boxes only."""
        coordinates = torch.cat([points, boxes], dim=1).reshape(-1, 3, 2)
        angles = (2 * ((coordinates + 0.5) / self.side) - 1) @ self.frequencies * (2 * math.pi)
        encoded = torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)
        boxed = (boxes[:, 2:3] > boxes[:, 0:1]).float()
        point = encoded[:, 0] + self.point
        one = boxed * (encoded[:, 1] + self.corners[0]) + (1 - boxed) * self.no_point
        two = boxed * (encoded[:, 2] + self.corners[1])
        outputs = self.outputs.expand(points.shape[0], -1, -1)
        return torch.cat([outputs, torch.stack([point, one, two], 1)], 1), (1 - boxed) * self.last * HIDDEN

    def _masks(self, states: Tensor, pixels: Tensor) -> Tensor:
        """Upscale `pixels` [P, N, C] twice by two and weigh the channels by what the mask tokens say."""
        finer = (pixels @ self.first_weight + self.first_bias).unflatten(2, (4, -1))
        channels = finer.shape[-1:]
        finer = nn.functional.layer_norm(finer, channels, self.norm_weight, self.norm_bias, self.norm_eps)
        finest = nn.functional.gelu(
            nn.functional.gelu(finer).flatten(1, 2) @ self.second_weight + self.second_bias
        )
        weights = torch.stack([one(states[:, 2 + place]) for place, one in enumerate(self.hyper)], dim=1)
        count = len(self.hyper)
        masks = weights @ finest.reshape(-1, finest.shape[1] * 4, weights.shape[-1]).transpose(1, 2)
        masks = masks.reshape(-1, count, self.grid, self.grid, 2, 2, 2, 2)
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(-1, count, 4 * self.grid, 4 * self.grid)


def shared_like(sam: Sam) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Zeros of the shapes that `ViewEncoder` gives, for tracing."""
    layer = sam.mask_decoder.transformer.layers[0]
    asks, answers = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    _, pixels, channels = _position(sam).shape
    heads, each = asks.num_heads, asks.internal_dim // asks.num_heads
    return (
        torch.zeros((1, pixels, channels)),
        torch.zeros((heads, each, pixels)),
        torch.zeros((heads, pixels, each)),
        torch.zeros((1, pixels, answers.internal_dim)),
    )


def _position(sam: Sam) -> Tensor:
    return sam.prompt_encoder.get_dense_pe().detach().flatten(2).transpose(1, 2).contiguous()


def _scale(attention: Attention) -> float:
    return 1 / math.sqrt(attention.internal_dim // attention.num_heads)


def _heads(attention: Attention, values: Tensor) -> Tensor:
    """Split the last axis: [..., h c] to [..., h, c]."""
    return values.unflatten(-1, (attention.num_heads, attention.internal_dim // attention.num_heads))


def _rows_of_heads(attention: Attention, weight: Tensor) -> Tensor:
    """Weights of a projection [h c, C] as [h, c, C]."""
    return weight.unflatten(0, (attention.num_heads, attention.internal_dim // attention.num_heads))


def _among_tokens(layer: nn.Module, states: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
    attention, first = layer.self_attn, layer.skip_first_layer_pe
    asking = states if first else states + tokens
    q = _heads(attention, attention.q_proj(asking) * _scale(attention)).transpose(1, 2)
    k = _heads(attention, attention.k_proj(asking)).permute(0, 2, 3, 1)
    v = _heads(attention, attention.v_proj(states)).transpose(1, 2)
    weights = torch.softmax(q @ k + hidden[:, None, None], dim=-1)
    found = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return found if first else states + found


def _ask_shared(attention: Attention, asking: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens [P, T, C] ask keys [h, c, N] and values [h, N, c] that all prompts share."""
    q = _heads(attention, attention.q_proj(asking) * _scale(attention))
    q = q.flatten(0, 1).transpose(0, 1)
    found = torch.softmax(q @ keys, dim=-1) @ values
    return attention.out_proj(found.transpose(0, 1).reshape(-1, asking.shape[1], attention.internal_dim))


def _ask_image(attention: Attention, asking: Tensor, placed: Tensor, pixels: Tensor) -> Tensor:
    """Tokens ask the pixels of their own prompt; the bias of the keys adds the same to all scores of a token."""
    q = _heads(attention, attention.q_proj(asking) * _scale(attention)).transpose(1, 2)
    q = (q @ _rows_of_heads(attention, attention.k_proj.weight)).flatten(1, 2)
    found = torch.softmax(q @ placed.transpose(1, 2), dim=-1) @ pixels
    found = found.unflatten(1, (attention.num_heads, asking.shape[1]))
    v = found @ _rows_of_heads(attention, attention.v_proj.weight).transpose(1, 2)
    return attention.out_proj(v.transpose(1, 2).flatten(2) + attention.v_proj.bias)


def _in_blocks(attention: Attention, keys: Tensor) -> Tensor:
    """Keys of tokens [P, T, h c] as [P, h c, h T], zero where the heads differ."""
    same = torch.eye(attention.num_heads, device=keys.device)[:, None, :, None]
    blocks = _heads(attention, keys).permute(0, 2, 3, 1)[:, :, :, None] * same
    return blocks.flatten(3, 4).flatten(1, 2)


def _through_queries(attention: Attention, asked: Tensor) -> Tensor:
    """Keys of tokens, taken through the projection of the image's queries: [P, C, h T]."""
    k = _heads(attention, attention.k_proj(asked) * _scale(attention)).transpose(1, 2)
    return (k @ _rows_of_heads(attention, attention.q_proj.weight)).flatten(1, 2).transpose(1, 2)


def _answer(
    attention: Attention, scores: Tensor, asked: Tensor, states: Tensor, hidden: Tensor, through: bool
) -> Tensor:
    """Tokens answer pixels, whose scores are [P, N, h T]; each head's answer is taken through the output's weights."""
    heads, count = attention.num_heads, asked.shape[1]
    bias = hidden[:, None].expand(-1, heads, -1)
    if through:
        k = _heads(attention, attention.k_proj(asked) * _scale(attention)).transpose(1, 2)
        bias = bias + (k @ _heads(attention, attention.q_proj.bias)[:, :, None])[..., 0]
    scores = (scores + bias.flatten(1)[:, None]).unflatten(2, (heads, count))
    v = _heads(attention, attention.v_proj(states)).transpose(1, 2)
    output = attention.out_proj.weight.T.unflatten(0, (heads, -1))
    v = (v @ output + attention.out_proj.bias / heads).flatten(1, 2)  # the weights of a head sum to 1
    return torch.softmax(scores, dim=-1).flatten(2) @ v
