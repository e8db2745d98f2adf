"""Sections on other machines: the same bytes as here, whoever dies on the way."""

import json
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from lithostream.engine import cli_stream
from lithostream.engine.config import RunSettings
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import BackendError, BundleError, ConfigError, DecodeError
from lithostream.engine.io.discover import discover
from lithostream.engine.stream import on_ray, ray_pool, ray_worker
from lithostream.engine.stream.commit import CHECKSUMS
from lithostream.engine.stream.metrics import Amounts
from lithostream.engine.stream.observe import News, window_news
from lithostream.engine.stream.on_ray import ATTEMPTS, MADE, RayRunner
from lithostream.engine.stream.ray_pool import workers
from lithostream.engine.stream.ray_worker import Made, Order, SectionWorker
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.runner import run
from lithostream.engine.stream.verify_run import verify_run

SETTINGS = RunSettings(backend="onnxruntime", threads=1)
CORES = [generate(seed, length_cm=10.0, width_cm=4.0, px_per_cm=30.0) for seed in (51, 52)]
NAMES = [core.name for core in CORES]
# What differs from one run to the next.
MOMENT = {"utc"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short cores, and a picture that is none."""
    path = tmp_path_factory.mktemp("cores")
    for core in CORES:
        write(core, path)
    (path / "bad.tif").write_bytes(b"II*\0")
    (path / "bad.xml").write_bytes((path / f"{NAMES[0]}.xml").read_bytes())
    return path


@pytest.fixture(scope="module")
def expected(folder: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run([folder], bundle_path, tmp_path_factory.mktemp("here"), SETTINGS, lambda *_: None)


def contents(out: Path) -> dict[str, bytes]:
    files = [path for path in sorted(out.glob("*/*")) if path.name != CHECKSUMS]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def told(out: Path) -> list[dict[str, Any]]:
    """Lines of the sections that were committed, but for when."""
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    kept = [{key: line[key] for key in line if key not in MOMENT} for line in lines]
    return sorted(
        (line for line in kept if line["section"] in NAMES), key=lambda line: (line["section"], line["seq"])
    )


def same(record: RunRecord, expected: RunRecord) -> None:
    def stated(one: RunRecord) -> list[dict[str, object]]:
        return [{key: value for key, value in entry.items() if key != "seconds"} for entry in one.sections]

    assert contents(record.out) == contents(expected.out)
    assert stated(record) == stated(expected)
    assert record.quarantined == expected.quarantined and record.exit_code == expected.exit_code == 3
    assert told(record.out) == told(expected.out)
    assert verify_run(record.out) == (2, [])
    assert not list(record.out.glob(".*.partial"))


def backwards(order: Order) -> Generator[str, None, None]:
    worker = SectionWorker(order)
    for place in reversed(range(len(order.jobs))):
        yield worker({"job": place})["made"]


def handed_out(
    folder: Path, bundle_path: Path, out: Path, pool: Callable[[Order], Generator[str, None, None]]
) -> RunRecord:
    sections, failures = discover([folder])
    with RayRunner(bundle_path, out, SETTINGS) as runner:
        for failure in failures:
            runner.refuse("bad.tif", failure)
        runner.process(sections, pool, lambda *_: None)
    return runner.record


def test_what_comes_back_in_any_order_is_the_same(
    folder: Path, bundle_path: Path, expected: RunRecord, tmp_path: Path
) -> None:
    same(handed_out(folder, bundle_path, tmp_path, backwards), expected)
    again = handed_out(folder, bundle_path, tmp_path, lambda _: pytest.fail("was done before"))
    assert sum("done before" in note for note in again.notes) == 2


def test_a_lost_section_is_handed_out_again_and_what_it_left_is_gone(
    folder: Path, bundle_path: Path, expected: RunRecord, tmp_path: Path
) -> None:
    rounds: list[list[str]] = []

    def loses(order: Order) -> Generator[str, None, None]:
        rounds.append([job.section.name for job in order.jobs])
        if len(rounds) == 1:
            (order.folder / NAMES[0] / "half").mkdir(parents=True)
            (order.folder / NAMES[0] / "half" / "log.las").write_text("~V")
            yield from (text for text in backwards(order) if Made.from_json(text).name != NAMES[0])
        else:
            yield from backwards(order)

    same(handed_out(folder, bundle_path, tmp_path, loses), expected)
    assert rounds[1:] == [[NAMES[0]]]


def test_a_section_that_ends_every_worker_is_refused(folder: Path, bundle_path: Path, tmp_path: Path) -> None:
    def loses(order: Order) -> Generator[str, None, None]:
        assert order.folder.is_dir()
        yield from ()

    record = handed_out(folder, bundle_path, tmp_path, loses)
    lost = [entry["name"] for entry in record.quarantined if f"{ATTEMPTS} times" in str(entry["reason"])]
    assert set(NAMES) <= set(lost)
    assert record.sections == [] and not (tmp_path / MADE).exists()


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"folder": Path("/nowhere")}, ConfigError, "does not see it"),
        ({"packages": {"numpy": "0.1"}}, BackendError, "other packages"),
        ({"bundle_sha256": "0"}, BundleError, "another bundle"),
    ],
    ids=str,
)
def test_a_machine_that_differs_ends_the_run(
    changed: dict[str, Any],
    kind: type[Exception],
    words: str,
    folder: Path,
    bundle_path: Path,
    tmp_path: Path,
) -> None:
    def differs(order: Order) -> Generator[str, None, None]:
        held = {name: getattr(order, name) for name in Order.__slots__}
        return backwards(Order(**{**held, **changed}))

    with pytest.raises(kind, match=words):
        handed_out(folder, bundle_path, tmp_path, differs)


def test_an_answer_is_read_as_it_was_written() -> None:
    news = News({"rows": 3, "top_cm": 0.1}, [{"lines": 2}], 2, [0, 7], Amounts(3, 12, 1, 1 / 3))
    grid = Grid(100, 50, 29.7, 0.1, 1.0, 1.0, 8)
    made = Made("a", None, (Path("/x/y"),), "key", {"name": "a", "seconds": 0.1}, grid, (news,), ("n",))
    assert Made.from_json(made.to_json()) == made
    error = DecodeError("bad", file="f.tif", place="strip 3", fix="scan again")
    back = Made.from_json(Made("a", error).to_json()).error
    assert type(back) is DecodeError and back.as_json() == error.as_json()


def test_how_many_workers() -> None:
    two = RunSettings(threads=2)
    assert workers({"CPU": 8.0}, two, 100) == (4, {"num_cpus": 2.0})
    assert workers({"CPU": 8.0}, two, 3) == (3, {"num_cpus": 2.0})
    assert workers({"CPU": 1.0}, two, 3) == (1, {"num_cpus": 2.0})
    assert workers({"CPU": 8.0, "GPU": 1.0}, two, 3) == (1, {"num_cpus": 2.0, "num_gpus": 1.0})
    cpu = two.model_copy(update={"backend": "openvino"})
    assert workers({"CPU": 8.0, "GPU": 1.0}, cpu, 3) == (3, {"num_cpus": 2.0})


def test_killed_in_the_middle_of_a_section_on_ray(
    folder: Path, bundle_path: Path, expected: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data", reason="pip install 'lithostream[ray]'")
    monkeypatch.delenv(ray_pool.ADDRESS, raising=False)
    died = tmp_path / "died"
    stdout, stop = sys.stdout, signal.getsignal(signal.SIGTERM)

    class DiesOnce(SectionWorker):  # within the test, so that Ray sends it whole
        def __call__(self, row: dict[str, Any]) -> dict[str, str]:
            def last_words(*arguments: Any) -> News:
                if not died.exists():
                    assert list((tmp_path / "out" / MADE).glob("*/*"))
                    died.write_text(str(os.getpid()))
                    os.kill(os.getpid(), signal.SIGKILL)
                return window_news(*arguments)

            with patch.object(ray_worker, "window_news", last_words):
                return super().__call__(row)

    monkeypatch.setattr(ray_pool, "SectionWorker", DiesOnce)
    record = on_ray.run_on_ray([folder], bundle_path, tmp_path / "out", SETTINGS, lambda *_: None)
    assert int(died.read_text()) != os.getpid()
    assert sys.stdout is stdout and signal.getsignal(signal.SIGTERM) is stop
    same(record, expected)


def test_without_ray_it_says_what_to_install(
    folder: Path, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with pytest.raises(BackendError, match=r"pip install 'lithostream\[ray\]'"):
        on_ray.run_on_ray([folder], bundle_path, tmp_path / "out", SETTINGS, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_watch_is_not_for_a_cluster(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this machine alone"):
        cli_stream.run([tmp_path], bundle_path, tmp_path / "out", watch=True, on="ray")
