"""Events: what each line says, and that none is lost, torn, mixed or told out of turn."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.aggregate import overlap, tiles_to_intervals
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.lane import SectionPlan, Tools, WindowResult, process_window
from lithostream.engine.core.results import TileResult
from lithostream.engine.core.windows import blocks, open_section, section_grid
from lithostream.engine.errors import ConfigError, DecodeError, StoppedError
from lithostream.engine.inference import open_session
from lithostream.engine.io.discover import discover
from lithostream.engine.stream import sinks
from lithostream.engine.stream.events import Events, Subject, open_events
from lithostream.engine.stream.metrics import Metrics
from lithostream.engine.stream.observe import Observer, gaps, reading

ONE, TWO = Subject("one", 1, "k1"), Subject("two", 3, "k2")


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="module")
def windows(bundle: Bundle, core_image: Path) -> tuple[Grid, list[WindowResult]]:
    """Every window of a generated core, on intervals as high as the tiles."""
    (section,), _ = discover([core_image])
    settings = RunSettings(interval_cm=bundle.manifest.input.tile_cm)
    source = open_section(section)
    grid = section_grid(section, source, bundle.manifest.input, settings)
    plan = SectionPlan(grid, bundle.manifest, settings, (), section.core_cm, True, None)
    tools = Tools(open_session(bundle, batch=64, threads=1, backend="onnxruntime"), None)
    return grid, [process_window(block, plan, tools) for block in blocks(source, grid, settings)]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


class Reader(threading.Thread):
    """Opens a pipe, and reads it to its end once it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.may_read, self.raw = path, threading.Event(), b""
        self.start()

    def run(self) -> None:
        with self.path.open("rb") as file:
            assert self.may_read.wait(20)
            self.raw = file.read()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw.splitlines()]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def window_rows(results: list[WindowResult]) -> Iterator[tuple[WindowResult, int]]:
    rows_px = 0
    for result in results:
        rows_px += len(result.core_px)
        yield result, rows_px


def test_a_line_says_what_it_is_and_counts_by_section_version_and_key(tmp_path: Path) -> None:
    with closing(open_events([str(tmp_path / "events.jsonl")])) as events:
        events.tell("started", backend="b")
        events.tell("begun", ONE)
        events.tell("begun", TWO)
        events.tell("rows", ONE, rows=5)
        events.tell("rows", TWO, rows=6)
        events.tell("refused", Subject("stray"), reason="r")
        events.tell("begun", ONE)  # again, as after memory ran out
        events.tell("rows", ONE, rows=5)
        events.tell("committed", ONE, folder="one")
    lines = lines_of(tmp_path / "events.jsonl")
    assert list(lines[0]) == [
        "schema_version", "kind", "section", "version", "key", "seq", "utc", "backend"
    ]  # fmt: skip
    assert [(line["kind"], line["section"], line["version"], line["key"], line["seq"]) for line in lines] == [
        ("started", None, None, None, None),
        ("begun", "one", 1, "k1", 0),
        ("begun", "two", 3, "k2", 0),
        ("rows", "one", 1, "k1", 1),
        ("rows", "two", 3, "k2", 1),
        ("refused", "stray", None, None, None),
        ("begun", "one", 1, "k1", 0),
        ("rows", "one", 1, "k1", 1),
        ("committed", "one", 1, "k1", 2),
    ]
    assert {line["schema_version"] for line in lines} == {1}
    assert all(line["utc"].endswith("+00:00") for line in lines)


def test_a_slow_reader_stops_the_writer_and_loses_nothing(pipe: Path) -> None:
    reader, count = Reader(pipe), 2000
    told = []

    def tell() -> None:
        with closing(open_events([str(pipe)])) as events:
            events.tell("begun", ONE)
            for number in range(count):
                events.tell("rows", ONE, rows=number, padding="x" * 100)
                told.append(number)

    writer = threading.Thread(target=tell)
    writer.start()
    before = -1
    while before != len(told) or not told:
        before = len(told)
        time.sleep(0.3)
    assert before < 1000 and writer.is_alive()  # a pipe holds 64 KiB
    reader.may_read.set()
    writer.join(20)
    reader.join(20)
    assert [line["seq"] for line in reader.lines] == list(range(count + 1))
    assert [line["rows"] for line in reader.lines[1:]] == list(range(count))


