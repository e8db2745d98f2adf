"""Sessions on the CPU: the oracle, and OpenVINO beside it."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.inference import Session, check_golden, open_session
from lithostream.engine.inference import onnxruntime as ort_backend
from lithostream.engine.inference import openvino as ov_backend
from lithostream.engine.inference.memory import typed_errors
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.inference.openvino import BF16_TOLERANCE, OpenVinoSession
from lithostream.engine.manifest import Variant

OPENVINO = "needs the extra [openvino]"
Tiles = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="module")
def some_tiles(bundle: Bundle) -> Tiles:
    noise = np.random.default_rng(5).integers(0, 256, (14, *bundle.golden_tiles.shape[1:]), np.uint8)
    return np.concatenate([bundle.golden_tiles, noise])


@pytest.fixture(params=[OnnxRuntimeSession, OpenVinoSession], ids=["onnxruntime", "openvino"])
def kind(request: pytest.FixtureRequest) -> type[OnnxRuntimeSession | OpenVinoSession]:
    if request.param is OpenVinoSession:
        pytest.importorskip("openvino", reason=OPENVINO)
    chosen: type[OnnxRuntimeSession | OpenVinoSession] = request.param
    return chosen


def needs_bf16() -> None:
    ov: Any = pytest.importorskip("openvino", reason=OPENVINO)
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")


def same_bytes(make: Callable[[int, int], Session], tiles: Tiles) -> None:
    want = make(1, 1).infer(tiles)
    for batch, threads in [(2, 1), (3, 2), (4, 2), (5, 1), (len(tiles), 2), (64, 2)]:
        for got, wanted in zip(make(batch, threads).infer(tiles), want, strict=True):
            assert got.tobytes() == wanted.tobytes(), (batch, threads)


def test_any_batch_and_threads_give_the_same_bytes(kind: Any, bundle: Bundle, some_tiles: Tiles) -> None:
    same_bytes(lambda batch, threads: kind(bundle, batch=batch, threads=threads), some_tiles)


def test_no_tiles_give_no_results(kind: Any, bundle: Bundle) -> None:
    properties, distance = kind(bundle, batch=4, threads=1).infer(bundle.golden_tiles[:0])
    assert properties.shape == (0, 3) and distance.shape == (0,)


def test_openvino_in_fp32_is_no_bf16(bundle: Bundle, some_tiles: Tiles) -> None:
    pytest.importorskip("openvino", reason=OPENVINO)
    session = OpenVinoSession(bundle, batch=8, threads=1)
    assert session.precision == "fp32" and session.backend.endswith(" CPU f32")
    oracle = OnnxRuntimeSession(bundle, batch=8, threads=1).infer(some_tiles)
    for got, want in zip(session.infer(some_tiles), oracle, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert check_golden(session, bundle) < 1e-3


def test_fp16_under_openvino_is_bf16_of_the_fp32_graph(bundle: Bundle, some_tiles: Tiles) -> None:
    needs_bf16()
    assert not bundle.manifest.variants
    session = OpenVinoSession(bundle, batch=8, threads=1, precision="fp16")
    assert session.backend.endswith(" CPU bf16")
    deviation = check_golden(session, bundle, BF16_TOLERANCE)
    assert deviation > bundle.tolerance()  # else it would not have been bf16
    oracle = OnnxRuntimeSession(bundle, batch=8, threads=1).infer(some_tiles)
    np.testing.assert_allclose(session.infer(some_tiles)[1], oracle[1], rtol=0.05)
    same_bytes(lambda b, t: OpenVinoSession(bundle, batch=b, threads=t, precision="fp16"), some_tiles)


def test_int8_takes_the_graph_of_the_bundle(kind: Any, bundle: Bundle, some_tiles: Tiles) -> None:
    variants: Any = pytest.importorskip("lithostream.export.variants", reason="needs the extra [train]")
    graph = variants.to_int8(onnx.load_from_string(bundle.model), bundle.golden_tiles).SerializeToString()
    stated = bundle.manifest.model_copy(
        update={"variants": (Variant(precision="int8", golden_tolerance=0.3),)}
    )
    made = replace(bundle, manifest=stated, variants={"int8": graph})
    session = kind(made, batch=8, threads=1, precision="int8")
    assert session.precision == "int8" and session.backend.endswith("int8")
    assert 1e-3 < check_golden(session, made, made.tolerance("int8")) < 0.3
    same_bytes(lambda b, t: kind(made, batch=b, threads=t, precision="int8"), some_tiles)


def test_a_precision_that_the_bundle_lacks_is_named(kind: Any, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no int8 graph, only fp32"):
        kind(bundle, batch=4, threads=1, precision="int8")


def renamed(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["far" if name == "distance" else name for name in node.output]
    model.graph.output[1].name = "far"


def smaller(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 24


@pytest.mark.parametrize("change", [renamed, smaller])
def test_a_graph_that_does_not_fit_the_manifest_is_refused(
    kind: Any, bundle: Bundle, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load_from_string(bundle.model)
    change(model)
    with pytest.raises(BundleError, match="the manifest needs"):
        kind(replace(bundle, model=model.SerializeToString()), batch=1, threads=1)


def test_bytes_that_a_runtime_refuses_are_a_typed_error(kind: Any, bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="fails"):
        kind(replace(bundle, model=b"\x80\x04not a model"), batch=1, threads=1)


def test_distances_that_are_no_numbers_miss_the_golden_cases(bundle: Bundle) -> None:
    class Lost:
        backend = "lost"

        def infer(self, tiles: Tiles) -> Any:
            return bundle.golden_properties, np.full(len(tiles), np.nan, np.float32)

    with pytest.raises(BundleError, match="by nan standard deviations"):
        check_golden(Lost(), bundle)


def test_a_backend_asked_for_is_that_one_or_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(bundle, batch=4, threads=1, backend="onnxruntime")
    assert session.backend.startswith("onnxruntime ") and session.notes == []
    monkeypatch.setattr(ov_backend, "import_module", absent)
    with pytest.raises(
        BackendError, match=r"openvino cannot run here.*pip install 'lithostream\[openvino\]'"
    ):
        open_session(bundle, batch=4, threads=1, backend="openvino")


def absent(name: str) -> Any:
    raise ImportError(name)


def test_each_backend_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ort_backend.missing() is None
    if "CUDAExecutionProvider" not in import_module("onnxruntime").get_available_providers():
        assert "[cuda13]" in str(ort_backend.missing_cuda())
    monkeypatch.setattr(ort_backend, "versions", lambda _: {})
    assert "pip install 'lithostream[cpu]'" in str(ort_backend.missing())
    assert ort_backend.missing_cuda() == ort_backend.missing()
    monkeypatch.setattr(ort_backend, "versions", dict.fromkeys)
    assert "both installed" in str(ort_backend.missing())


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (MemoryError(), BackendMemoryError),
        (RuntimeError("Non-zero status code: std::bad_alloc"), BackendMemoryError),
        (RuntimeError("BFCArena: Failed to allocate memory for requested buffer"), BackendMemoryError),
        (RuntimeError("node Conv_3: wrong shape\nsecond line"), BackendError),
    ],
    ids=["MemoryError", "bad_alloc", "arena", "other"],
)
def test_errors_of_a_runtime_are_typed(raised: Exception, wanted: type[BackendError]) -> None:
    with pytest.raises(BackendError, match="runtime x") as error, typed_errors("runtime x", RuntimeError):
        raise raised
    assert type(error.value) is wanted
    assert "second line" not in error.value.reason
    with pytest.raises(KeyError), typed_errors("runtime x", RuntimeError):
        raise KeyError("a defect of ours stays what it is")


def test_memory_that_runs_out_in_onnxruntime_is_a_typed_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = import_module("onnxruntime").capi.onnxruntime_pybind11_state.RuntimeException

    class Full:
        def run(self, *_: object) -> None:
            raise raised("[ONNXRuntimeError] : 6 : std::bad_alloc")

    session = OnnxRuntimeSession(bundle, batch=4, threads=1)
    monkeypatch.setattr(session, "_session", Full())
    with pytest.raises(BackendMemoryError, match="onnxruntime is out of memory"):
        session.infer(bundle.golden_tiles)
