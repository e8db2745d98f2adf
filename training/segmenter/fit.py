"""Train a segmenter on generated scenes, the same way to the last bit for the same seed and thread count."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn

from lithostream.training.segmenter.batch import answer, images
from lithostream.training.segmenter.config import SegmenterConfig
from lithostream.training.segmenter.fields import Bytes, Floats
from lithostream.training.segmenter.geometry import CHANNELS, geometry, geometry_loss
from lithostream.training.segmenter.loss import mask_loss
from lithostream.training.segmenter.prompts import Prompts, draw_prompts
from lithostream.training.segmenter.scenes import Scene, renumbered, scene

Teacher = Callable[[Scene, Prompts], Floats]
GRADIENT_NORM = 1.0
AHEAD = 3  # batches drawn while one is learned
SEEN = 20  # times that every pixel of a scene is learned from, about
FIRST, KEPT = 64, 400  # scenes to begin with, and at most
NARROW_PX = 96  # least width of a strip
CELL = 4  # pixels of a mask along a value of the embedding
GEOMETRY = 0.5  # weight of what pixels say about their objects
SETTLED = 0.7  # part of the steps after which the statistics of normalisation stay


class Example(NamedTuple):
    """A scene of which `valid` rows and columns are image, its prompts, and a teacher's masks if there is one."""

    rgb: Bytes
    valid: tuple[int, int]
    prompts: Prompts
    geometry: Floats
    taught: Floats | None


