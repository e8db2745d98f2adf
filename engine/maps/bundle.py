"""The map bundle: a folder of a manifest, one network and golden rows, proved whole before it is used."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from lithostream.engine.bundle import GOLDEN, MANIFEST, MODEL, checked_file, read_file, read_manifest
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import MAP_INPUT, MAP_ROWS, check_graph
from lithostream.engine.maps.manifest import MapManifest

FILES = (MODEL, GOLDEN)  # and the manifest, which holds the SHA-256 of both
OUTPUTS = ("probability", "uncertainty", "distance")
MAX_GOLDEN_ROWS = 1 << 14
FIX = "export the bundle again"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MapBundle:
    """A verified map bundle.

    Attributes
    ----------
    path : Path
        Its folder.
    manifest : MapManifest
        What it states.
    sha256 : str
        Hash of the manifest, which holds the hash of every other file.
    model : bytes
        The ONNX graph, as hashed.
    golden_rows : float32 [G, P]
        Golden inputs, in the predictors' units.
    golden_probability : float32 [G]
        What any runtime must give for them.
    """

    path: Path
    manifest: MapManifest
    sha256: str
    model: bytes
    golden_rows: Floats
    golden_probability: Floats


class _Job(BaseModel):
    """The part of a manifest that tells what it is for."""

    job: str = "core"


def is_map_bundle(path: Path) -> bool:
    """Tell whether a folder says that it holds a map bundle; proves nothing more."""
    try:
        return _Job.model_validate_json(read_file(path / MANIFEST, limit=1 << 20)).job == "map"
    except (BundleError, ValidationError):
        return False


def load_map_bundle(path: Path) -> MapBundle:
    """Read a map bundle and prove it whole: schema, checksums, graph, golden rows.

    Raises
    ------
    BundleError
        Naming the file and what is wrong with it.
    """
    manifest, sha256 = read_manifest(path, MapManifest)
    model, golden = (checked_file(path / name, manifest.files) for name in FILES)
    columns = len(manifest.predictors)
    rows, probability = _golden(golden, path / GOLDEN, columns)
    _check_signature(check_graph(model, path / MODEL, MAP_ROWS), path / MODEL, columns)
    return MapBundle(path, manifest, sha256, model, rows, probability)


def _golden(content: bytes, path: Path, columns: int) -> tuple[Floats, Floats]:
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy does not have
        raise BundleError(f"not a safetensors file: {error}", file=path, fix=FIX) from error
    if set(tensors) != {"rows", "probability"}:
        raise BundleError(f"holds {sorted(tensors)}, expected probability and rows", file=path, fix=FIX)
    rows, probability = tensors["rows"], tensors["probability"]
    count = len(rows) if rows.ndim else 0
    if rows.dtype != np.float32 or rows.shape != (count, columns) or not 0 < count <= MAX_GOLDEN_ROWS:
        raise BundleError(f"golden rows are {rows.dtype} {rows.shape}", file=path, fix=FIX)
    if probability.dtype != np.float32 or probability.shape != (count,):
        raise BundleError(
            f"golden probability is {probability.dtype} {probability.shape}", file=path, fix=FIX
        )
    if not (np.isfinite(rows).all() and ((probability >= 0) & (probability <= 1)).all()):
        raise BundleError("golden rows or probabilities are no such numbers", file=path, fix=FIX)
    return rows, probability


def _check_signature(graph: ModelProto, file: Path, columns: int) -> None:
    """Hold inputs and outputs, their order included, to rows of so many predictors."""
    found = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            *(d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    wanted = [(MAP_INPUT, TensorProto.FLOAT, 0, columns), *((name, TensorProto.FLOAT, 0) for name in OUTPUTS)]
    if found != wanted:
        raise BundleError(
            f"graph takes and gives {found} (name, type, shape; 0 is the batch), the manifest needs {wanted}",
            file=file,
            fix=FIX,
        )
