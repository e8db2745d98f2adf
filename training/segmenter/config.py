"""Schema of a segmenter's training."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lithostream.engine.config import StrictModel

Architecture = Literal["small", "vit_b", "vit_l", "vit_h"]


class Stage(StrictModel):
    """Steps on scenes of one size, in one way.

    Attributes
    ----------
    steps : int
    size_px : int
        Edge of what is seen of a scene, by 32, at most 512: a smaller one is a cut-out of a view, with objects of
        the same size in px, and costs less.
    batch : int
        Scenes of a step.
    prompts : int
        Prompts per scene.
    """

    steps: int = Field(ge=1)
    size_px: int = Field(default=256, ge=64, le=512, multiple_of=32)
    batch: int = Field(default=8, ge=2)
    prompts: int = Field(default=12, ge=1, le=64)

    @property
    def views(self) -> float:
        """Views of 512 px that a step sees as many pixels as."""
        return self.batch * (self.size_px / 512) ** 2


class DistilConfig(StrictModel):
    """A trained Segment Anything whose masks are learned beside the exact ones.

    Attributes
    ----------
    checkpoint : Path
        `.pth`, `.safetensors` or a folder that `train segmenter` wrote, relative to this file.
    architecture : str
    weight : float
        Share of the teacher's mask in what is learned.
    """

    checkpoint: Path
    architecture: Architecture = "vit_b"
    weight: float = Field(default=0.5, gt=0, le=1)


class SegmenterConfig(StrictModel):
    """`lithostream train segmenter`.

    Attributes
    ----------
    seed : int
        Of weights, scenes and prompts.
    start : Path, optional
        Folder of an earlier training, relative to this file, whose weights this one begins with: to go on under a
        schedule of its own, and on other scenes where the seed is another.
    textures : tuple of Path
        Photographs of core, relative to this file, that some of the scenes' materials are cut from.
    licence : str
        Terms and credit of those photographs: it goes into the bundle.
    stages : tuple of Stage
        One after the other, under one schedule.
    learning_rate, weight_decay : float
        AdamW's; the rate rises over `warmup` steps and falls as a cosine of the pixels seen to 0.
    warmup : int
    ema : float
        Decay per step of the moving average of the weights that is kept.
    boxes, nowhere : float
        Share of the prompts that are boxes, and that are points on no object (their masks are worth 0).
    threads : int
        CPU threads; part of what makes two runs equal.
    device : {"cpu", "cuda", "auto"}
    evaluate_scenes : int
        Scenes not trained on that the result is measured on.
    distil : DistilConfig, optional
    """

    seed: int = 0
    start: Path | None = None
    textures: tuple[Path, ...] = ()
    licence: str = ""
    stages: tuple[Stage, ...] = Field(min_length=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: int = Field(default=200, ge=0)
    ema: float = Field(default=0.998, ge=0, lt=1)
    boxes: float = Field(default=0.3, ge=0, le=1)
    nowhere: float = Field(default=0.05, ge=0, lt=1)
    threads: int = Field(default=2, ge=1)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    evaluate_scenes: int = Field(default=40, ge=1)
    distil: DistilConfig | None = None

    @model_validator(mode="after")
    def _credited(self) -> Self:
        if self.textures and not self.licence:
            raise ValueError("licence: say under what terms the textures may be used, and whom to credit")
        return self

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def views(self, step: int) -> float:
        """Count the views of 512 px that were seen before a step."""
        seen = 0.0
        for stage in self.stages:
            seen += min(step, stage.steps) * stage.views
            step -= min(step, stage.steps)
        return seen

    def stage_of(self, step: int) -> Stage:
        """Stage of a step from 0."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]
