"""Schema of the transfer study."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lithostream.engine.config import StrictModel

Baseline = Literal["random_forest", "svm", "logistic", "gradient_boosting", "smote_forest"]
Start = Literal["scratch", "pretext", "autoencoder"]
View = Literal["components", "whitened", "logarithmic", "both"]


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


class Net(StrictModel):
    """A perceptron, and how it is fitted.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    start : {"scratch", "pretext", "autoencoder"}
        Where the weights of the hidden layers come from.
    probe : bool
        Fit the last layer alone.
    loss : {"weighted", "focal", "class_balanced"}
        Cross-entropy with weights of the classes; with the focal factor (Lin et al. 2017, gamma 2); or with
        weights by the effective number of rows (Cui et al. 2019, beta 0.999).
    balance : float
        Power of the inverse class frequencies that are the weights of the classes; 0 gives each row one weight.
    views : tuple of str
        What the inputs are made of: principal components, the same at equal variance, standardised predictors with
        logarithms where `logarithmic` says so, or these and the components at equal variance. Members are shared out.
    seeds : int
        Networks of each view.
    steps, learning_rate, l1, l2
        Steps of Adam on all rows at once, and penalties of the weights.
    clip : float, optional
        Standardised inputs beyond are drawn in to it.
    """

    hidden: tuple[int, ...] = Field(default=(100, 8, 6, 4, 2), min_length=1)
    start: Start = "scratch"
    probe: bool = False
    loss: Literal["weighted", "focal", "class_balanced"] = "weighted"
    balance: float = Field(default=1.0, ge=0, le=1)
    views: tuple[View, ...] = Field(default=("whitened",), min_length=1)
    seeds: int = Field(default=3, ge=1)
    steps: int = Field(default=200, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=1e-3, ge=0)
    clip: float | None = Field(default=4.0, gt=0)


class Published(StrictModel):
    """The study as it was published, on its components as given, with all rows in and nothing held out.

    Attributes
    ----------
    seeds : int
    batch : int
        Rows of a step.
    epochs, fine_rate : int, float
        Of fine-tuning and from scratch; Adam's rate for fine-tuning.
    rate, probe_epochs : float, int
        Adam's rate from scratch, for probes, logistic regression and the tasks before; epochs of all but the first.
    pretrain_epochs : int
        Of the pretext task; the autoencoder, which has more rows, gets as many steps.
    l1, l2 : float
        Penalties of the weights.
    reference : dict of model to dict of metric to float
        What was published, to stand beside.
    """

    seeds: int = Field(default=5, ge=2)
    batch: int = Field(default=82, ge=1)
    epochs: int = Field(default=6_000, ge=1)
    fine_rate: float = Field(default=1e-5, gt=0)
    rate: float = Field(default=1e-3, gt=0)
    probe_epochs: int = Field(default=1_000, ge=1)
    pretrain_epochs: int = Field(default=300, ge=1)
    l1: float = Field(default=1e-5, ge=0)
    l2: float = Field(default=1e-4, ge=0)
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
    baselines: tuple[Baseline, ...] = (
        "random_forest",
        "svm",
        "logistic",
        "gradient_boosting",
        "smote_forest",
    )
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
        missing = {"random_forest", "svm", "logistic"} - set(self.baselines)
        if missing:
            raise ValueError(f"baselines lack {sorted(missing)}, which the deep model is compared with")
        clash = set(self.nets) & ({"ensemble"} | set(self.baselines))
        if clash:
            raise ValueError(f"nets may not be called {sorted(clash)}")
        return self
