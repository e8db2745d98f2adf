"""The model bundle: a folder of a manifest, a network, golden cases and tables, proved whole before it is used."""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from lithostream.engine.config import RunSettings
from lithostream.engine.core.depth_model import DepthModel
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import check_graph, check_signature
from lithostream.engine.graph_segmenter import check_segmenter
from lithostream.engine.manifest import SCHEMA_VERSION, AnyVersion, Manifest, Precision
from lithostream.engine.segmenter_golden import SegmenterGolden

MANIFEST = "bundle.json"
MAX_MODEL_BYTES = 1 << 30  # a property network is a few MB; a GiB is a hostile or foreign file

MODEL, ENDMEMBERS, GOLDEN, DEPTH = "model.onnx", "endmembers.csv", "golden.safetensors", "depth.safetensors"
SEGMENTER_FILES = ("segmenter.encoder.onnx", "segmenter.decoder.onnx")
SEGMENTER_GOLDEN = "segmenter.golden.safetensors"
MAX_SEGMENTER_BYTES = (1 << 31) - 1  # protobuf's limit; ViT-H in fp16 has 1.3 GB
MAX_SEGMENTER_GOLDEN_BYTES = 1 << 20  # of 0.1 MB
FILES = (MODEL, ENDMEMBERS, GOLDEN)  # of every bundle; a depth model where the manifest lists it

ManifestModel = TypeVar("ManifestModel", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SegmenterGraphs:
    """The ONNX graphs of a segmenter, as hashed: what a view needs once, and what each prompt needs."""

    encoder: bytes
    decoder: bytes


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
    variants : mapping of precision to bytes
        The ONNX graphs beside `model`, as hashed.
    segmenter : SegmenterGraphs, optional
        Without it, segments are superpixels.
    segmenter_golden : SegmenterGolden, optional
        Golden cases of the segmenter, where there is one.
    """

    path: Path
    manifest: Manifest
    sha256: str
    model: bytes
    golden_tiles: npt.NDArray[np.uint8]
    golden_properties: npt.NDArray[np.float32]
    depth_model: DepthModel | None = None
    variants: Mapping[str, bytes] = field(default_factory=dict)
    segmenter: SegmenterGraphs | None = None
    segmenter_golden: SegmenterGolden | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the predicted properties, in output order."""
        return tuple(output.name for output in self.manifest.outputs)

    def refines(self, settings: RunSettings) -> bool:
        """Tell whether a run refines its superpixels by the segmenter: as the settings say, else as the manifest."""
        stated = self.manifest.segmenter
        wanted = stated is not None and stated.by_default if settings.refine is None else settings.refine
        return self.segmenter is not None and wanted and settings.segments

    def graph(self, precision: Precision = "fp32") -> bytes:
        """Return the ONNX graph of a precision.

        Raises
        ------
        BundleError
            The bundle has none; the message names those it has.
        """
        if precision == "fp32":
            return self.model
        if precision not in self.variants:
            raise BundleError(
                f"has no {precision} graph, only {', '.join(('fp32', *self.variants))}",
                file=self.path,
                place="precision",
                fix=f"choose one of these, or export again with --precision {precision}",
            )
        return self.variants[precision]

    def tolerance(self, precision: Precision = "fp32") -> float:
        """Largest deviation on the golden cases, in standard deviations over them; raises as `graph` does."""
        self.graph(precision)
        allowed = {variant.precision: variant.golden_tolerance for variant in self.manifest.variants}
        return self.manifest.golden_tolerance if precision == "fp32" else allowed[precision]


def model_file(precision: Precision) -> str:
    """Name of the ONNX file of a precision."""
    return MODEL if precision == "fp32" else f"model.{precision}.onnx"


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
    manifest, sha256 = read_manifest(path, Manifest)
    contents = {name: checked_file(path / name, manifest.files) for name in FILES}
    _check_outputs(manifest, path / MANIFEST)
    tiles, properties = _golden(contents[GOLDEN], path / GOLDEN, manifest)
    _check_network(contents[MODEL], path / MODEL, manifest)
    variants: dict[str, bytes] = {
        one.precision: _variant(path / model_file(one.precision), manifest) for one in manifest.variants
    }
    return Bundle(
        path,
        manifest,
        sha256,
        contents[MODEL],
        tiles,
        properties,
        _depth_model(path / DEPTH, manifest),
        variants,
        _segmenter(path, manifest),
        _segmenter_golden(path / SEGMENTER_GOLDEN, manifest),
    )


def read_manifest(path: Path, schema: type[ManifestModel]) -> tuple[ManifestModel, str]:
    """Read what a bundle of either job says of itself, and its SHA-256.

    Raises
    ------
    BundleError
        It is missing, of a later version, or not of the schema.
    """
    file = path / MANIFEST
    raw = read_file(file, limit=1 << 20)
    check_schema(raw, file)
    try:
        manifest = schema.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            first["msg"],
            file=file,
            place=".".join(str(part) for part in first["loc"]),
            fix="use a bundle made by this version's `lithostream export`",
        ) from error
    return manifest, hashlib.sha256(raw).hexdigest()


