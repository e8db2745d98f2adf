"""From a checkpoint of the transfer study to a verified map bundle."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from safetensors.numpy import save

from lithostream.engine.bundle import GOLDEN, MANIFEST, MODEL
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_check import MAP_INPUT
from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.manifest import MapManifest, Predictor
from lithostream.engine.maps.session import MapSession
from lithostream.export.bundle import write_proved
from lithostream.export.transfer_graph import build_graph
from lithostream.training.transfer.checkpoint import LoadedModel, TransferRecord, load_model, load_record

PARITY = 1e-3  # of a probability, against the members in float64: a row on the edge of one tree may fall to its other side
GOLDEN_TOLERANCE = 1e-4


def export_map(checkpoint: Path, out: Path, model: str | None = None, *, components: bool = False) -> Path:
    """Export one model of a checkpoint, prove that the bundle gives the same numbers, and write it.

    Parameters
    ----------
    checkpoint : Path
        Folder that `train_transfer` wrote.
    out : Path
        Folder to make; must not exist.
    model : str, optional
        One of the compared models; the winner of the comparison by default.
    components : bool
        Whether the bundle takes the principal components, as published, in place of the predictors.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    BundleError
        The checkpoint cannot be read, there is no such model, the graph breaks a rule, or its numbers differ.
    """
    if out.exists():
        raise BundleError("exists already", file=out, fix="choose another --out, or remove it")
    record = load_record(checkpoint)
    name = record.winner if model is None else model
    loaded = load_model(checkpoint, record, name)
    rows, linear = loaded.golden_rows, None
    if components:
        linear = np.array(record.to_components[0]), np.array(record.to_components[1])
        rows = (rows @ linear[0] + linear[1]).astype(np.float32)
    graph = build_graph(loaded, record.logarithms, linear).SerializeToString(deterministic=True)
    probability = check_parity(loaded, graph, rows)
    contents = {MODEL: graph, GOLDEN: save({"rows": rows, "probability": probability})}
    columns = record.config.columns.components if components else record.config.columns.predictors
    contents[MANIFEST] = _manifest(record, name, columns, loaded, contents)
    write_proved(out, contents, lambda folder: MapSession(load_map_bundle(folder)))
    return out


def check_parity(model: LoadedModel, graph: bytes, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compare ONNX Runtime with the trained members on the golden rows [G, P], and return its probabilities [G].

    Raises
    ------
    BundleError
        A probability differs by more than `PARITY`.
    """
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probability"], {MAP_INPUT: rows})
    gap = float(np.abs(found - model.golden_probability).max())
    if not gap <= PARITY:  # NaN is a miss too
        raise BundleError(
            f"ONNX Runtime differs from the trained model by {gap:.3g}, {PARITY:g} is allowed",
            place="probability",
            fix="do not use this checkpoint: train again",
        )
    probability: npt.NDArray[np.float32] = found
    return probability


def _manifest(
    record: TransferRecord,
    name: str,
    columns: tuple[str, ...],
    model: LoadedModel,
    contents: dict[str, bytes],
) -> bytes:
    config = record.config
    matrix, offset = record.to_components
    manifest = MapManifest(
        schema_version=1,
        job="map",
        name=f"{config.name}-{name}",
        licence=config.licence,
        description=config.description,
        predictors=tuple(Predictor(name=one, unit=config.units.get(one, "")) for one in columns),
        threshold=model.stored.threshold,
        distance_limit=record.distance_limit,
        golden_tolerance=GOLDEN_TOLERANCE,
        training={
            "model": name,
            "label": config.columns.label,
            "components": {
                "names": list(config.columns.components),
                "matrix": matrix,
                "offset": offset,
                "spread": list(record.spread),
            },
            "row_hashes": record.row_hashes,
            "files": [file.model_dump() for file in record.files],
            "notes": list(record.notes),
            "config": config.model_dump(mode="json"),
        },
        metrics=dict(record.metrics.get(name, {})),
        files={file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
    )
    return (manifest.model_dump_json(indent=2) + "\n").encode()
