"""Settings of a run: one schema for the command line, a TOML file and the API."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lithostream.engine.errors import ConfigError
from lithostream.engine.manifest import Precision


class StrictModel(BaseModel):
    """Base of every configuration schema: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RoiRule = Literal["sediment", "box", "white_tray", "coloured_liner", "divided_box"]
"""Named colour rules, as in `lithostream.kernels.roi.rules`."""

Backend = Literal["onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]
"""Ways to run a model; the first, on the CPU, is the oracle of the others."""

AnyBackend = Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"]


class RunSettings(StrictModel):
    """What a run may vary.

    Attributes
    ----------
    interval_cm : float
        Depth step of the interval table.
    window_cm : float
        Depth span that ROI and superpixels see at once; part of the result's definition.
    min_core_fraction : float
        Share of core pixels below which a tile is not predicted.
    superpixels_per_cm2 : float
        Superpixel density.
    compactness : float
        Weight of distance against colour in superpixels, as in SLIC.
    segments : bool
        Cut the core into segments and solve for their minerals; without, properties alone.
    refine : bool, optional
        Refine superpixels by the masks of the bundle's segmenter, where it holds one; without it, as the bundle says.
    roi : {"sediment", "box", "white_tray", "coloured_liner", "divided_box"}
        Colour rule that tells core from what surrounds it.
    slab_rows : int
        Rows decoded at once; never changes a result.
    batch : int
        Tiles per model call, at most; a processor takes four, which is as fast. Never changes a result.
    threads : int
        Windows processed side by side, each by a session and a thread of its own; never changes a result.
    backend : {"auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt"}
        Inference runtime; "auto" measures once on each machine, and stays with its choice. Changes results
        within the bundle's tolerance.
    settle_s : float
        Time for which a file must not have changed before a watch takes it; never changes a result.
    precision : {"fp32", "fp16", "int8"}
        Of the network; results stay within the tolerance that the bundle states for it. On the CPU under OpenVINO
        fp16 means bf16, see `engine/inference/openvino.py`.
    """

    interval_cm: float = Field(default=1.0, gt=0, le=100)
    window_cm: float = Field(default=8.0, gt=0, le=100)
    min_core_fraction: float = Field(default=0.6, gt=0, le=1)
    superpixels_per_cm2: float = Field(default=4.0, gt=0, le=400)
    compactness: float = Field(default=10.0, gt=0, le=1000)
    segments: bool = True
    refine: bool | None = None
    roi: RoiRule = "sediment"
    slab_rows: int = Field(default=512, ge=1)
    batch: int = Field(default=64, ge=1, le=4096)
    threads: int = Field(default=2, ge=1, le=256)
    backend: AnyBackend = "auto"
    precision: Precision = "fp32"
    settle_s: float = Field(default=5.0, ge=0, le=3600)


SettingsModel = TypeVar("SettingsModel", bound=StrictModel)


def load_toml(path: Path, model: type[SettingsModel]) -> SettingsModel:
    """Read a TOML file into a schema.

    Raises
    ------
    ConfigError
        Naming the file, the key, what is wrong, and the nearest known key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path, fix="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}", file=path, fix="correct the line") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model, path) from error


def explain(error: ValidationError, model: type[BaseModel], path: Path | None) -> ConfigError:
    """Turn a schema error into one that names the key and the nearest known one."""
    first = error.errors()[0]
    key = str(first["loc"][-1]) if first["loc"] else ""
    fix = "correct the value"
    if first["type"] == "extra_forbidden":
        known = _keys_beside(model, first["loc"])
        near = get_close_matches(key, known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    place = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{first['msg']}, got {first['input']!r}", file=path, place=place, fix=fix)


def _keys_beside(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Known keys of the table that holds the key at `place`."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        inner = _models_in(field.annotation) if field else []
        if len(inner) == 1:
            model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Every schema that a type annotation names, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
