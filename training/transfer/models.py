"""Schema of the models that the transfer study compares: one table of settings each."""

from typing import Literal, Self

from pydantic import Field, model_validator

from lithostream.engine.config import StrictModel

Start = Literal["scratch", "pretext", "autoencoder"]
View = Literal["components", "whitened", "logarithmic", "both"]


class Forest(StrictModel):
    """A random forest."""

    trees: int = Field(default=100, ge=1)


class SmoteForest(Forest):
    """The same on deposits that are multiplied between `neighbours` of them, fewer where there are fewer (SMOTE)."""

    neighbours: int = Field(default=5, ge=1)


class Machine(StrictModel):
    """A support vector machine with a Gaussian kernel: cost (C) of a row on the wrong side, and gamma."""

    cost: float = Field(default=10.0, gt=0)
    gamma: float = Field(default=0.01, gt=0)


class Logistic(StrictModel):
    """Logistic regression: cost (C), the inverse of the penalty's weight."""

    cost: float = Field(default=1.0, gt=0)


class Boosting(StrictModel):
    """Gradient boosting: trees of some depth, each on a share of the rows."""

    trees: int = Field(default=100, ge=1)
    depth: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=0.05, gt=0)
    share: float = Field(default=0.7, gt=0, le=1)


Baseline = Forest | SmoteForest | Machine | Logistic | Boosting


class Baselines(StrictModel):
    """What stands beside the nets: the three that were published, always, and what goes beyond them."""

    random_forest: Forest = Forest()
    svm: Machine = Machine()
    logistic: Logistic = Logistic()
    gradient_boosting: Boosting | None = None
    smote_forest: SmoteForest | None = None

    def by_name(self) -> dict[str, Baseline]:
        """Return those that are compared."""
        every: dict[str, Baseline | None] = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: one for name, one in every.items() if one is not None}


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


class PublishedNet(StrictModel):
    """A perceptron as it was published, on the components as given.

    Attributes
    ----------
    hidden, start, probe, balance
        As of `Net`; without hidden layers it is a logistic regression.
    epochs, batch, rate : int, int, float
        Of Adam, and rows of a step.
    l1, l2 : float
        Penalties of the weights.
    experiments : bool
        Fit it to every experiment too.
    """

    hidden: tuple[int, ...] = (100, 8, 6, 4, 2)
    start: Start = "scratch"
    probe: bool = False
    balance: float = Field(default=1.0, ge=0, le=1)
    epochs: int = Field(default=6_000, ge=1)
    batch: int = Field(default=82, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    l1: float = Field(default=1e-5, ge=0)
    l2: float = Field(default=1e-4, ge=0)
    experiments: bool = False

    @model_validator(mode="after")
    def _something_to_carry_over(self) -> Self:
        if not self.hidden and (self.start != "scratch" or self.probe):
            raise ValueError(
                "a net without hidden layers has nothing to carry over, and no last layer of its own"
            )
        return self
