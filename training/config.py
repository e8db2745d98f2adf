"""Schema of a training configuration."""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, model_validator

from lithostream.engine.config import RoiRule, RunSettings, StrictModel
from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import ConfigError
from lithostream.engine.manifest import PlaneInputs, TileInput


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
    """Physical edge of a tile, its size as the network sees it, and the planes that are channels beside colour.

    Attributes
    ----------
    planes : tuple of PlaneInput
        The name of each plane, and the range of its samples that the model tells apart.
    """

    tile_cm: float = Field(default=1.0, gt=0)
    size_px: int = Field(default=32, ge=8, le=1024)
    planes: PlaneInputs = ()

    def as_input(self) -> TileInput:
        """Return the same as the bundle states it."""
        return TileInput(tile_cm=self.tile_cm, size_px=self.size_px, planes=self.planes)


class FitConfig(StrictModel):
    """How one network is fitted.

    Attributes
    ----------
    network : str
        `resnet18`, or HRNet-DeepLabV3+ as `hrnet_w18` or `hrnet_w32`.
    width : int
        Channels of the first stage of ResNet-18; 64 is the published network. HRNet has its own.
    epochs, patience : int
        Passes over the training rows at most, 0 to keep the linear model of a tile's colour; passes without improvement on the validation rows before stopping.
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
    loss : {"huber", "gaussian"}
        Huber's; or the Gaussian likelihood under a variance that the network predicts beside each property, so
        that rows it cannot know pull less. The variance is used in training alone. Both choose the number of
        passes by Huber's loss on the validation rows: what is shipped is the mean.
    target_weights : dict of target to float
        How much a target counts in the loss, relative to the others; 1 where not given.
    accumulate : int
        Batches whose gradients make one step: as a batch so many times larger, in the memory of one. Batch
        normalisation still sees one batch at a time.
    ema : float
        Decay per step of the exponential moving average of the weights that is judged and shipped, 0.99 for
        about the last 100 steps; 0 is the last weights.
    amp : bool
        Compute convolutions in bfloat16 while training, on every device: it has the range of float32, so losses
        need no scaling as they do in float16. Weights, losses and predictions stay float32.
    device : {"cpu", "cuda", "auto"}
        Where to train; `auto` is a CUDA device where there is one. Two devices give slightly different weights.
    tensorboard : bool
        Write losses and learning rates for TensorBoard, into the folder `tensorboard` of the checkpoint.
    init_weights : Path, optional
        ImageNet weights to start the backbone from, see `load_pretrained`: `.pth` or `.safetensors`, relative to
        this file. The number of passes is found anew; a smaller `learning_rate` is usual.
    """

    network: Literal["resnet18", "hrnet_w18", "hrnet_w32"] = "resnet18"
    width: int = Field(default=16, ge=1, le=256)
    epochs: int = Field(default=40, ge=0)
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
    loss: Literal["huber", "gaussian"] = "huber"
    target_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    accumulate: int = Field(default=1, ge=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    amp: bool = False
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    tensorboard: bool = False
    init_weights: Path | None = None


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
    depth_model : bool
        Rows get their values from a depth model over their own and their neighbours' colours, and an interval each;
        the network then tells how the tiles of a row differ.
    logarithmic : tuple of str
        Targets that span decades: baselines and the depth model learn their logarithm, and all are scored on it.
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
    depth_model: bool = False
    logarithmic: tuple[str, ...] = ()
    labels: Literal["footprint", "interpolate"] = "footprint"
    interpolate_cm: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.data) == (self.synthetic is not None):
            raise ValueError("give either data or synthetic")
        tables = (
            ("qc", self.qc),
            ("fit.target_weights", self.fit.target_weights),
            ("logarithmic", self.logarithmic),
        )
        for table, names in tables:
            strangers = set(names) - set(self.targets)
            if strangers:
                raise ValueError(f"{table} names {sorted(strangers)}, which are not targets")
        if self.logarithmic and not self.depth_model:
            raise ValueError(
                "logarithmic needs depth_model = true: the network learns properties as they average"
            )
        return self

    @model_validator(mode="after")
    def _one_label_rule(self) -> Self:
        if (self.labels == "interpolate") != (self.interpolate_cm is not None):
            raise ValueError('labels = "interpolate" and interpolate_cm go together')
        return self

    def logarithmic_flags(self) -> npt.NDArray[np.bool_]:
        """Tell which targets are learned and scored as logarithms, bool [T]."""
        return np.array([name in self.logarithmic for name in self.targets])

    def run_settings(self) -> RunSettings:
        """Return settings under which a run cuts the same tiles."""
        return RunSettings(roi=self.roi, interval_cm=self.tile.tile_cm, threads=self.fit.threads)


class InputLog(StrictModel):
    """A table along depth: its file, its column of depths in cm, and the columns that are inputs."""

    file: Path
    depth: str
    columns: tuple[str, ...] = Field(min_length=1)


class CoreLogs(StrictModel):
    """One core: its name, the sensor log with the properties, and the logs that they are predicted from."""

    name: str
    log: Path
    inputs: tuple[InputLog, ...] = Field(min_length=1)


class LogsConfig(StrictModel):
    """`lithostream train logs CONFIG.toml`: properties from logs of colour, CT and the like, cross-validated.

    Attributes
    ----------
    name, description : str
    targets, qc, logarithmic
        As in `TrainConfig`.
    row_cm : float
        Height of a row; depths of all logs of a core are on one scale, from 0.
    root : Path
        Folder that paths start at, relative to this file.
    cores : tuple of CoreLogs
        With the same input columns in each.
    """

    name: str
    description: str
    targets: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_targets)]
    logarithmic: tuple[str, ...] = ()
    qc: dict[str, Range] = Field(default_factory=dict)
    row_cm: float = Field(default=1.0, gt=0)
    root: Path = Path()
    split: SplitConfig = SplitConfig()
    cores: tuple[CoreLogs, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_set_of_inputs(self) -> Self:
        inputs = {tuple(name for one in core.inputs for name in one.columns) for core in self.cores}
        if len(inputs) > 1:
            raise ValueError("the cores differ in their input columns")
        strangers = {*self.qc, *self.logarithmic} - set(self.targets)
        if strangers:
            raise ValueError(f"qc or logarithmic names {sorted(strangers)}, which are not targets")
        return self