def read_file(path: Path, *, limit: int) -> bytes:
    """Read a file once, through one handle: what is checked is what is used, and no pipe is waited for.

    Raises
    ------
    BundleError
        It is no regular file, or larger than `limit` bytes.
    """
    fix = "give the folder that `lithostream export` wrote"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise BundleError(f"not a regular file of a bundle: {error}", file=path, fix=fix) from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BundleError("not a regular file of a bundle", file=path, fix=fix)
        if os.fstat(handle).st_size > limit:
            raise BundleError(f"larger than {limit} bytes", file=path, fix=fix)
        return file.read(limit)


def check_schema(raw: bytes, file: Path) -> None:
    """Tell a bundle of a later version from a damaged one; what is no JSON is left to the full validation.

    Raises
    ------
    BundleError
        It is of a later version.
    """
    try:
        version = AnyVersion.model_validate_json(raw).schema_version
    except ValidationError:
        return
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"bundle of schema {version}, this version reads {SCHEMA_VERSION}",
            file=file,
            place="schema_version",
            fix="a newer version of lithostream is needed: pip install -U lithostream",
        )


def checked_file(path: Path, files: Mapping[str, str], limit: int = MAX_MODEL_BYTES) -> bytes:
    """Read a file of a bundle whose manifest states its SHA-256 among `files`.

    Raises
    ------
    BundleError
        It is no regular file, too large, or not the one that is stated.
    """
    content = read_file(path, limit=limit)
    expected, found = files.get(path.name), hashlib.sha256(content).hexdigest()
    if expected != found:
        raise BundleError(
            f"SHA-256 is {found}, the manifest says {expected}",
            file=path,
            fix="the file was altered or damaged: export or copy the bundle again",
        )
    return content


def _variant(path: Path, manifest: Manifest) -> bytes:
    content = checked_file(path, manifest.files)
    _check_network(content, path, manifest)
    return content


def _segmenter(folder: Path, manifest: Manifest) -> SegmenterGraphs | None:
    if manifest.segmenter is None:
        return None
    files = (folder / SEGMENTER_FILES[0], folder / SEGMENTER_FILES[1])
    encoder, decoder = (checked_file(file, manifest.files, MAX_SEGMENTER_BYTES) for file in files)
    check_segmenter(encoder, decoder, files, manifest.segmenter.view_px)
    return SegmenterGraphs(encoder, decoder)


def _segmenter_golden(path: Path, manifest: Manifest) -> SegmenterGolden | None:
    if manifest.segmenter is None:
        return None
    content = checked_file(path, manifest.files, MAX_SEGMENTER_GOLDEN_BYTES)
    try:
        return SegmenterGolden.from_bytes(content, manifest.segmenter.view_px)
    except ValueError as error:
        raise BundleError(str(error), file=path, fix="export the bundle again") from error


def _check_network(content: bytes, path: Path, manifest: Manifest) -> None:
    edge = manifest.input.size_px
    shape = (edge, edge, manifest.input.channels)
    check_signature(check_graph(content, path), path, shape, len(manifest.outputs))


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
    return read_depth_model(
        checked_file(path, manifest.files), path, len(manifest.outputs), manifest.input.channels
    )


def _check_outputs(manifest: Manifest, file: Path) -> None:
    for kind, named in (
        ("outputs", [output.name for output in manifest.outputs]),
        ("variants", [variant.precision for variant in manifest.variants]),
    ):
        if len(set(named)) < len(named):
            raise BundleError(
                f"named twice among {named}", file=file, place=kind, fix="export the bundle again"
            )
    for output in manifest.outputs:
        known = TARGETS.get(output.name)
        if known is None or known.unit != output.unit:
            raise BundleError(
                f"unknown output {output.name!r} in {output.unit!r}",
                file=file,
                place="outputs",
                fix=f"known: {', '.join(f'{t.name} [{t.unit}]' for t in TARGETS.values())}",
            )


def _golden(
    content: bytes, path: Path, manifest: Manifest
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    fix = "export the bundle again"
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy does not have
        raise BundleError(f"not a safetensors file: {error}", file=path, fix=fix) from error
    if set(tensors) != {"tiles", "properties"}:
        raise BundleError(f"holds {sorted(tensors)}, expected properties and tiles", file=path, fix=fix)
    tiles, properties = tensors["tiles"], tensors["properties"]
    size, count = manifest.input.size_px, len(tiles) if tiles.ndim else 0
    if tiles.dtype != np.uint8 or tiles.shape != (count, size, size, manifest.input.channels) or count == 0:
        raise BundleError(f"golden tiles are {tiles.dtype} {tiles.shape}", file=path, fix=fix)
    if properties.dtype != np.float32 or properties.shape != (count, len(manifest.outputs)):
        raise BundleError(f"golden properties are {properties.dtype} {properties.shape}", file=path, fix=fix)
    return tiles, properties
