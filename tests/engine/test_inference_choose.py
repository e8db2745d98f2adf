"""`auto`: the fastest that meets the golden cases, and the same one in every run."""

import stat
from pathlib import Path
from typing import Any

import pytest

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import Backend
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.inference import choose as room
from lithostream.engine.inference import open_session
from lithostream.engine.inference.choose import Choice, Measured, choose, measure, rank
from lithostream.engine.inference.runtimes import Gated, _open, tolerance
from lithostream.engine.manifest import Precision

HERE = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


class Bench:
    """Two backends that can run here, of given speeds."""

    def __init__(self) -> None:
        self.speed: dict[str, float] = {"onnxruntime": 100.0, "openvino": 200.0}
        self.problem: dict[str, str] = {}
        self.measured = 0

    def measure(self, name: Backend, *_: object) -> Measured:
        self.measured += 1
        if name in self.problem:
            return Measured(backend=name, problem=self.problem[name])
        return Measured(backend=name, runtime=name, tiles_per_s=self.speed[name])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    made = Bench()
    monkeypatch.setattr(room, "missing", lambda name: None if name in HERE else "not here")
    monkeypatch.setattr(room, "measure", made.measure)
    monkeypatch.setenv("LITHOSTREAM_CACHE", str(tmp_path / "cache"))
    return made


def chosen(bundle: Bundle, precision: Precision = "fp32", batch: int = 8, threads: int = 1) -> Choice:
    return choose(bundle, batch=batch, threads=threads, precision=precision)


@pytest.mark.parametrize(
    ("speed", "first"),
    [(200.0, "openvino"), (109.0, "onnxruntime"), (111.0, "openvino"), (50, "onnxruntime")],
)
def test_the_oracle_stays_unless_another_is_clearly_faster(
    bench: Bench, bundle: Bundle, speed: float, first: str
) -> None:
    bench.speed["openvino"] = speed
    found = chosen(bundle)
    assert found.order[0] == first and set(found.order) == set(HERE)
    assert f"openvino {speed:.3g}" in found.why and found.notes == ()


def test_a_choice_stays_whatever_a_later_measurement_says(bench: Bench, bundle: Bundle) -> None:
    assert chosen(bundle).order[0] == "openvino"
    bench.speed["openvino"] = 1.0
    for batch, threads in [(8, 1), (64, 1), (8, 2)]:  # which never change a result
        assert chosen(bundle, batch=batch, threads=threads).order[0] == "openvino"
    assert bench.measured == 2


