"""Schema of a training configuration."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lithostream.engine.bundle import TileInput
from lithostream.engine.config import RoiRule, RunSettings, StrictModel
from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import ConfigError


def _known_targets(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in TARGETS]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"name each target once, out of {', '.join(TARGETS)}")
    return names


def _known_minerals(names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        load_endmembers().subset(names)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return names


class TileConfig(StrictModel):
    """Physical edge of a tile and its size as the network sees it."""

    tile_cm: float = Field(default=1.0, gt=0)
    size_px: int = Field(default=32, ge=8, le=1024)

    def as_input(self) -> TileInput:
        """Return the same as the bundle states it."""
        return TileInput(tile_cm=self.tile_cm, size_px=self.size_px)


class FitConfig(StrictModel):
    """How one network is fitted.

    Attributes
    ----------
    network : str
        `resnet18`, or HRNet-DeepLabV3+ as `hrnet_w18` or `hrnet_w32`.
    width : int
        Channels of the first stage of ResNet-18; 64 is the published network. HRNet has its own.
    epochs, patience : int
        Passes over the training rows at most; passes without improvement on the validation rows before stopping.
    validations : int
        Times that other depth blocks are set aside to find the number of passes; more is steadier on few rows.
    batch_rows, tiles_per_row : int
        Depth rows of a step, and tiles drawn from each.
    learning_rate, weight_decay, dropout : float
        AdamW's, and the share of the embedding that is dropped.
    brightness, contrast : float
        Largest relative change of an augmented tile.
    threads : int
        CPU threads; part of what makes two runs equal.
    """

    network: Literal["resnet18", "hrnet_w18", "hrnet_w32"] = "resnet18"
    width: int = Field(default=16, ge=1, le=256)
    epochs: int = Field(default=40, ge=1)
    patience: int = Field(default=10, ge=1)
    validations: int = Field(default=1, ge=1, le=6)
    batch_rows: int = Field(default=32, ge=2)
    tiles_per_row: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    brightness: float = Field(default=0.02, ge=0, lt=1)
    contrast: float = Field(default=0.05, ge=0, lt=1)
    threads: int = Field(default=1, ge=1)


class SplitConfig(StrictModel):
    """How unseen rows are held out.

    Attributes
    ----------
    kind : {"block", "core", "random"}
        What is held out whole: depth blocks, cores (hole and core, or the section where neither is known), or
        single rows. `random` leaks: the rows beside a held-out row are nearly the same row and are trained on.
    folds : int
        Parts of the cross-validation; with `core`, as many as there are cores leave one core out at a time.
    block_cm : float
        Length of a depth block; longer than a section holds out whole sections.
    buffer_cm : float
        Rows nearer than this to a held-out row are not trained on, also those of an adjoining section where
        hole depths are known: two footprints must not overlap. `random` has no buffer.
    seeds : tuple of int
        Each draws its own folds and initial weights. The first one also makes the final model.
    """

    kind: Literal["block", "core", "random"] = "block"
    folds: int = Field(default=5, ge=2)
    block_cm: float = Field(default=20.0, gt=0)
    buffer_cm: float = Field(default=6.0, ge=0)
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)

    @property
    def leaky(self) -> bool:
        """Whether scores under this split say nothing about unseen depth."""
        return self.kind == "random"

    @property
    def gap_cm(self) -> float:
        """Distance that is kept between held-out and training rows."""
        return 0.0 if self.leaky else self.buffer_cm

    def describe(self) -> str:
        """Say in words what is held out."""
        if self.leaky:
            return f"{self.folds} folds of random rows (leaky: their neighbours were trained on)"
        parts = "whole cores" if self.kind == "core" else f"{self.block_cm:g} cm blocks"
        return f"{self.folds} folds of {parts}, {self.buffer_cm:g} cm buffer"


class Range(StrictModel):
    """Readings outside are not trained on or scored."""

    low: float
    high: float


class SyntheticConfig(StrictModel):
    """Generated training cores: their number, first seed, length range and the scales they cycle through."""

    cores: int = Field(ge=1)
    first_seed: int = Field(default=1000, ge=1000)
    length_cm: tuple[float, float] = (60.0, 100.0)
    width_cm: float = 8.0
    px_per_cm: tuple[float, ...] = Field(default=(32.0, 40.0, 50.0), min_length=1)


class TrainConfig(StrictModel):
    """`lithostream train properties CONFIG.toml`.

    Attributes
    ----------
    name, licence, description : str
        What the bundle will say about itself; `description` is its domain, one sentence.
    data : tuple of Path
        Images, folders or manifests, relative to this file. Empty with `synthetic`.
    targets : tuple of str
        Properties to learn.
    regime, minerals
        Mixing regime and endmembers of the bundle.
    roi : RoiRule
        Rule that finds the core, as in `RunSettings`.
    qc : dict of target to Range
        Credible readings of this data.
    labels : {"footprint", "interpolate"}
        A row's label is what the footprints of readings say that cover it. `interpolate` also labels rows between
        two readings, on the straight line between them; such labels are learned from, never scored.
    interpolate_cm : float
        Needed by `interpolate`: the two readings are no further apart than this.
    """

    name: str
    licence: str
    description: str
    targets: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_targets)]
    regime: Literal["unconsolidated", "lithified"] = "unconsolidated"
    minerals: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_minerals)]
    data: tuple[Path, ...] = ()
    synthetic: SyntheticConfig | None = None
    roi: RoiRule = "sediment"
    tile: TileConfig = TileConfig()
    fit: FitConfig = FitConfig()
    split: SplitConfig = SplitConfig()
    qc: dict[str, Range] = Field(default_factory=dict)
    labels: Literal["footprint", "interpolate"] = "footprint"
    interpolate_cm: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.data) == (self.synthetic is not None):
            raise ValueError("give either data or synthetic")
        strangers = set(self.qc) - set(self.targets)
        if strangers:
            raise ValueError(f"qc names {sorted(strangers)}, which are not targets")
        return self

    @model_validator(mode="after")
    def _one_label_rule(self) -> Self:
        if (self.labels == "interpolate") != (self.interpolate_cm is not None):
            raise ValueError('labels = "interpolate" and interpolate_cm go together')
        return self

    def run_settings(self) -> RunSettings:
        """Return settings under which a run cuts the same tiles."""
        return RunSettings(roi=self.roi, interval_cm=self.tile.tile_cm, threads=self.fit.threads)