def test_a_line_longer_than_a_pipe_arrives_whole(pipe: Path) -> None:
    reader = Reader(pipe)
    reader.may_read.set()
    with closing(open_events([str(pipe)])) as events:
        events.tell("started", padding="x" * 300_000)
        events.tell("finished")
    reader.join(20)
    assert [(line["kind"], len(line.get("padding", ""))) for line in reader.lines] == [
        ("started", 300_000),
        ("finished", 0),
    ]


def test_a_reader_that_has_gone_stops_the_run_and_the_file_has_all(pipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with closing(open_events([str(file), str(pipe)])) as events:
        os.close(handle)
        for _ in range(2):  # it stays so
            with pytest.raises(
                StoppedError, match=r"reader of events has gone from .*pipe.*start the reader"
            ):
                events.tell("begun", ONE)
        events.tell("stopped", reason="that")
    assert [line["kind"] for line in lines_of(file)] == ["begun", "begun", "stopped"]


def test_a_stop_does_not_wait_for_a_reader_that_hangs(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "STOP_GRACE_S", 0.2)
    reader, raised = Reader(pipe), list[str]()
    with closing(open_events([str(pipe)])) as events:

        def tell() -> None:
            try:
                while True:
                    events.tell("started", padding="x" * 10_000)
            except StoppedError as error:
                raised.append(str(error))

        writer = threading.Thread(target=tell)
        writer.start()
        time.sleep(0.3)
        assert writer.is_alive()
        begun = time.monotonic()
        events.tell("stopped")
        writer.join(20)
        assert time.monotonic() - begun < 2.0
    assert len(raised) == 1 and "does not read" in raised[0]
    reader.may_read.set()
    reader.join(20)
    *whole, torn = reader.raw.split(b"\n")
    assert {json.loads(line)["kind"] for line in whole} == {"started"}
    assert b"stopped" not in torn  # nothing comes after half a line


def test_a_socket_and_standard_output_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        with closing(open_events([str(tmp_path / "socket"), "-"])) as events:
            events.tell("started", backend="b")
            events.tell("finished", sections=1, refused=0)
        link, _ = server.accept()
        with link, link.makefile("rb") as file:
            received = file.read()
    assert received == capfd.readouterr().out.encode()
    assert [json.loads(line)["kind"] for line in received.splitlines()] == ["started", "finished"]
    with pytest.raises(ConfigError, match=r"Connection refused.*somebody who listens"):
        open_events(["-", str(tmp_path / "socket")])


@pytest.mark.parametrize(
    ("whole", "torn"),
    [
        (0, b""),
        (0, b'{"schema'),
        (0, b'{"schema_version": 1, "k'),
        (1, b'{"'),
        (3, b""),
        (3, b'{"schema_version": 1, "kind": "rows"}'),
        (3, b"\0" * 200_000),
    ],
)
def test_a_torn_last_line_is_cut(whole: int, torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with closing(open_events([str(path)])) as events:
        for _ in range(whole):
            events.tell("started")
    before = path.read_bytes()
    path.write_bytes(before + torn)
    with closing(open_events([str(path)])) as events:
        events.tell("finished")
    assert path.read_bytes().startswith(before)
    assert [line["kind"] for line in lines_of(path)] == ["started"] * whole + ["finished"]


@pytest.mark.parametrize("held", [b"II*\0 a picture", b'{"schema":', b"\0" * 100])
def test_another_file_is_never_touched(held: bytes, tmp_path: Path) -> None:
    path = tmp_path / "core.tif"
    path.write_bytes(held)
    with pytest.raises(ConfigError, match="holds something else than events"):
        open_events([str(path)])
    assert path.read_bytes() == held


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        open_events([str(tmp_path / "nowhere" / "events.jsonl")])
    with pytest.raises(ConfigError, match="Is a directory"):
        open_events([str(tmp_path)])


def test_lines_of_two_threads_never_mix(pipe: Path, tmp_path: Path) -> None:
    reader, count = Reader(pipe), 300
    reader.may_read.set()
    with closing(open_events([str(pipe), str(tmp_path / "file")])) as events:

        def tell(subject: Subject) -> None:
            events.tell("begun", subject)
            for number in range(count):
                events.tell("rows", subject, rows=number, padding=subject.section * 2000)

        threads = [threading.Thread(target=tell, args=(subject,)) for subject in (ONE, TWO)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    reader.join(20)
    assert reader.lines == lines_of(tmp_path / "file") and len(reader.lines) == 2 * (count + 1)
    for subject in (ONE, TWO):
        own = [line for line in reader.lines if line["section"] == subject.section]
        assert [line["seq"] for line in own] == list(range(count + 1))
        assert {line["padding"] for line in own[1:]} == {subject.section * 2000}


def test_no_line_holds_what_json_does_not(tmp_path: Path) -> None:
    with closing(open_events([str(tmp_path / "file")])) as events, pytest.raises(ValueError, match="JSON"):
        events.tell("rows", None, value=float("nan"))


def test_readings_are_the_intervals_of_the_tables(
    bundle: Bundle, windows: tuple[Grid, list[WindowResult]]
) -> None:
    grid, results = windows
    told = [reading(result, rows, grid, bundle.manifest) for result, rows in window_rows(results)]
    rows: list[dict[str, Any]] = [row for one in told for row in one["tile_rows"]]  # type: ignore[attr-defined]
    count = len(grid.tile_rows) - 1
    means = tiles_to_intervals(
        overlap(grid),
        grid,
        np.concatenate([result.tiles.row for result in results]),
        np.concatenate([result.tiles.core_fraction for result in results]),
        np.concatenate([result.tiles.properties for result in results]),
    )
    assert len(rows) == count == 40 and len(results) > 2
    names = [output.name for output in bundle.manifest.outputs]
    found = [[row["properties"][name] for name in names] for row in rows]
    np.testing.assert_array_equal(np.array(found, float), means.mean[:count])
    assert [row["tiles"] for row in rows] == means.tiles[:count].tolist()
    core_px = np.concatenate([result.core_px for result in results])
    expected = np.add.reduceat(core_px, grid.tile_rows[:-1]) / (np.diff(grid.tile_rows) * grid.width_px)
    np.testing.assert_allclose([row["core_fraction"] for row in rows], expected, rtol=1e-15)
    assert 0.5 < expected.max() < 1
    np.testing.assert_array_equal([row["top_cm"] for row in rows], grid.depth_cm(grid.tile_rows[:-1]))
    np.testing.assert_array_equal([row["base_cm"] for row in rows], grid.depth_cm(grid.tile_rows[1:]))
    assert told[0]["top_cm"] == grid.top_cm and told[-1]["base_cm"] == grid.depth_cm(grid.height_px)
    assert [one["base_cm"] for one in told[:-1]] == [one["top_cm"] for one in told[1:]]
    assert told[0]["units"] == {output.name: output.unit for output in bundle.manifest.outputs}


def test_what_is_not_known_is_null(bundle: Bundle, windows: tuple[Grid, list[WindowResult]]) -> None:
    grid, (first, *_) = windows
    in_first_row = first.tiles.row == 0
    kept = {one.name: getattr(first.tiles, one.name)[~in_first_row] for one in fields(first.tiles)}
    properties = kept["properties"] = kept["properties"].copy()
    properties[:, 0] = np.nan
    properties[:, 1] = np.inf
    bare = replace(first, tiles=TileResult(**kept))
    told: Any = reading(bare, len(first.core_px), grid, bundle.manifest)
    names = [output.name for output in bundle.manifest.outputs]
    empty, second = told["tile_rows"][:2]
    assert (empty["tiles"], empty["out_of_domain"]) == (0, None)
    assert empty["properties"] == dict.fromkeys(names)
    assert second["properties"][names[0]] is None and second["properties"][names[1]] is None
    assert second["out_of_domain"] in (True, False)
    json.dumps(told, allow_nan=False)
    nothing = {name: values[:0] for name, values in kept.items()}
    told = reading(replace(first, tiles=TileResult(**nothing)), len(first.core_px), grid, bundle.manifest)
    assert [row["tiles"] for row in told["tile_rows"]] == [0] * len(told["tile_rows"]) and told["tile_rows"]


def test_gaps_are_the_runs_of_lost_rows() -> None:
    grid = Grid(1000, 10, 20.0, 3.0, 1.0, 1.0, 8)
    lost = np.zeros(100, bool)
    lost[[0, 1, 50, 98, 99]] = True
    assert gaps(lost, 200, grid) == [
        {"top_cm": 13.0, "base_cm": 13.1, "lines": 2},
        {"top_cm": 15.5, "base_cm": 15.55, "lines": 1},
        {"top_cm": 17.9, "base_cm": 18.0, "lines": 2},
    ]
    assert gaps(np.zeros(5, bool), 0, grid) == []


def test_two_attempts_tell_the_same(
    bundle: Bundle, windows: tuple[Grid, list[WindowResult]], tmp_path: Path
) -> None:
    grid, results = windows
    lost = np.zeros(len(results[0].core_px), bool)
    lost[3:7] = True

    def attempt(observer: Observer, until: int) -> None:
        observer.started(bundle, "runtime 1")
        watch = observer.begin(ONE, "one.tif", grid, bundle.manifest)
        for result, rows_px in window_rows([replace(results[0], lost=lost), *results[1:until]]):
            watch.window(result, rows_px)
        if until == len(results):
            watch.committed("one")
            observer.unchanged(TWO, "two.v3")
            observer.refused(
                Subject("bad"), DecodeError("cut", file="bad.tif", place="strip 3", fix="scan it")
            )
            observer.finished(2, 1)
        else:
            observer.stopped(StoppedError("SIGTERM", fix="again"))

    path = str(tmp_path / "events.jsonl")
    metrics = Metrics()
    for until in (2, len(results)):
        with closing(open_events([path])) as events:
            attempt(Observer(events, metrics), until)
    lines = lines_of(Path(path))
    for line in lines:
        del line["utc"]
    assert [line["kind"] for line in lines[:6]] == ["started", "begun", "rows", "gap", "rows", "stopped"]
    assert lines[6:11] == lines[:5]
    kinds = [line["kind"] for line in lines[11:]]
    assert kinds == ["rows"] * (len(results) - 2) + ["committed", "unchanged", "refused", "finished"]
    counted = [line for line in lines[6:] if line["seq"] is not None]
    assert [line["seq"] for line in counted] == list(range(len(results) + 3))
    assert lines[1]["rows"] == grid.height_px and lines[5]["reason"] == "SIGTERM"
    refused = lines[-2]
    assert (refused["section"], refused["file"], refused["place"], refused["reason"], refused["fix"]) == (
        "bad", "bad.tif", "strip 3", "cut", "scan it",
    )  # fmt: skip
    text = metrics.text()
    assert "lithostream_dropped_lines_total 0.0" in text and "lithostream_lost_lines_total 4.0" in text
    assert 'lithostream_sections_total{outcome="committed"} 1.0' in text


def test_the_reader_in_the_documents_drops_what_comes_twice(tmp_path: Path) -> None:
    path, again = str(tmp_path / "file"), replace(ONE, key="k3")
    row = {"top_cm": 4.0, "properties": {"density": 2.5}}
    for subject in (ONE, ONE, again):
        with closing(open_events([path])) as events:
            events.tell("started")
            events.tell("begun", subject)
            events.tell("rows", subject, tile_rows=[row])
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    with open(path, "rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == ["one 4.0 2.5"] * 2


def test_nobody_told_is_no_trouble(bundle: Bundle, windows: tuple[Grid, list[WindowResult]]) -> None:
    grid, results = windows
    observer = Observer(Events(), Metrics())
    watch = observer.begin(ONE, "one.tif", grid, bundle.manifest)
    watch.window(results[0], len(results[0].core_px))
    watch.committed("one")
    tiles = f"lithostream_tiles_total {len(results[0].tiles.row):.1f}"
    assert tiles in observer.metrics.text()
