"""ResNet-18 (width 64) and HRNet-DeepLabV3+ (w18), tiles of 200 px, on each CPU backend, beside PyTorch in eager mode.

Random weights: speed alone. The peer's images are contiguous NCHW, as PyTorch has them by default.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import Backend
from lithostream.engine.errors import BundleError
from lithostream.engine.inference.runtimes import missing, open_gated
from lithostream.engine.manifest import Precision, Variant

Network = Literal["resnet18", "hrnet_w18"]

WIDTH, SIZE, THREADS = 64, 200, 2
BATCH: dict[Network, int] = {"resnet18": 32, "hrnet_w18": 4}  # HRNet is some ten times the work
CALIBRATION = 4
ROUNDS = 2  # of a third of a second each
TORCH = "peer: pip install 'lithostream[train]'"
BACKENDS: list[tuple[Backend, Precision]] = [
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
]
"""Under OpenVINO fp16 means bf16."""

Pixels = npt.NDArray[np.uint8]


@cache
def tiles(network: Network = "resnet18") -> Pixels:
    """Tiles of different colours, else the golden outputs would hardly differ and no deviation from them be small."""
    rng = np.random.default_rng(3)
    batch = BATCH[network]
    colour = rng.integers(0, 200, (batch, 1, 1, 3))
    return (colour + rng.integers(0, 56, (batch, SIZE, SIZE, 3))).astype(np.uint8)


@cache
def model(network: Network) -> Any:
    torch = pytest.importorskip("torch", reason=TORCH)
    properties = pytest.importorskip("lithostream.training.models.properties", reason=TORCH)
    torch.manual_seed(0)
    made = properties.PropertyNet(3, WIDTH, SIZE, 0.0, network).eval()
    torch.nn.init.normal_(made.head.weight, std=0.01)  # it starts at zero
    return made


@cache
def eager(network: Network = "resnet18") -> Callable[[Pixels], npt.NDArray[np.float32]]:
    torch = pytest.importorskip("torch", reason=TORCH)
    torch.set_num_threads(THREADS)
    peer = model(network)

    def predict(given: Pixels) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            images = peer._images(torch.from_numpy(given)).contiguous()
            found: npt.NDArray[np.float32] = peer.normalised(images)[0].numpy()
        return found

    return predict


@cache
def bundle(network: Network = "resnet18") -> Bundle:
    """A bundle of random weights in each precision, whose golden outputs are PyTorch's."""
    graph = pytest.importorskip("lithostream.export.graph", reason=TORCH).to_onnx(model(network), SIZE)
    shipped = load_bundle(Path(__file__).parents[1] / "engine" / "demo_bundle")
    stated = {
        "input": shipped.manifest.input.model_copy(update={"size_px": SIZE}),
        "golden_tolerance": 1e-2,
        "variants": (Variant(precision="int8", golden_tolerance=1.0),),
    }
    return replace(
        shipped,
        manifest=shipped.manifest.model_copy(update=stated),
        model=graph,
        golden_tiles=tiles(network),
        golden_properties=eager(network)(tiles(network)),
        variants={"int8": int8(graph, tiles(network)[:CALIBRATION])},
    )


def int8(graph: bytes, calibration: Pixels) -> bytes:
    import onnx

    from lithostream.export.int8 import to_int8

    made: bytes = to_int8(onnx.load_from_string(graph), calibration).SerializeToString()
    return made


def time_session(
    benchmark: BenchmarkFixture, network: Network, backend: Backend, precision: Precision
) -> None:
    reason = missing(backend)
    if reason is not None:
        pytest.skip(reason)
    batch = BATCH[network]
    try:
        session = open_gated(
            backend, bundle(network), batch=batch, threads=THREADS, precision=precision
        ).session
    except BundleError as error:
        if network == "resnet18":
            raise
        pytest.skip(error.reason)  # HRNet's random weights miss the gate of bf16 by a little
    benchmark.pedantic(session.infer, (tiles(network),), rounds=ROUNDS)  # type: ignore[no-untyped-call]


def time_torch(benchmark: BenchmarkFixture, network: Network) -> None:
    predict = eager(network)
    predict(tiles(network))  # warm
    benchmark.pedantic(predict, (tiles(network),), rounds=ROUNDS)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("backend", "precision"), BACKENDS)
@pytest.mark.benchmark(group="inference")
def bench_resnet18(benchmark: BenchmarkFixture, backend: Backend, precision: Precision) -> None:
    time_session(benchmark, "resnet18", backend, precision)


@pytest.mark.parametrize(("backend", "precision"), BACKENDS)
@pytest.mark.benchmark(group="inference")
def bench_resnet18_peer_torch(benchmark: BenchmarkFixture, backend: Backend, precision: Precision) -> None:
    time_torch(benchmark, "resnet18")


@pytest.mark.parametrize(("backend", "precision"), BACKENDS)
@pytest.mark.benchmark(group="inference-hrnet")
def bench_hrnet(benchmark: BenchmarkFixture, backend: Backend, precision: Precision) -> None:
    time_session(benchmark, "hrnet_w18", backend, precision)


@pytest.mark.parametrize(("backend", "precision"), BACKENDS)
@pytest.mark.benchmark(group="inference-hrnet")
def bench_hrnet_peer_torch(benchmark: BenchmarkFixture, backend: Backend, precision: Precision) -> None:
    time_torch(benchmark, "hrnet_w18")
