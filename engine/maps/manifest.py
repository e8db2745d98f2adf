"""What a map bundle states about its model: the schema of its `bundle.json`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from lithostream.engine.config import StrictModel

MAX_TOLERANCE = 0.05  # of a probability: beyond, the gate would hold back nothing


class Predictor(StrictModel):
    """One column of the model's input.

    Attributes
    ----------
    name : str
        Also of its raster band, or of its column in a table of points.
    unit : str
        As the values were trained on; empty for numbers without one.
    non_negative : bool
        Negative values are no measurements: below detection in a table, missing in a raster.
    """

    name: str = Field(min_length=1)
    unit: str = ""
    non_negative: bool = False


class MapManifest(StrictModel):
    """`bundle.json` of a map bundle.

    Attributes
    ----------
    predictors : tuple of P Predictor
        In the order of the model's input.
    threshold : float
        Probability from which a place belongs to a target, chosen inside the training folds.
    distance_limit : float
        Largest distance from the training rows that counts as known ground.
    golden_tolerance : float
        Largest deviation of a golden probability.
    halo_px : int
        Pixels around a window that are answered too, and blended where windows overlap: none for a model that answers
        each pixel by itself, whose map they do not change.
    """

    schema_version: Literal[1]
    job: Literal["map"]
    name: str
    licence: str
    description: str
    predictors: tuple[Predictor, ...] = Field(min_length=1, max_length=1024)
    threshold: float = Field(gt=0, lt=1)
    distance_limit: float = Field(gt=0, allow_inf_nan=False)
    golden_tolerance: float = Field(gt=0, le=MAX_TOLERANCE)
    training: dict[str, object]
    metrics: dict[str, object]
    files: dict[str, str]
    halo_px: int = Field(default=0, ge=0, le=512, multiple_of=64)  # whole cells, see `predict.CELL`

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if len({predictor.name for predictor in self.predictors}) != len(self.predictors):
            raise ValueError("name each predictor once")
        return self
