"""A small map bundle with weights drawn at random, for the tests and measurements of maps."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import save

from lithostream.engine.bundle import GOLDEN, MANIFEST, MODEL
from lithostream.engine.graph_check import OPSET
from lithostream.engine.inference.onnxruntime import open_graph
from lithostream.engine.io.raster import rasterio
from lithostream.engine.maps.manifest import MapManifest, Predictor
from lithostream.engine.maps.record import MapSettings
from lithostream.engine.maps.run import map_stack

MEMBERS, HIDDEN, GOLDEN_ROWS = 5, 32, 64
PREDICTORS = tuple(Predictor(name=f"PC{number}") for number in range(1, 8))


def network(columns: int, seed: int) -> ModelProto:
    """Draw an ensemble of perceptrons and a distance, as a graph."""
    rng = np.random.default_rng(seed)
    last = np.zeros((MEMBERS * HIDDEN, MEMBERS))
    for member in range(MEMBERS):
        last[member * HIDDEN : (member + 1) * HIDDEN, member] = rng.normal(0, 0.5, HIDDEN)
    arrays = {
        "first": rng.normal(0, 1, (columns, MEMBERS * HIDDEN)),
        "first_bias": rng.normal(0, 0.5, MEMBERS * HIDDEN),
        "last": last,
        "last_bias": rng.normal(-0.5, 0.1, MEMBERS),
        "shares": np.full((MEMBERS, 1), 1 / MEMBERS),
        "mean": rng.normal(0, 0.1, columns),
        "deviation": rng.uniform(0.8, 1.2, columns),
    }
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    weights.append(numpy_helper.from_array(np.array([1]), "axis"))
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("MatMul", ["predictors", "first"], "product", {}),
        ("Add", ["product", "first_bias"], "hidden", {}),
        ("Relu", ["hidden"], "active", {}),
        ("MatMul", ["active", "last"], "sums", {}),
        ("Add", ["sums", "last_bias"], "logits", {}),
        ("Sigmoid", ["logits"], "members", {}),
        ("MatMul", ["members", "shares"], "middle", {}),
        ("Squeeze", ["middle", "axis"], "probability", {}),
        ("Sub", ["members", "middle"], "apart", {}),
        ("Mul", ["apart", "apart"], "squared", {}),
        ("MatMul", ["squared", "shares"], "variance", {}),
        ("Squeeze", ["variance", "axis"], "variances", {}),
        ("Sqrt", ["variances"], "uncertainty", {}),
        ("Sub", ["predictors", "mean"], "centred", {}),
        ("Div", ["centred", "deviation"], "standard", {}),
        ("Mul", ["standard", "standard"], "standard_squared", {}),
        ("ReduceSum", ["standard_squared", "axis"], "distance_squared", {"keepdims": 0}),
        ("Sqrt", ["distance_squared"], "distance", {}),
    ]
    nodes = [helper.make_node(kind, taken, [given], given, **values) for kind, taken, given, values in steps]
    inputs = [helper.make_tensor_value_info("predictors", TensorProto.FLOAT, ["batch", columns])]
    given = ("probability", "uncertainty", "distance")
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in given]
    graph = helper.make_graph(nodes, "map", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_bundle(
    path: Path,
    predictors: Sequence[Predictor] = PREDICTORS,
    *,
    seed: int = 7,
    model: ModelProto | None = None,
    threshold: float = 0.5,
    distance_limit: float = 4.0,
    halo_px: int = 0,
) -> Path:
    """Write a whole map bundle around `model`, by default `network`; returns its folder."""
    graph = (model or network(len(predictors), seed)).SerializeToString()
    rows = np.random.default_rng(seed).normal(size=(GOLDEN_ROWS, len(predictors))).astype(np.float32)
    probability: npt.NDArray[np.float32] = open_graph(graph, 1).run(["probability"], {"predictors": rows})[0]
    contents = {MODEL: graph, GOLDEN: save({"rows": rows, "probability": probability})}
    manifest = MapManifest(
        schema_version=1,
        job="map",
        name="random perceptrons",
        licence="CC0-1.0",
        description="weights drawn at random; knows nothing",
        predictors=tuple(predictors),
        threshold=threshold,
        distance_limit=distance_limit,
        golden_tolerance=1e-4,
        halo_px=halo_px,
        training={},
        metrics={},
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)
    (path / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def write_stack(
    path: Path, shape: tuple[int, int], *, seed: int = 3, hole: bool = True, **profile: Any
) -> Path:
    """Write a smooth stack of seven bands in Yukon Albers, 500 m a pixel, with a stretch that has no data.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    hole : bool
        Whether a corner of the second band is nodata.
    **profile : object
        As of rasterio, in place of float32 in tiles of 256 px.
    """
    library = rasterio()
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape, np.float32, sparse=True)
    given: dict[str, Any] = {"dtype": "float32", "tiled": True, "blockxsize": 256, "blockysize": 256}
    given |= {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": len(PREDICTORS),
        "crs": "EPSG:3578",
    }
    given |= {
        "nodata": -9999.0,
        "transform": library.Affine(500.0, 0, 200_000.0, 0, -500.0, 980_000.0),
    } | profile
    with library.open(path, "w", **given) as raster:
        raster.descriptions = tuple(one.name for one in PREDICTORS)
        for number in range(1, len(PREDICTORS) + 1):
            one, two, three = rng.uniform(0.02, 0.12, 3)
            band = 1.5 * np.sin(one * rows + number) * np.cos(two * columns) + np.sin(
                three * (rows + columns)
            )
            band = (band + rng.normal(0, 0.05, shape)).astype(np.float32)
            if hole and number == 2:
                band[: shape[0] // 4, : shape[1] // 3] = given["nodata"]
            raster.write(band, number)
    return path


def run_map(stack: Path, bundle: Path, out: Path, threads: int = 1) -> None:
    """Map a stack; for processes of their own, which are killed."""
    map_stack(stack, bundle, out, MapSettings(threads=threads), lambda *_: None)
