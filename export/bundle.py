"""From a checkpoint to a verified bundle."""

import csv
import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from safetensors.numpy import save

from lithostream.engine.bundle import (
    DEPTH,
    ENDMEMBERS,
    GOLDEN,
    MANIFEST,
    MODEL,
    SEGMENTER_FILES,
    SEGMENTER_GOLDEN,
    load_bundle,
    model_file,
)
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import BundleError
from lithostream.engine.inference import open_session
from lithostream.engine.inference.segmenter import SegmenterSession
from lithostream.engine.manifest import Domain, Manifest, Output, SegmenterInput, Variant
from lithostream.export.golden import golden_tiles
from lithostream.export.graph import to_onnx
from lithostream.export.variants import LIMITS, Oracle, make_variant
from lithostream.training.checkpoint import (
    TrainingRecord,
    load_calibration,
    load_checkpoint,
    load_depth_model,
)
from lithostream.training.fit import predict
from lithostream.training.models.properties import PropertyNet

PARITY = 1e-4  # of the largest value of an output
GOLDEN_TOLERANCE = 1e-3  # standard deviations over the golden cases; fp32 runtimes differ by about 1e-5


def export_bundle(
    checkpoint: Path, out: Path, precisions: Sequence[str] = (), segmenter: Path | None = None
) -> Path:
    """Export a checkpoint, prove that the bundle gives the same numbers, and write it.

    Parameters
    ----------
    checkpoint : Path
        Folder that `train_properties` wrote.
    out : Path
        Folder to make; must not exist.
    precisions : sequence of {"fp16", "int8"}
        Variants to make beside fp32, which is always there.
    segmenter : Path, optional
        Checkpoint of Segment Anything to put beside the network.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    BundleError
        The checkpoint cannot be read, the graph breaks a rule, ONNX Runtime and torch disagree, or a variant
        deviates too far from fp32.
    """
    if out.exists():
        raise BundleError("exists already", file=out, fix="choose another --out, or remove it")
    unknown = sorted(set(precisions) - set(LIMITS))
    if unknown:
        raise BundleError(
            f"no variants of precision {', '.join(unknown)}",
            place="precision",
            fix=f"known: {', '.join(LIMITS)}",
        )
    model, record = load_checkpoint(checkpoint)
    calibration = load_calibration(checkpoint, record) if precisions else None
    tile = record.config.tile.as_input()
    tiles = golden_tiles(tile)
    graph = to_onnx(model, tile.size_px)
    expected = check_parity(model, graph, tiles)
    contents = {
        MODEL: graph,
        ENDMEMBERS: endmember_table(record.config.minerals),
        GOLDEN: save({"tiles": tiles, "properties": expected}),
    }
    depth_model = load_depth_model(checkpoint, record)
    if depth_model is not None:
        contents[DEPTH] = depth_model.to_bytes()
    variants, figures = _add_variants(record, precisions, contents, tiles, calibration)
    stated = None if segmenter is None else _add_segmenter(segmenter, contents, figures)
    contents[MANIFEST] = _manifest(record, contents, variants, figures, stated)
    write_proved(out, contents, _prove)
    return out


def _add_variants(
    record: TrainingRecord,
    wanted: Sequence[str],
    contents: dict[str, bytes],
    golden: npt.NDArray[np.uint8],
    calibration: npt.NDArray[np.uint8] | None,
) -> tuple[tuple[Variant, ...], dict[str, object]]:
    """Add the graphs of variants to `contents`, and return what the manifest says of them."""
    if calibration is None:
        return (), {}
    scale = {name: record.metrics[name].half_width_90 for name in record.config.targets}
    scale["distance"] = record.distance_limit
    oracle = Oracle(contents[MODEL], scale, calibration, golden)
    variants, figures = [], {}
    for precision in dict.fromkeys(wanted):
        content, variant, figures[precision] = make_variant(precision, oracle)
        contents[model_file(variant.precision)] = content
        variants.append(variant)
    return tuple(variants), {"variants": figures}


