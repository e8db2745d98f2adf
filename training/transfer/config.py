"""Schema of the transfer study."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from lithostream.engine.config import StrictModel
from lithostream.training.transfer.models import Baselines, Forest, Machine, Net, PublishedNet


class Tables(StrictModel):
    """Files of the study: predictors and components of the same labelled rows, and rows to carry over from.

    Attributes
    ----------
    validation : Path, optional
        Components and labels of further rows; those that occur in training too are found and reported.
    experiments : dict of name to Path
        Parts of the labelled rows, with fewer and fewer deposits.
    """

    predictors: Path
    components: Path
    pretext: Path
    unlabelled: Path
    validation: Path | None = None
    experiments: dict[str, Path] = Field(min_length=1)


class Columns(StrictModel):
    """Names of columns; `place` is easting and northing in m, on a grid of equal distances."""

    label: str
    place: tuple[str, str]
    predictors: tuple[str, ...] = Field(min_length=1)
    components: tuple[str, ...] = Field(min_length=1)
    pretext_label: str
    pretext_place: tuple[str, str]


class Blocks(StrictModel):
    """How rows are held out: square blocks of a grid that is shifted and turned anew in each repeat.

    Attributes
    ----------
    edge_m : float
        Of a block.
    buffer_m : float
        Rows nearer than this to a held-out row are not learned from.
    folds : int
    repeats : int
        Of the first and the last experiment, with a threshold and a calibration found inside the folds.
    repeats_between : int
        Of the experiments between them.
    """

    edge_m: float = Field(default=20_000.0, gt=0)
    buffer_m: float = Field(default=5_000.0, ge=0)
    folds: int = Field(default=5, ge=3)
    repeats: int = Field(default=10, ge=2)
    repeats_between: int = Field(default=3, ge=2)


class Published(StrictModel):
    """The study as it was published, on its components as given, with all rows in and nothing held out.

    Attributes
    ----------
    seeds : int
    pretrain_epochs, pretrain_batch, pretrain_rate
        Of the pretext task; the autoencoder, which has more rows, gets as many steps.
    random_forest, svm
        Of scikit-learn.
    nets : dict of name to PublishedNet
    reference : dict of model to dict of metric to float
        What was published, to stand beside.
    """

    seeds: int = Field(default=5, ge=2)
    pretrain_epochs: int = Field(default=300, ge=1)
    pretrain_batch: int = Field(default=82, ge=1)
    pretrain_rate: float = Field(default=1e-3, gt=0)
    random_forest: Forest = Forest(trees=200)
    svm: Machine = Machine()
    nets: dict[str, PublishedNet] = Field(default_factory=dict)
    reference: dict[str, dict[str, float]] = Field(default_factory=dict)


class TransferConfig(StrictModel):
    """`lithostream train transfer CONFIG.toml`.

    Attributes
    ----------
    name, licence, description : str
        What the bundle will say about itself.
    root : Path
        Folder that tables are looked for in, relative to this file.
    logarithmic : dict of predictor to float
        Predictors that span decades, and the value below which they count as linear.
    units : dict of predictor to str
    baselines, nets
        What is compared; `ensemble` averages the net `deep` and the random forest.
    deep : str
        The net that stands for deep learning in the comparison with the baselines.
    workers : int
        Processes side by side; never changes a result.
    """

    name: str
    licence: str
    description: str
    root: Path = Path()
    tables: Tables
    columns: Columns
    logarithmic: dict[str, float] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    blocks: Blocks = Blocks()
    baselines: Baselines = Baselines()
    nets: dict[str, Net] = Field(min_length=1)
    deep: str
    published: Published | None = Published()
    workers: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _names_known(self) -> Self:
        if self.deep not in self.nets:
            raise ValueError(f"deep is {self.deep!r}, which is none of nets")
        for table, names in (("logarithmic", set(self.logarithmic)), ("units", set(self.units))):
            strangers = names - set(self.columns.predictors)
            if strangers:
                raise ValueError(f"{table} names {sorted(strangers)}, which are no predictors")
        clash = set(self.nets) & {"ensemble", *Baselines.model_fields}
        if clash:
            raise ValueError(f"nets may not be called {sorted(clash)}")
        return self