def test_what_may_change_a_choice_measures_again(
    bench: Bench, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(bundle)
    chosen(bundle, precision="int8")
    assert bench.measured == 4
    monkeypatch.setattr(room, "cpu_model", lambda: "another")
    chosen(bundle)
    assert bench.measured == 6
    monkeypatch.setattr(room, "versions", lambda _: {"openvino": "0.0"})
    chosen(bundle)
    assert bench.measured == 8


@pytest.mark.parametrize("content", ["", "{", '{"key": {}, "choice": {"order": ["onnxruntime"], "why": ""}}'])
def test_a_damaged_or_foreign_choice_is_made_again(
    bench: Bench, bundle: Bundle, tmp_path: Path, content: str
) -> None:
    chosen(bundle)
    (kept,) = (tmp_path / "cache" / "backends").iterdir()
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    whole = kept.read_text()
    kept.write_text(content or whole[: len(whole) // 2])
    assert chosen(bundle).order[0] == "openvino"
    assert bench.measured == 4 and kept.read_text() == whole
    assert list(kept.parent.iterdir()) == [kept]


def test_of_two_that_measure_at_once_the_first_decides(
    bench: Bench, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, here = Bench(), [True]
    slow.speed["openvino"] = 1.0

    def overtaken(name: Backend, *_: object) -> Measured:
        if here:
            here.clear()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(room, "measure", bench.measure)
                chosen(bundle)
        return slow.measure(name)

    monkeypatch.setattr(room, "measure", overtaken)
    assert chosen(bundle).order[0] == "openvino"
    assert (slow.measured, bench.measured) == (2, 2)


def test_a_folder_that_others_may_enter_is_not_read(bench: Bench, bundle: Bundle, tmp_path: Path) -> None:
    assert chosen(bundle).order[0] == "openvino"
    (tmp_path / "cache" / "backends").chmod(0o755)
    found = chosen(bundle)
    assert found.order == HERE and bench.measured == 2  # without measuring: the same each time
    assert "LITHOSTREAM_CACHE" in found.notes[0]


def test_a_full_disk_leaves_the_oracle(bench: Bench, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    found = chosen(bundle)
    assert found.order == HERE and "No space left" in found.notes[0]


def test_one_that_misses_the_gate_is_left_out_with_its_numbers(bench: Bench, bundle: Bundle) -> None:
    bench.problem["openvino"] = (
        "openvino misses the golden cases by 0.2 standard deviations, 0.001 are allowed"
    )
    found = chosen(bundle)
    assert found.order == ("onnxruntime",)
    assert found.notes == (f"openvino left out: {bench.problem['openvino']}",)
    assert chosen(bundle).notes == found.notes


def test_none_that_meets_the_gate_is_an_error_with_all_numbers(bench: Bench, bundle: Bundle) -> None:
    bench.problem = {"openvino": "misses by 0.2", "onnxruntime": "misses by 0.3"}
    with pytest.raises(BundleError, match=r"misses by 0\.3; openvino left out: misses by 0\.2"):
        chosen(bundle)


def test_a_single_backend_is_not_measured(
    bench: Bench, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(room, "missing", lambda name: None if name == "onnxruntime" else "not here")
    assert chosen(bundle).order == ("onnxruntime",)
    assert bench.measured == 0 and not (tmp_path / "cache").exists()
    monkeypatch.setattr(room, "missing", lambda name: f"install {name}")
    with pytest.raises(BackendError, match="install onnxruntime"):
        chosen(bundle)


def test_builds_that_overwrite_each_other_are_an_error_whatever_else_can_run(
    bench: Bench, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "versions", dict.fromkeys)
    with pytest.raises(BackendError, match="both installed"):
        chosen(bundle)


def test_a_measurement_that_needs_less_memory_is_tried(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def open_gated(name: Backend, bundle: Bundle, *, batch: int, **_: Any) -> Gated:
        tried.append(batch)
        if batch > 2:
            raise BackendMemoryError("full", fix="less")
        return Gated(_open(name, bundle, batch, 1, "fp32"), 0.25, 0.5)

    monkeypatch.setattr(room, "open_gated", open_gated)
    found = measure("onnxruntime", bundle, 4096, 1, "fp32")
    assert tried == [4, 2]
    assert found.tiles_per_s > 0 and (found.deviation, found.allowed, found.problem) == (0.25, 0.5, "")


def test_speed_is_that_of_full_batches(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(room, "perf_counter", lambda: float(next(ticks)))
    assert measure("onnxruntime", bundle, 40, 1, "fp32").tiles_per_s == 40  # each pass takes one second


def test_rank_without_the_oracle() -> None:
    found = rank(
        [
            Measured(backend="onnxruntime", problem="has no fp16 graph"),
            Measured(backend="openvino", tiles_per_s=5),
            Measured(backend="tensorrt", tiles_per_s=9),
        ],
        Path("bundle"),
    )
    assert found.order == ("tensorrt", "openvino")
    assert found.notes == ("onnxruntime left out: has no fp16 graph",)


def test_auto_serves_what_was_chosen(bench: Bench, bundle: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    assert open_session(bundle, batch=4, threads=1).backend.startswith("openvino ")


def test_tolerances(bundle: Bundle) -> None:
    assert tolerance("openvino", bundle, "fp32") == bundle.manifest.golden_tolerance
    assert tolerance("openvino", bundle, "fp16") == 0.1
    with pytest.raises(BundleError, match="no fp16 graph"):
        tolerance("onnxruntime", bundle, "fp16")