def _add_segmenter(
    checkpoint: Path, contents: dict[str, bytes], figures: dict[str, object]
) -> SegmenterInput:
    """Add the files of a segmenter to `contents`, how it was proved and trained to `figures`; return its entry."""
    # The package behind it is needed by this alone.
    from lithostream.export.segmenter import export_segmenter, stated_segmenter
    from lithostream.training.segmenter.checkpoint import load_sam, read_record

    sam = load_sam(checkpoint)
    made = export_segmenter(sam)
    files = (*SEGMENTER_FILES, SEGMENTER_GOLDEN)
    contents.update(zip(files, (made.encoder, made.decoder, made.golden), strict=True))
    figures["segmenter"] = {
        "parity": made.parity,
        "fp16_mean_iou": made.mean_iou,
        "training": read_record(checkpoint) if checkpoint.is_dir() else checkpoint.name,
    }
    return stated_segmenter(sam)


def check_parity(model: PropertyNet, graph: bytes, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Compare ONNX Runtime with torch on tiles [N, S, S, 3] and return its properties [N, T].

    Raises
    ------
    BundleError
        An output differs by more than `PARITY` of its largest value.
    """
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    properties, distance = session.run(["properties", "distance"], {"tiles": tiles})
    wanted = predict(model, tiles)
    for name, found, reference in (
        ("properties", properties, wanted.properties),
        ("distance", distance[:, None], wanted.distance[:, None]),
    ):
        gap = np.abs(found - reference).max(axis=0) / np.maximum(np.abs(reference).max(axis=0), 1e-12)
        if not gap.max() <= PARITY:  # NaN is a miss too
            raise BundleError(
                f"ONNX Runtime differs from torch by {gap.max():.3g} of the largest value, {PARITY:g} is allowed",
                place=name,
                fix="do not use this checkpoint: look for weights of extreme size, or train again",
            )
    found_properties: npt.NDArray[np.float32] = properties
    return found_properties


def endmember_table(minerals: tuple[str, ...]) -> bytes:
    """Return the rows of the shipped mineral table called `minerals`, in that order, with all columns."""
    text = (files("lithostream.engine.core") / "minerals.csv").read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    rows = {row["name"]: row for row in reader}
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, reader.fieldnames or [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[name] for name in minerals)
    return table.getvalue().encode()


def _manifest(
    record: TrainingRecord,
    contents: dict[str, bytes],
    variants: tuple[Variant, ...],
    figures: dict[str, object],
    segmenter: SegmenterInput | None,
) -> bytes:
    config = record.config
    manifest = Manifest(
        schema_version=1,
        job="core",
        name=config.name,
        licence=config.licence,
        domain=Domain(
            description=config.description,
            scanners=record.scanners,
            px_per_cm=record.px_per_cm,
            distance_limit=record.distance_limit,
        ),
        input=config.tile.as_input(),
        outputs=tuple(
            Output(name=name, unit=TARGETS[name].unit, half_width_90=record.metrics[name].half_width_90)
            for name in config.targets
        ),
        regime=config.regime,
        minerals=config.minerals,
        error_correlation=record.error_correlation,
        golden_tolerance=GOLDEN_TOLERANCE,
        training=record.model_dump(mode="json", exclude={"metrics"}),
        metrics=record.model_dump(mode="json", include={"metrics"})["metrics"] | figures,
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        variants=variants,
        segmenter=segmenter,
    )
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def write_proved(out: Path, contents: dict[str, bytes], prove: Callable[[Path], object]) -> None:
    """Write beside `out`, load and run the result as a deployment would, then rename.

    Parameters
    ----------
    out : Path
    contents : dict of file name to bytes
    prove : callable
        Given the folder, raises what speaks against it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o755)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        prove(folder)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prove(folder: Path) -> None:
    bundle = load_bundle(folder)
    open_session(bundle, batch=8, threads=1, backend="onnxruntime")
    if bundle.segmenter is not None:
        SegmenterSession(bundle, threads=1)
    for variant in bundle.manifest.variants:
        open_session(bundle, batch=8, threads=1, backend="onnxruntime", precision=variant.precision)
