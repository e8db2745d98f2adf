"""Train a segmenter on generated scenes, the same way to the last bit for the same seed and thread count."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from lithostream.training.segmenter.batch import answer, images
from lithostream.training.segmenter.config import SegmenterConfig
from lithostream.training.segmenter.fields import Bytes, Floats
from lithostream.training.segmenter.loss import mask_loss
from lithostream.training.segmenter.prompts import Prompts, draw_prompts
from lithostream.training.segmenter.scenes import Scene, scene

Teacher = Callable[[Scene, Prompts], Floats]
GRADIENT_NORM = 1.0
AHEAD = 3  # batches drawn while one is learned
SEEN = 4  # times that a scene is learned from, about
KEPT = 400  # scenes


class Example(NamedTuple):
    """A scene, its prompts, and the masks that a teacher gives for them, if there is one."""

    rgb: Bytes
    prompts: Prompts
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
        named = dict(self.sam.named_parameters())
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
        embedding = self.sam.image_encoder(images(self.sam, [each.rgb for each in examples], self.device))
        room = self.sam.prompt_encoder.image_embedding_size[0] - embedding.shape[-1]
        losses = []
        for at, each in enumerate(examples):
            corner = int(rng.integers(room + 1)), int(rng.integers(room + 1))
            logits, quality = answer(self.sam, embedding[at : at + 1], each.prompts, corner)
            exact = torch.from_numpy(each.prompts.masks).to(self.device)
            wanted = exact
            if each.taught is not None and self.config.distil is not None:
                share = self.config.distil.weight
                wanted = (1 - share) * exact + share * torch.from_numpy(each.taught).to(self.device)
            losses.append(mask_loss(logits, quality, wanted, exact))
        return torch.stack(losses).mean()

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
        found |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        return found

    def take_up(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from what `tensors` gave at `step`."""
        for prefix, module in (("sam.", self.sam), ("average.", self.average)):
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
    """Rise in a line over the warm-up, then fall as a cosine to 0 at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    part = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


def batches(config: SegmenterConfig, first: int, teacher: Teacher | None = None) -> Iterator[list[Example]]:
    """Draw the batches from step `first` on, a few ahead of who takes them."""
    scenes = Scenes(config)
    with ThreadPoolExecutor(1) as pool:
        draw = partial(_batch, scenes, teacher=teacher)
        waiting = [pool.submit(draw, step) for step in range(first, min(first + AHEAD, config.steps))]
        for step in range(first, config.steps):
            yield waiting.pop(0).result()
            if step + AHEAD < config.steps:
                waiting.append(pool.submit(draw, step + AHEAD))


class Scenes:
    """Scenes of each step: some new, the others out of the last `KEPT`, mirrored by chance.

    To draw a scene takes longer than to learn from it. Which scenes a step has follows from its number alone, so a
    training that is taken up draws again what it needs.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        self.config = config
        self._kept: dict[tuple[int, int], Scene] = {}

    def of(self, step: int) -> list[Scene]:
        """Scenes of a step."""
        stage, found = self.config.stage_of(step), []
        fresh = max(1, stage.batch // SEEN)
        for at in range(stage.batch):
            rng = np.random.default_rng((self.config.seed, step, at, 3))
            newest = fresh * step + at
            oldest = max(0, fresh * (step + 1) - KEPT)
            number = newest if at < fresh else int(rng.integers(oldest, fresh * (step + 1)))
            found.append(_mirrored(rng, self._scene(number, stage.size_px)))
        for place in [place for place in self._kept if place[0] < fresh * (step + 1) - KEPT]:
            del self._kept[place]
        return found

    def _scene(self, number: int, size: int) -> Scene:
        if (number, size) not in self._kept:
            seed = int(np.random.default_rng((self.config.seed, number, 2)).integers(2**39))
            self._kept[number, size] = scene(seed, size)
        return self._kept[number, size]


def _mirrored(rng: np.random.Generator, one: Scene) -> Scene:
    steps = tuple(slice(None, None, int(turn)) for turn in rng.choice([-1, 1], 2))
    return Scene(one.rgb[steps].copy(), one.whole[steps].copy(), one.part[steps].copy())


def _batch(scenes: Scenes, step: int, teacher: Teacher | None) -> list[Example]:
    config, made = scenes.config, []
    for at, drawn in enumerate(scenes.of(step)):
        rng = np.random.default_rng((config.seed, step, at, 4))
        prompts = draw_prompts(rng, drawn, config.stage_of(step).prompts, config.boxes, config.nowhere)
        made.append(Example(drawn.rgb, prompts, teacher(drawn, prompts) if teacher else None))
    return made
