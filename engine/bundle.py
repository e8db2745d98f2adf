"""The model bundle: a folder whose manifest states what the model takes, gives, and may be used on."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
from google.protobuf.message import DecodeError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lithostream.engine.core.depth_model import DepthModel
from lithostream.engine.core.section import PlaneNames
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
MAX_MODEL_BYTES = 1 << 30  # a property network is a few MB; a GiB is a hostile or foreign file
UNSPECIFIED = "unspecified"  # the scanner of a section that names none


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class TileInput(_Strict):
    """The model's input: `uint8 [N, size_px, size_px, channels]`, sRGB, a physical square.

    Attributes
    ----------
    planes : tuple of str
        Planes of a section that follow red, green and blue as channels.
    """

    tile_cm: float = Field(gt=0)
    size_px: int = Field(ge=8, le=1024)
    name: Literal["tiles"] = "tiles"
    planes: PlaneNames = ()

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


class Manifest(_Strict):
    """`bundle.json`."""

    schema_version: Literal[1]
    job: Literal["core"]
    name: str
    licence: str
    domain: Domain
    input: TileInput
    outputs: tuple[Output, ...] = Field(min_length=1)
    regime: Literal["unconsolidated", "lithified"]
    minerals: tuple[str, ...]
    golden_tolerance: float = Field(gt=0)
    training: dict[str, object]
    metrics: dict[str, object]
    files: dict[str, str]


MODEL, ENDMEMBERS, GOLDEN, DEPTH = "model.onnx", "endmembers.csv", "golden.safetensors", "depth.safetensors"
FILES = (MODEL, ENDMEMBERS, GOLDEN)  # of every bundle; a depth model where the manifest lists it


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle.

    Attributes
    ----------
    path : Path
        Its folder.
    manifest : Manifest
        What it states.
    sha256 : str
        Hash of the manifest, which holds the hash of every other file.
    model : bytes
        The ONNX graph, as hashed.
    golden_tiles : uint8 [G, S, S, C]
        Golden inputs.
    golden_properties : float32 [G, T]
        Expected outputs of the fp32 oracle.
    depth_model : DepthModel, optional
        Gives the values of rows; the graph then tells how the tiles of a row differ.
    """

    path: Path
    manifest: Manifest
    sha256: str
    model: bytes
    golden_tiles: npt.NDArray[np.uint8]
    golden_properties: npt.NDArray[np.float32]
    depth_model: DepthModel | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the predicted properties, in output order."""
        return tuple(output.name for output in self.manifest.outputs)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and prove it whole: schema, checksums, graph, golden cases.

    Raises
    ------
    BundleError
        Naming the file and what is wrong with it.
    """
    manifest_path = path / MANIFEST
    raw = _read(manifest_path, limit=1 << 20)
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            first["msg"],
            file=manifest_path,
            place=place,
            fix="use a bundle made by this version's `lithostream export`",
        ) from error
    contents = {name: _checked(path / name, manifest) for name in FILES}
    _check_outputs(manifest, manifest_path)
    check_graph(contents[MODEL], path / MODEL)
    tiles, properties = _golden(path / GOLDEN, manifest)
    sha256 = hashlib.sha256(raw).hexdigest()
    return Bundle(
        path, manifest, sha256, contents[MODEL], tiles, properties, _depth_model(path / DEPTH, manifest)
    )


def check_graph(model: bytes, file: Path) -> onnx.ModelProto:
    """Refuse an ONNX graph that is invalid or reaches outside its own file.

    Raises
    ------
    BundleError
        On external data, custom operators or anything the ONNX checker rejects.
    """
    fix = "export the bundle again; do not use a model from a source you do not trust"
    try:
        graph = onnx.load_model_from_string(model)
        onnx.checker.check_model(graph)
    except DecodeError as error:
        raise BundleError("not an ONNX file", file=file, fix=fix) from error
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise BundleError(f"not a valid ONNX graph: {error}", file=file, fix=fix) from error
    for tensor in graph.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise BundleError("weights lie outside the file", file=file, place=tensor.name, fix=fix)
    domains = {node.domain for node in graph.graph.node} - {"", "ai.onnx", "ai.onnx.ml"}
    if domains:
        raise BundleError(f"custom operators of {sorted(domains)}", file=file, fix=fix)
    return graph


def _read(path: Path, *, limit: int) -> bytes:
    fix = "give the folder that `lithostream export` wrote"
    if path.is_symlink() or not path.is_file():
        raise BundleError("not a regular file of a bundle", file=path, fix=fix)
    if os.stat(path).st_size > limit:
        raise BundleError(f"larger than {limit} bytes", file=path, fix=fix)
    return path.read_bytes()


def _checked(path: Path, manifest: Manifest) -> bytes:
    content = _read(path, limit=MAX_MODEL_BYTES)
    expected, found = manifest.files.get(path.name), hashlib.sha256(content).hexdigest()
    if expected != found:
        raise BundleError(
            f"SHA-256 is {found}, the manifest says {expected}",
            file=path,
            fix="the file was altered or damaged: export or copy the bundle again",
        )
    return content


def read_depth_model(content: bytes, file: Path, targets: int, channels: int) -> DepthModel:
    """Read the depth model of a bundle or a checkpoint with so many targets and channels.

    Raises
    ------
    BundleError
        It is damaged or does not fit.
    """
    fix = "train and export again"
    try:
        model = DepthModel.from_bytes(content)
    except ValueError as error:
        raise BundleError(f"not a depth model: {error}", file=file, fix=fix) from error
    found = len(model.label_mean), len(model.colour_mean)
    if found != (targets, channels):
        raise BundleError(
            f"depth model of {found[0]} targets and {found[1]} channels, expected {targets} and {channels}",
            file=file,
            fix=fix,
        )
    return model


def _depth_model(path: Path, manifest: Manifest) -> DepthModel | None:
    if path.name not in manifest.files:
        return None
    return read_depth_model(_checked(path, manifest), path, len(manifest.outputs), manifest.input.channels)


def _check_outputs(manifest: Manifest, file: Path) -> None:
    for output in manifest.outputs:
        known = TARGETS.get(output.name)
        if known is None or known.unit != output.unit:
            raise BundleError(
                f"unknown output {output.name!r} in {output.unit!r}",
                file=file,
                place="outputs",
                fix=f"known: {', '.join(f'{t.name} [{t.unit}]' for t in TARGETS.values())}",
            )


def _golden(path: Path, manifest: Manifest) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    fix = "export the bundle again"
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise BundleError(f"not a safetensors file: {error}", file=path, fix=fix) from error
    if set(tensors) != {"tiles", "properties"}:
        raise BundleError(f"holds {sorted(tensors)}, expected properties and tiles", file=path, fix=fix)
    tiles, properties = tensors["tiles"], tensors["properties"]
    size, count = manifest.input.size_px, len(tiles)
    if tiles.dtype != np.uint8 or tiles.shape != (count, size, size, manifest.input.channels) or count == 0:
        raise BundleError(f"golden tiles are {tiles.dtype} {tiles.shape}", file=path, fix=fix)
    if properties.dtype != np.float32 or properties.shape != (count, len(manifest.outputs)):
        raise BundleError(f"golden properties are {properties.dtype} {properties.shape}", file=path, fix=fix)
    return tiles, properties