class Learner:
    """A network, the moving average of its weights, and the optimiser, at some step.

    Parameters
    ----------
    sam : Sam
    config : SegmenterConfig
    device : device
    """

    def __init__(self, sam: Sam, config: SegmenterConfig, device: torch.device) -> None:
        self.config, self.device, self.step = config, device, 0
        self.sam = sam.to(device, memory_format=torch.channels_last)
        self.average = deepcopy(self.sam).eval().requires_grad_(False)
        self.geometry = nn.Sequential(
            nn.Conv2d(self.sam.mask_decoder.transformer_dim, CHANNELS * CELL**2, 1), nn.PixelShuffle(CELL)
        ).to(device)
        named = dict(self.sam.named_parameters()) | dict(self.geometry.named_parameters())
        flat = [value for value in named.values() if value.ndim < 2]
        deep = [value for value in named.values() if value.ndim >= 2]
        groups = [
            {"params": deep, "weight_decay": config.weight_decay},
            {"params": flat, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)

    def learn(self, examples: list[Example]) -> float:
        """Take one step, and return its loss."""
        rate = learning_rate(self.config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.sam.train()
        if self.config.views(self.step) >= SETTLED * self.config.views(self.config.steps):
            for module in self.sam.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(examples)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sam.parameters(), GRADIENT_NORM)
        self.optimiser.step()
        self.step += 1
        self._move_average()
        return float(loss.detach())

    def _loss(self, examples: list[Example]) -> Tensor:
        rng = np.random.default_rng((self.config.seed, self.step, 1))
        grid = self.sam.prompt_encoder.image_embedding_size[0]
        stride = self.sam.image_encoder.img_size // grid
        room = grid - len(examples[0].rgb) // stride
        corner = int(rng.integers(room + 1)), int(rng.integers(room + 1))
        shown = images(
            self.sam, [each.rgb for each in examples], self.device, [each.valid for each in examples]
        )
        embedding = self.sam.image_encoder(shown, corner)
        logits, quality = answer(self.sam, embedding, [each.prompts for each in examples], corner)
        exact = self._stacked([each.prompts.masks for each in examples])
        wanted = exact
        if self.config.distil is not None:
            taught = self._stacked([each.taught for each in examples if each.taught is not None])
            wanted = torch.lerp(exact, taught, self.config.distil.weight)
        of_masks = mask_loss(*(each.flatten(0, 1) for each in (logits, quality, wanted, exact)))
        known, place = (
            self._stacked([each.geometry for each in examples]),
            (corner[0] * stride, corner[1] * stride),
        )
        of_pixels = geometry_loss(self.geometry(embedding), known, place, grid * stride)
        return of_masks + GEOMETRY * of_pixels

    def _stacked(self, arrays: list[Floats]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def _move_average(self) -> None:
        """Follow the weights; in the first steps faster, so that the random start is forgotten."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        own, kept = self.sam.state_dict(), self.average.state_dict()
        with torch.no_grad():
            for name, value in kept.items():
                if value.is_floating_point():
                    value.lerp_(own[name], 1 - keep)
                else:
                    value.copy_(own[name])

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, but the step."""
        found = {f"sam.{name}": value for name, value in self.sam.state_dict().items()}
        found |= {f"geometry.{name}": value for name, value in self.geometry.state_dict().items()}
        found |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        return found

    def take_up(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from what `tensors` gave at `step`."""
        for prefix, module in (
            ("sam.", self.sam),
            ("average.", self.average),
            ("geometry.", self.geometry),
        ):
            module.load_state_dict(
                {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            )
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                states.setdefault(int(index), {})[key] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**whole, "state": states})
        self.step = step


def learning_rate(config: SegmenterConfig, step: int) -> float:
    """Rise in a line over the warm-up, and fall as a cosine of the pixels seen to 0 at the end."""
    rise = min(1.0, (step + 1) / max(config.warmup, 1))
    part = config.views(step) / config.views(config.steps)
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * part))


def batches(
    config: SegmenterConfig, first: int, teacher: Teacher | None = None, sheets: Sequence[Bytes] = ()
) -> Iterator[list[Example]]:
    """Draw the batches from step `first` on, a few ahead of who takes them; see `scene` for `sheets`."""
    scenes = Scenes(config, sheets)
    with ThreadPoolExecutor(1) as pool:
        draw = partial(_batch, scenes, teacher=teacher)
        waiting = [pool.submit(draw, step) for step in range(first, min(first + AHEAD, config.steps))]
        for step in range(first, config.steps):
            yield waiting.pop(0).result()
            if step + AHEAD < config.steps:
                waiting.append(pool.submit(draw, step + AHEAD))


class Scenes:
    """Scenes of each step, out of the last `KEPT`, which move on as training does.

    To draw a scene takes longer than to learn from it. Which scenes a step has follows from its number alone, so a
    training that is taken up draws again what it needs.
    """

    def __init__(self, config: SegmenterConfig, sheets: Sequence[Bytes] = ()) -> None:
        self.config, self._sheets = config, sheets
        self._kept: dict[int, Scene] = {}

    def of(self, step: int) -> list[Scene]:
        """Scenes of a step."""
        stage, found = self.config.stage_of(step), []
        end = FIRST + int(self.config.views(step) / SEEN)
        start = max(0, end - KEPT)
        for place in [place for place in self._kept if place < start]:
            del self._kept[place]
        for at in range(stage.batch):
            rng = np.random.default_rng((self.config.seed, step, at, 3))
            found.append(self._scene(int(rng.integers(start, end))))
        return found

    def _scene(self, number: int) -> Scene:
        if number not in self._kept:
            seed = int(np.random.default_rng((self.config.seed, number, 2)).integers(2**39))
            self._kept[number] = scene(seed, max(stage.size_px for stage in self.config.stages), self._sheets)
        return self._kept[number]


def varied(rng: np.random.Generator, one: Scene, size: int) -> tuple[Scene, tuple[int, int]]:
    """Cut `size` px out of a scene, turned and mirrored, change its light, and leave a strip of it as often as not.

    Returns
    -------
    Scene
        Black and without objects beyond the strip, as views of narrow cores are.
    (int, int)
        Rows and columns of the strip.
    """
    steps = tuple(slice(None, None, int(turn)) for turn in rng.choice([-1, 1], 2))
    across = bool(rng.integers(2))
    rgb, whole, part = (np.swapaxes(each[steps], 0, 1) if across else each[steps] for each in one)
    width = size if rng.random() < 0.5 else int(rng.integers(min(NARROW_PX, size), size + 1))
    top, left = int(rng.integers(len(rgb) - size + 1)), int(rng.integers(len(rgb) - width + 1))
    cut = slice(top, top + size), slice(left, left + width)
    tone = 255 * (np.arange(256) / 255) ** rng.uniform(0.75, 1.3)
    tone = (tone - tone.mean()) * rng.uniform(0.6, 1.1) + tone.mean()
    curves = (
        (tone * (rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, (3, 1)))).clip(0, 255).astype(np.uint8)
    )
    shown, labels = np.zeros((size, size, 3), np.uint8), np.zeros((2, size, size), np.int32)
    for channel, curve in enumerate(curves):
        shown[:, :width, channel] = curve[rgb[*cut, channel]]
    for label, found in zip(labels, (whole, part), strict=True):
        label[:, :width] = renumbered(found[cut].astype(np.int32))
    return Scene(shown, *labels), (size, width)


def _batch(scenes: Scenes, step: int, teacher: Teacher | None) -> list[Example]:
    config, made = scenes.config, []
    for at, drawn in enumerate(scenes.of(step)):
        rng = np.random.default_rng((config.seed, step, at, 4))
        stage = config.stage_of(step)
        seen, valid = varied(rng, drawn, stage.size_px)
        prompts = draw_prompts(rng, seen, stage.prompts, config.boxes, config.nowhere)
        taught = teacher(seen, prompts) if teacher else None
        made.append(Example(seen.rgb, valid, prompts, geometry(seen.whole), taught))
    return made
