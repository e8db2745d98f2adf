"""The line format, spools and the encoder: what was sent is what is read, and nothing is lost in silence."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.engine.errors import DecodeError, SourceError, StoppedError
from lithostream.engine.io.images import Slab
from lithostream.engine.io.line_file import Growth, open_lines
from lithostream.engine.io.line_format import (
    END_MARK,
    HEADER_CAP,
    Counts,
    LineHeader,
    LineWriter,
    parse_header,
    to_records,
)
from lithostream.engine.io.pixels import Pixels

HEADER = LineHeader(
    lithostream_lines=1, name="GC01-1", width_px=5, channels=3, px_per_cm=20.0, counts_per_line=4.0
)
GREY = HEADER.model_copy(update={"channels": 1})


def lines(count: int, header: LineHeader = HEADER, seed: int = 1) -> Pixels:
    shape = (count, header.width_px, header.channels)
    return np.random.default_rng(seed).integers(1, 256, shape, np.uint8)


def spool(
    folder: Path, counts: list[int], header: LineHeader = HEADER, end: bytes = END_MARK
) -> tuple[Path, Pixels]:
    pixels = lines(len(counts), header)
    path = folder / "a.lines"
    path.write_bytes(header.to_line() + to_records(np.array(counts, np.int64), pixels) + end)
    return path, pixels


def joined(slabs: Iterator[Slab]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    parts = list(slabs)
    firsts = np.cumsum([0] + [len(slab.rgb) for slab in parts])
    assert [slab.row_px for slab in parts] == list(firsts[:-1])
    for slab in parts:
        assert (slab.alpha is None) == (slab.lost is None)
        if slab.lost is not None and slab.alpha is not None:
            assert (slab.alpha == ~slab.lost[:, None]).all() and slab.alpha.shape == slab.rgb.shape[:2]
            assert not slab.rgb[slab.lost].any()
    lost = [np.zeros(len(slab.rgb), np.bool_) if slab.lost is None else slab.lost for slab in parts]
    return np.concatenate([slab.rgb for slab in parts]), np.concatenate(lost)


def placed_one_by_one(counts: list[int], counts_per_line: float) -> tuple[list[int], list[int], list[int]]:
    """The rule of docs/live-lines.md, a line at a time: kept lines, their rows, sizes of the jumps."""
    kept: list[int] = []
    rows: list[int] = []
    jumps: list[int] = []
    for line, count in enumerate(counts):
        row = int(np.floor((count - counts[0]) / counts_per_line + 0.5))
        last = rows[-1] if rows else -1
        if row <= last:
            continue
        if row > last + 1:
            jumps.append(row - last - 1)
        kept.append(line)
        rows.append(row)
    return kept, rows, jumps


@pytest.mark.parametrize("header", [HEADER, GREY])
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_lines_come_back_as_they_were_sent(tmp_path: Path, header: LineHeader, rows: int) -> None:
    path, pixels = spool(tmp_path, list(range(-12, 28, 4)), header)
    source = open_lines(path)
    assert (source.height_px, source.width_px, source.open_ended) == (10, 5, False)
    assert source.resolution_px_per_cm == 20.0
    slabs = list(source.slabs(rows))
    assert [len(slab.rgb) for slab in slabs[:-1]] == [min(rows, 10)] * (len(slabs) - 1)
    assert all(slab.alpha is None and slab.lost is None for slab in slabs)
    rgb, _ = joined(iter(slabs))
    assert (rgb == pixels).all()
    assert source.conversions == (("grey repeated into three channels",) if header is GREY else ())
    assert (joined(source.slabs(4))[0] == rgb).all()  # and once more


def test_a_lost_line_is_filled_and_a_double_one_dropped(tmp_path: Path) -> None:
    path, pixels = spool(tmp_path, [100, 104, 105, 104, 116, 117, 120])
    source = open_lines(path)
    assert source.height_px == 6
    rgb, lost = joined(source.slabs(2))
    assert lost.tolist() == [False, False, True, True, False, False]
    assert (rgb[~lost] == pixels[[0, 1, 4, 6]]).all()
    assert source.conversions == (
        "2 lines lost in 1 jumps of the encoder: black, and no core",
        "3 lines dropped: the encoder stood still or went back",
    )


STEPS = st.lists(
    st.one_of(st.integers(-9, 12), st.just(4), st.just(4), st.integers(13, 60)), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([4.0, -4.0, 1.0, 2.5, 3.3]), st.integers(1, 40), st.integers(-(10**15), 10**15))
def test_rows_follow_the_counts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], counts_per_line: float, rows: int, start: int
) -> None:
    forward = 1 if counts_per_line > 0 else -1
    counts = [start, *(start + forward * int(total) for total in np.cumsum(steps))]
    header = HEADER.model_copy(update={"counts_per_line": counts_per_line})
    path, pixels = spool(tmp_path_factory.mktemp("spool"), counts, header)
    source = open_lines(path)
    rgb, lost = joined(source.slabs(rows))
    kept, placed, jumps = placed_one_by_one(counts, counts_per_line)
    assert source.height_px == len(rgb) == placed[-1] + 1
    assert np.flatnonzero(~lost).tolist() == placed
    assert (rgb[placed] == pixels[kept]).all()
    encoder = source._encoder
    assert (encoder.lost_lines, encoder.overspeed) == (sum(jumps), len(jumps))
    assert (encoder.repeated_lines, encoder.lines) == (len(counts) - len(kept), len(counts))
    followed = open_lines(path, follow=True)
    live, live_lost = joined(followed.slabs(rows))
    assert (live == rgb).all() and (live_lost == lost).all()
    assert followed.conversions == source.conversions


@pytest.mark.parametrize(
    ("counts", "said", "place"),
    [
        ([0, 4, 4 * 20_010], "leaves out more than 1000 cm, 20000 lines", "line 3 at byte"),
        ([0, 2**62], "is beyond 2**62", "line 2 at byte"),
        ([-(2**63) + 1], "is beyond 2**62", "line 1 at byte"),
        ([4 * n for n in range(9)], "lies beyond the 8 lines", "line 9 at byte"),
        ([0, 4 * 3, 4 * 8], "lies beyond the 8 lines", "line 3 at byte"),
    ],
)
def test_a_broken_encoder_is_named(tmp_path: Path, counts: list[int], said: str, place: str) -> None:
    limited = "8 lines" in said
    header = HEADER.model_copy(update={"max_lines": 8}) if limited else HEADER
    path, _ = spool(tmp_path, counts, header)
    for follow in (False, True):
        with pytest.raises(DecodeError) as caught:
            joined(open_lines(path, follow=follow).slabs(4))
        assert said in caught.value.reason and place in caught.value.place
        assert caught.value.file == str(path)
    first = len(header.to_line()) + (len(counts) - 1) * header.record_bytes
    assert caught.value.place == f"line {len(counts)} at byte {first}"


def test_a_file_cut_at_any_byte_is_read_or_refused(tmp_path: Path) -> None:
    path, pixels = spool(tmp_path, [0, 4, 8])
    whole, head = path.read_bytes(), len(HEADER.to_line())
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept, torn = divmod(size - head, HEADER.record_bytes)
        if size < head or kept == 0:
            with pytest.raises(DecodeError, match=r"within its header" if size < head else r"holds no line"):
                open_lines(path)
            continue
        source = open_lines(path)
        assert (joined(source.slabs(2))[0] == pixels[:kept]).all()
        note = f"ended without an end mark after {kept} lines"
        assert source.conversions == (f"{note}, and {torn} bytes of a torn one" if torn else note,)


def test_bytes_after_the_end_mark_are_refused(tmp_path: Path) -> None:
    for follow in (False, True):
        for more in (b"\0", HEADER.to_line()):
            path, _ = spool(tmp_path, [0, 4], end=END_MARK + more)
            with pytest.raises(DecodeError, match="bytes follow the end mark"):
                joined(open_lines(path, follow=follow).slabs(9))


def header_with(**changed: object) -> bytes:
    stated = json.loads(HEADER.to_line())
    stated.update(changed)
    return (json.dumps(stated) + "\n").encode()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "ends within its header"),
        (b'{"lithostream_lines":1', "ends within its header"),
        (b"\0" * 100, "a section starts with"),
        (b'{"name": "x", "lithostream_lines": 1}\n', "a section starts with"),
        (b'{"lithostream_lines":1,' + b" " * HEADER_CAP + b"}\n", "no newline within 65536"),
        (b'{"lithostream_lines":' + b"[" * 20_000 + b"\n", "recursion"),
        (b'{"lithostream_lines":1,"name":"\xff"}\n', "Invalid JSON"),
        (b'{"lithostream_lines":1}\n', "Field required"),
        (header_with(lithostream_lines=2), "Input should be 1"),
        (header_with(width_px=65_537), "less than or equal to 65536"),
        (header_with(width_px=0), "greater than or equal to 1"),
        (header_with(width_px="5"), "valid integer"),
        (header_with(channels=4), "Input should be 1 or 3"),
        (header_with(px_per_cm=float("nan")), "finite number"),
        (header_with(px_per_cm=0.1), "greater than or equal to 1"),
        (header_with(px_per_cm=1e9), "less than or equal to 20000"),
        (header_with(counts_per_line=0), "counts between two lines"),
        (header_with(max_lines=10**9), "less than or equal to 1000000"),
        (header_with(top_cm=1e300), "less than or equal to 1000000"),
        (header_with(name=""), "at least 1 character"),
        (header_with(name="x" * 60_000), "at most 200 characters"),
        (header_with(max_line=5), "did you mean 'max_lines'?"),
    ],
)
def test_a_hostile_header_is_one_typed_error(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "a.lines"
    path.write_bytes(line + to_records(np.array([0]), lines(1)) * bool(line.endswith(b"\n")))
    with pytest.raises(DecodeError) as caught:
        open_lines(path)
    assert said in str(caught.value)
    assert caught.value.file == str(path) and "header" in caught.value.place
    assert len(str(caught.value)) < 1000


def test_any_json_object_in_order_is_a_header() -> None:
    line = b'{"lithostream_lines": 1, "width_px" : 7,\t"name":"../\xc3\xa9/x", "channels":1, "px_per_cm": 50, "counts_per_line": -2,'
    header = parse_header(line + b'"hole": "U1537A", "hole_top_m": 3.5, "top_cm": 2}\r\n', "tcp://x:1")
    assert (header.width_px, header.px_per_cm, header.record_bytes) == (7, 50.0, 15)
    section = header.to_section(Path("x.lines"))
    assert "/" not in section.name and ".." not in section.name
    assert (section.hole, section.hole_top_m, section.top_cm, section.px_per_cm) == ("U1537A", 3.5, 2.0, 50.0)
    assert parse_header(header.to_line(), "again") == header


def test_no_such_spool(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        open_lines(tmp_path / "a.lines")
    with pytest.raises(ValueError, match="a slab of 0 rows"):
        next(open_lines(spool(tmp_path, [0])[0]).slabs(0))


def test_a_growing_spool_is_followed_line_by_line(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.lines", lines(40)
    seen = threading.Semaphore(0)

    def write() -> None:
        with path.open("ab") as file:
            for row in range(40):
                data = to_records(np.array([4 * row]), pixels[row : row + 1])
                file.write(data[:9])
                file.flush()  # a torn line is no line yet
                time.sleep(0.001)
                file.write(data[9:])
                file.flush()
                assert seen.acquire(timeout=10), "the line was not served before the next one came"
            file.write(END_MARK)

    with path.open("wb") as file:
        LineWriter(file, HEADER)
    source = open_lines(path, follow=True)
    assert source.open_ended and source.height_px == 1_000_000
    writer = threading.Thread(target=write)
    writer.start()
    begun, slabs = time.monotonic(), []
    for slab in source.slabs(512):
        assert len(slab.rgb) == 1
        slabs.append(slab)
        seen.release()
    writer.join()
    assert (joined(iter(slabs))[0] == pixels).all()
    assert source.conversions == ()
    times = [source.arrived_s(row) for row in range(40)]
    assert times == sorted(times) and begun <= times[0] and times[-1] <= time.monotonic()


def test_stop_ends_a_followed_spool(tmp_path: Path) -> None:
    path, pixels = spool(tmp_path, [0, 4, 12], end=b"\1\2")
    source = open_lines(path, follow=True)
    slabs = source.slabs(100)
    first = next(slabs)
    source.stop()
    assert len(first.rgb) == 4 and list(slabs) == []
    assert (first.rgb[[0, 1, 3]] == pixels).all()
    assert source.conversions == open_lines(path).conversions
    assert source.conversions[-1] == "ended without an end mark after 3 lines, and 2 bytes of a torn one"


def test_a_followed_spool_that_is_written_anew_is_named(tmp_path: Path) -> None:
    path, _ = spool(tmp_path, [0, 4, 8], end=b"")
    slabs = open_lines(path, follow=True).slabs(10)
    assert len(next(slabs).rgb) == 3
    path.write_bytes(HEADER.to_line())
    with pytest.raises(DecodeError, match="became shorter"):
        next(slabs)


def test_arrival_is_that_of_the_line_or_of_the_one_after_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = spool(tmp_path, [0, 4, 4, 16, 20])
    growth, clock = Growth(), iter([10.0, 20.0, 30.0])
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: next(clock))
        for count in (1, 4, 5):
            growth.grew(count)
    source = open_lines(path, follow=True, growth=growth)
    joined(source.slabs(3))
    assert [source.arrived_s(row) for row in range(6)] == [10.0, 20.0, 20.0, 20.0, 20.0, 30.0]


def test_the_error_of_whoever_fills_the_spool_is_raised(tmp_path: Path) -> None:
    path, _ = spool(tmp_path, [0, 4], end=b"")
    growth = Growth()
    slabs = open_lines(path, follow=True, growth=growth).slabs(10)
    assert len(next(slabs).rgb) == 2
    with pytest.raises(StoppedError), growth:
        raise StoppedError("disk full", fix="free space")
    with pytest.raises(StoppedError, match="disk full"):
        next(slabs)


def test_a_long_gap_never_fills_memory_at_once(tmp_path: Path) -> None:
    counts: Counts = np.array([0, 4 * 20_000, 4 * 20_001])
    source = open_lines(spool(tmp_path, counts.tolist())[0])
    sizes = [len(slab.rgb) for slab in source.slabs(512)]
    assert source.height_px == sum(sizes) == 20_002
    assert set(sizes[:-1]) == {512}
