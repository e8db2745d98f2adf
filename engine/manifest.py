"""What a bundle states about its model: the schema of `bundle.json`."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from lithostream.engine.core.section import PlaneName

SCHEMA_VERSION = 1
MAX_TOLERANCE = 1.0  # standard deviations over the golden cases: beyond, the gate would hold back nothing
Precision = Literal["fp32", "fp16", "int8"]
UNSPECIFIED = "unspecified"  # the scanner of a section that names none


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AnyVersion(BaseModel):
    """The part of a manifest that every version can read."""

    schema_version: int


class Domain(_Strict):
    """What the model may be used on.

    Attributes
    ----------
    description : str
        One sentence for a person.
    scanners : tuple of str
        Instruments whose images it was trained on.
    px_per_cm : (float, float)
        Lowest and highest scale.
    distance_limit : float
        Largest embedding distance that counts as known material.
    """

    description: str
    scanners: tuple[str, ...]
    px_per_cm: tuple[float, float]
    distance_limit: float = Field(gt=0)

    def admits(self, scanner: str | None, px_per_cm: float) -> bool:
        """Tell whether a section as a whole lies inside the domain."""
        low, high = self.px_per_cm
        return (scanner or UNSPECIFIED) in self.scanners and low <= px_per_cm <= high


class PlaneInput(_Strict):
    """A plane of a section as the model takes it.

    Attributes
    ----------
    name : str
    low, high : float
        Sample values that become 0 and 255. They belong to the model: another range is another input.
    """

    name: PlaneName
    low: float = Field(strict=True, allow_inf_nan=False)
    high: float = Field(strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


def _once(planes: tuple[PlaneInput, ...]) -> tuple[PlaneInput, ...]:
    if len({plane.name for plane in planes}) != len(planes):
        raise ValueError("name each plane once")
    return planes


PlaneInputs = Annotated[tuple[PlaneInput, ...], AfterValidator(_once)]


class TileInput(_Strict):
    """The model's input: `uint8 [N, size_px, size_px, channels]`, sRGB, a physical square.

    Attributes
    ----------
    planes : tuple of PlaneInput
        Planes of a section that follow red, green and blue as channels.
    """

    tile_cm: float = Field(gt=0)
    size_px: int = Field(ge=8, le=1024)
    name: Literal["tiles"] = "tiles"
    planes: PlaneInputs = ()

    @property
    def channels(self) -> int:
        """C, of a tile."""
        return 3 + len(self.planes)

    @model_serializer(mode="wrap")
    def _as_before_planes(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave `planes` out where there are none: such a bundle also loads in versions without planes."""
        values: dict[str, object] = handler(self)
        return {name: value for name, value in values.items() if name != "planes" or value}


class Output(_Strict):
    """One predicted property.

    Attributes
    ----------
    name, unit : str
        As in `engine.core.targets`.
    half_width_90 : float
        Half width of the 90 % interval of a depth interval's value, from unseen depth blocks.
    """

    name: str
    unit: str
    half_width_90: float = Field(gt=0)


class Variant(_Strict):
    """The same network in another precision, in a file of its own, see `model_file`.

    Attributes
    ----------
    golden_tolerance : float
        Largest deviation on the golden cases, in standard deviations over them.
    """

    precision: Literal["fp16", "int8"]
    golden_tolerance: float = Field(gt=0, le=MAX_TOLERANCE)


class SegmenterInput(_Strict):
    """A segmenter beside the network, in the files `segmenter.encoder.onnx` and `segmenter.decoder.onnx`.

    Attributes
    ----------
    architecture : str
        "small" ships; the others are those of the Segment Anything paper.
    view_px : int
        Edge of the view it takes, `uint8 [1, view_px, view_px, 3]`; its masks have a quarter of that.
    min_quality, min_stability : float
        What a mask must reach, see `engine.core.segmenter.masks`.
    golden_iou : float
        Least mean IoU of a session's masks with those of the golden cases, see `engine.segmenter_golden`.
    golden_quality : float
        Largest deviation there of the quality that the network estimates.
    by_default : bool
        Whether a run whose settings do not say refines superpixels by it.
    """

    architecture: Literal["small", "vit_b", "vit_l", "vit_h"]
    view_px: int = Field(ge=32, le=1024, multiple_of=32)
    min_quality: float = Field(ge=0, le=1)
    min_stability: float = Field(ge=0, le=1)
    golden_iou: float = Field(ge=0.5, le=1)
    golden_quality: float = Field(gt=0, le=0.5)
    by_default: bool = True


_ADDED = ("variants", "segmenter", "error_correlation")


class Manifest(_Strict):
    """`bundle.json`.

    Attributes
    ----------
    error_correlation : tuple of T tuples
        How the errors of the outputs go together, from unseen depth blocks; empty where it is not known.
    """

    schema_version: Literal[1]
    job: Literal["core"]
    name: str
    licence: str
    domain: Domain
    input: TileInput
    outputs: tuple[Output, ...] = Field(min_length=1)
    regime: Literal["unconsolidated", "lithified"]
    minerals: tuple[str, ...]
    golden_tolerance: float = Field(gt=0, le=MAX_TOLERANCE)
    training: dict[str, object]
    metrics: dict[str, object]
    files: dict[str, str]
    variants: tuple[Variant, ...] = ()
    segmenter: SegmenterInput | None = None
    error_correlation: tuple[tuple[float, ...], ...] = ()

    @model_validator(mode="after")
    def _correlation_of_the_outputs(self) -> Self:
        given, count = self.error_correlation, len(self.outputs)
        if not given:
            return self
        if {len(given), *map(len, given)} != {count}:
            raise ValueError(f"error_correlation must be {count} x {count}")
        matrix = np.array(given)
        if (matrix != matrix.T).any() or (matrix.diagonal() != 1).any() or np.linalg.eigvalsh(matrix)[0] <= 0:
            raise ValueError("error_correlation is not the correlation of anything")
        return self

    @model_serializer(mode="wrap")
    def _as_before_them(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what there is none of: versions that do not know it load such a bundle."""
        values: dict[str, object] = handler(self)
        return {name: value for name, value in values.items() if name not in _ADDED or value}
