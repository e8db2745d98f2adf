"""The TensorRT session against a stand-in that holds it to the documented API, with real results."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tensorrt_on_host as host
from onnx import TensorProto, helper
from typer.testing import CliRunner

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.cache import private_folder
from lithostream.engine.cli import app
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError, StoppedError
from lithostream.engine.inference import tensorrt as backend
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.inference.tensorrt import TensorRtSession, missing
from lithostream.engine.inference.tensorrt_plan import activation_bytes, batch_buckets, build_plan
from lithostream.kernels.errors import ContractError

VERSIONS = ("10.3.0", "10.16.2.10", "11.4.1")


@pytest.fixture(params=["11.4.1"])
def trt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    module = host.tensorrt(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)

    def build_here(model: bytes, *, device: int, **given: Any) -> tuple[bytes, bytes]:
        return build_plan(sys.modules["tensorrt"], model, **given)

    monkeypatch.setattr(backend, "build_apart", build_here)  # test_tensorrt_child.py builds apart
    monkeypatch.setenv("LITHOSTREAM_CACHE", str(tmp_path / "cache"))
    return module


@pytest.fixture
def xp(monkeypatch: pytest.MonkeyPatch, trt: ModuleType) -> Any:
    module = host.cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def some_tiles(bundle: Bundle, count: int) -> npt.NDArray[np.uint8]:
    size = bundle.manifest.input.size_px
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


def opened(bundle: Bundle, batch: int = 8, **given: Any) -> TensorRtSession:
    return TensorRtSession(bundle, batch=batch, threads=1, **given)


def own_graphs(session: TensorRtSession) -> dict[int, int]:
    """Batch size to launches, of the graphs captured so far."""
    return {one.size: one._graph.launched for one in session._buckets if one._graph}


@pytest.mark.parametrize("trt", VERSIONS, indirect=True)
def test_golden_cases_in_every_version(trt: Any, xp: Any, bundle: Bundle) -> None:
    session = opened(bundle)
    properties, distance = session.infer(bundle.golden_tiles)
    np.testing.assert_allclose(properties, bundle.golden_properties, rtol=1e-4, atol=1e-5)
    assert properties.dtype == distance.dtype == np.float32 and distance.shape == (len(properties),)
    assert session.backend == f"tensorrt {trt.__version__} Host Emulator fp32"
    assert trt.configs[0].cleared == ["tf32"]


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 23])
def test_any_number_of_tiles_equals_the_oracle(xp: Any, bundle: Bundle, count: int) -> None:
    tiles = some_tiles(bundle, count)
    want = OnnxRuntimeSession(bundle, batch=8, threads=1).infer(tiles)
    session = opened(bundle)
    for _ in range(3):  # plainly, captured, replayed
        for got, wanted in zip(session.infer(tiles), want, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_graph_for_each_batch_size_replays_after_one_plain_run(xp: Any, bundle: Bundle) -> None:
    session = opened(bundle)
    assert [one.size for one in session._buckets] == [1, 2, 4, 8]
    first = [session.infer(some_tiles(bundle, count))[0] for count in (11, 2)]
    assert own_graphs(session) == {8: 0, 4: 0, 2: 0}
    again = [session.infer(some_tiles(bundle, count))[0] for count in (11, 2)]
    assert own_graphs(session) == {8: 1, 4: 1, 2: 1}
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_plan_that_cannot_be_captured_still_runs(
    xp: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.Stream, "capturable", False)
    session, tiles = opened(bundle), some_tiles(bundle, 5)
    first, again = session.infer(tiles)[0], session.infer(tiles)[0]
    assert own_graphs(session) == {}
    np.testing.assert_array_equal(first, again)


def test_gpu_tiles_are_read_in_place_and_give_gpu_results(
    xp: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, tiles = opened(bundle), some_tiles(bundle, 19)
    want = session.infer(tiles)
    read: list[int] = []
    run = host.Engine.run

    def watched(engine: host.Engine, shape: tuple[int, ...], places: dict[str, int]) -> None:
        read.append(places["tiles"])
        run(engine, shape, places)

    monkeypatch.setattr(host.Engine, "run", watched)
    given = xp.asarray(tiles)
    got: Any = session.infer(given)
    full = 8 * tiles[0].nbytes
    assert read[:2] == [given.data.ptr, given.data.ptr + full] and read[2] == session._input.data.ptr
    for found, wanted in zip(got, want, strict=True):
        assert type(found) is xp.ndarray
        np.testing.assert_array_equal(found.get(), wanted)


def test_gpu_tiles_that_cannot_be_bound_are_copied(xp: Any, bundle: Bundle) -> None:
    session, tiles = opened(bundle), some_tiles(bundle, 8)
    flipped: Any = session.infer(xp.asarray(tiles)[:, ::-1])[0]
    np.testing.assert_array_equal(flipped.get(), session.infer(tiles[:, ::-1])[0])


@pytest.mark.parametrize("wrong", [np.float32, "channels", "rank"])
def test_other_tiles_are_refused(xp: Any, bundle: Bundle, wrong: Any) -> None:
    tiles: Any = some_tiles(bundle, 2)
    changed = {"channels": tiles[..., :2], "rank": tiles[0]}
    with pytest.raises(ContractError, match="tiles: expected uint8"):
        opened(bundle).infer(changed[wrong] if isinstance(wrong, str) else tiles.astype(wrong))


def test_a_plan_is_built_once_and_with_earlier_timings(trt: Any, xp: Any, bundle: Bundle) -> None:
    told: list[tuple[str, int, int]] = []
    first = opened(bundle, progress=lambda *step: told.append(step))
    assert told == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2)]
    second, third = opened(bundle), opened(bundle, batch=4)
    assert [s.plan.built for s in (first, second, third)] == [True, False, True]
    assert trt.loaded[0] == trt.loaded[1] == first.plan.content
    assert [bytes(config.cache) for config in trt.configs] == [b"timed;", b"timed;timed;"]
    assert (
        first.plan.path.parent == private_folder("plans") and first.plan.path.stat().st_mode & 0o777 == 0o600
    )


def test_a_changed_plan_is_never_given_to_tensorrt(trt: Any, xp: Any, bundle: Bundle) -> None:
    path = opened(bundle).plan.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    session = opened(bundle)
    assert session.plan.built and bytes(content) not in trt.loaded
    np.testing.assert_allclose(
        session.infer(bundle.golden_tiles)[0], bundle.golden_properties, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("what", ["driver", "processors", "runtime", "workspace"])
def test_another_machine_is_another_plan(trt: Any, xp: Any, bundle: Bundle, what: str) -> None:
    first = opened(bundle).plan.path
    if what == "driver":
        xp.cuda.runtime.driverGetVersion = lambda: 13030
    elif what == "processors":
        xp.cuda.runtime.getDeviceProperties(0)["multiProcessorCount"] = 2
    elif what == "runtime":
        trt.__version__ = "11.4.2"
    else:
        xp.get_default_memory_pool().limit = 1 << 30
    second = opened(bundle).plan
    assert second.built and second.path != first


@pytest.mark.parametrize("call", ["build", "load"])
def test_out_of_memory_is_told_apart(trt: Any, xp: Any, bundle: Bundle, call: str) -> None:
    trt.says[call] = "Error Code 2: OutOfMemory (Requested size was 5 bytes.)"
    with pytest.raises(BackendMemoryError, match="Requested size was 5"):
        opened(bundle)
    trt.says[call] = "Error Code 10: Could not find any implementation for node conv"
    with pytest.raises(BackendError, match="any implementation") as error:
        opened(bundle)
    assert not isinstance(error.value, BackendMemoryError) and "not this" not in str(error.value)


def test_a_full_pool_is_out_of_memory(xp: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(bundle)

    def full(*_: object) -> None:
        raise host.OutOfMemoryError("Out of memory allocating 12 bytes")

    monkeypatch.setattr(xp, "empty", full)
    with pytest.raises(BackendMemoryError, match="12 bytes"):
        session.infer(bundle.golden_tiles)
    monkeypatch.setattr(xp.cuda, "alloc", full)
    with pytest.raises(BackendMemoryError, match="12 bytes"):
        opened(bundle)


def test_a_graph_that_cannot_be_read(trt: Any, xp: Any, bundle: Bundle) -> None:
    trt.says["parse"] = "In node 3: unsupported"
    with pytest.raises(BackendError, match="In node 3: unsupported"):
        opened(bundle)


def test_a_stop_while_building_stops_it_and_leaves_no_plan(trt: Any, xp: Any, bundle: Bundle) -> None:
    def stop(_phase: str, done: int, _total: int) -> None:
        if done:
            raise StoppedError("SIGTERM", fix="again")

    with pytest.raises(StoppedError):
        opened(bundle, progress=stop)
    assert not list(private_folder("plans").glob("*.plan"))
    assert opened(bundle).plan.built


def test_a_graph_unlike_its_manifest(xp: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Engine, "get_tensor_dtype", lambda _self, _name: host.DataType.HALF)
    with pytest.raises(BundleError, match="the manifest needs"):
        opened(bundle)


@pytest.mark.parametrize(
    ("trt", "word"), [("8.6.1", "8.6.1"), ("10.0.1", "10.0.1"), ("12.0", "12.0")], indirect=["trt"]
)
def test_other_versions_are_refused(xp: Any, bundle: Bundle, word: str) -> None:
    assert f"TensorRT {word} is not supported" in str(missing())
    with pytest.raises(BackendError, match="not supported"):
        opened(bundle)


def test_what_is_missing_is_named(trt: Any, xp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() is None
    monkeypatch.setattr(xp.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(missing())
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'cupy-cuda13x[ctk]'" in str(missing())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "pip install tensorrt-cu13" in str(missing())


@pytest.mark.parametrize(
    ("batch", "budget", "want"),
    [
        (64, 1 << 40, (1, 2, 4, 8, 16, 32, 64)),
        (48, 1 << 40, (1, 2, 4, 8, 16, 32, 48)),
        (1, 1 << 40, (1,)),
        (64, 1000, (1, 2, 4, 8, 10)),
        (64, 199, (1,)),
        (2, 200, (1, 2)),
    ],
)
def test_batch_sizes_from_memory(batch: int, budget: int, want: tuple[int, ...]) -> None:
    assert batch_buckets(batch, tile_bytes=100, budget_bytes=budget) == want


def test_not_even_one_tile_fits() -> None:
    with pytest.raises(BackendMemoryError, match="300 MiB of device memory, 200 MiB are allowed"):
        batch_buckets(8, tile_bytes=300 << 20, budget_bytes=200 << 20)


def test_the_memory_cap_lowers_the_batch(xp: Any, bundle: Bundle) -> None:
    one = activation_bytes(bundle.model)
    xp.get_default_memory_pool().limit = 5 * one
    session = opened(bundle, batch=64)
    assert [bucket.size for bucket in session._buckets] == [1, 2, 4, 5]
    tiles = some_tiles(bundle, 7)
    want = OnnxRuntimeSession(bundle, batch=8, threads=1).infer(tiles)[0]
    np.testing.assert_allclose(session.infer(tiles)[0], want, rtol=1e-4, atol=1e-5)


def test_memory_of_one_tile_is_twice_the_largest_node() -> None:
    nodes = [
        helper.make_node("Cast", ["tiles"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["x", "x"], ["y"], axis=3),
    ]
    shape: list[str | int | None] = ["N", 10, 10, 3]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10, 10, 6])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    assert activation_bytes(model.SerializeToString()) == 2 * (2 * 1200 + 2400)


def test_the_command_builds_once_and_says_where(trt: Any, xp: Any, bundle_path: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    config = tmp_path / "run.toml"
    config.write_text("batch = 4\n")
    first = runner.invoke(app, ["build", str(bundle_path), "--config", str(config)])
    assert first.exit_code == 0, first.output
    stored = private_folder("plans").glob("*.plan")
    (plan,) = (path for path in stored if path.read_bytes().startswith(host.MAGIC))  # the other: timings
    assert str(plan) in first.stdout and "fp32 built in" in first.stdout
    stated = json.loads(plan.read_bytes().splitlines()[1])
    assert [shape[0] for shape in stated["profile"]] == [1, 4, 4]
    again = runner.invoke(app, ["build", str(bundle_path), "--config", str(config)])
    assert "fp32 was built before" in again.stdout and str(plan) in again.stdout
    assert len(trt.configs) == 1


def test_the_command_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    failed = CliRunner().invoke(app, ["build", str(bundle_path)])
    assert isinstance(failed.exception, BackendError) and "tensorrt-cu13" in str(failed.exception)


def test_the_driver_is_part_of_the_machine(xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: 580.1\nGCC\n")
    monkeypatch.setattr(backend, "DRIVER", version)
    assert backend.this_gpu(xp)["driver"] == "13020 NVRM version: 580.1"
