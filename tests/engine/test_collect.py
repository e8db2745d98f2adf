"""Collecting and finishing a section: in parts or whole, closed or open, the files are the same."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lithostream.engine.bundle import ENDMEMBERS, Bundle, SegmenterGraphs, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core import finish, preview
from lithostream.engine.core.abundances import segment_minerals
from lithostream.engine.core.aggregate import IntervalSums, segments_to_intervals
from lithostream.engine.core.calibration import Calibrated, Calibration
from lithostream.engine.core.calibration.fit import UNIT_FIT
from lithostream.engine.core.depth_model import Bank, DepthModel
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.lane import Tools
from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.core.process import collect_section, lost_notes
from lithostream.engine.core.section import Section
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.masks import Limits, MaskSet, no_masks, suppress
from lithostream.engine.core.spill import Spill
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.core.tables import flags_of, floats_of
from lithostream.engine.core.windows import blocks, section_grid
from lithostream.engine.errors import SourceError
from lithostream.engine.inference import open_sessions
from lithostream.engine.io.discover import discover
from lithostream.engine.io.images import Slab
from lithostream.engine.stream.lanes import Lanes
from lithostream.engine.stream.section_folder import write_section

SIDE = 64
SETTINGS = RunSettings(backend="onnxruntime", window_cm=4.0, superpixels_per_cm2=2.0)
Files = dict[str, bytes]
Make = Callable[..., Files]


class HalfColours:
    """Gives for each point the part of the view that is about of its colour."""

    view_px = SIDE

    def masks(
        self,
        view: npt.NDArray[np.uint8],
        points: npt.NDArray[np.float32],
        boxes: object = None,
        *,
        valid: tuple[int, int],
    ) -> MaskSet:
        if not len(points):
            return no_masks(SIDE // 4)
        cells = view.reshape(SIDE // 4, 4, SIDE // 4, 4, 3).astype(np.float32).mean(axis=(1, 3))
        at = (points / 4).astype(int)
        logits = 14.0 - np.abs(cells[None] - cells[at[:, 1], at[:, 0]][:, None, None]).max(axis=3)
        logits[:, valid[0] // 4 :], logits[:, :, valid[1] // 4 :] = -100, -100
        found = logits.max(axis=(1, 2)) > 0
        ones = np.full(found.sum(), 0.9, np.float32)
        masks = MaskSet(logits[found].astype(np.float32), ones, ones, points[found], np.flatnonzero(found))
        return suppress(masks, Limits(0.5, 0.5))


@dataclass(frozen=True)
class Rows:
    """The first rows of an image in memory, all of them stated or not."""

    path: Path
    rgb: npt.NDArray[np.uint8]
    open_ended: bool = False
    stated_px: int = 0
    lost: npt.NDArray[np.bool_] | None = None
    conversions: tuple[str, ...] = ()

    @property
    def height_px(self) -> int:
        return self.stated_px or len(self.rgb)

    @property
    def width_px(self) -> int:
        return int(self.rgb.shape[1])

    def slabs(self, rows: int) -> Iterator[Slab]:
        heights, first = (37 if self.open_ended else rows), 0
        while first < len(self.rgb):
            here = slice(first, min(first + heights, len(self.rgb)))
            lost = None if self.lost is None or not self.lost[here].any() else self.lost[here]
            alpha = None if lost is None else np.repeat(~lost[:, None], self.width_px, axis=1)
            yield Slab(first, self.rgb[here], alpha, lost)
            first, heights = here.stop, heights % 91 + 13


@pytest.fixture(scope="module")
def section(core_image: Path) -> Section:
    (found,), _ = discover([core_image])
    return found


@pytest.fixture(scope="module")
def make(bundle_path: Path, section: Section, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Run a source through, to the bytes of its files and its notes."""
    shipped = load_bundle(bundle_path)
    endmembers = load_endmembers(bundle_path / ENDMEMBERS).subset(shipped.manifest.minerals)
    sessions = open_sessions(shipped, 2, batch=64, threads=1, backend="onnxruntime", precision="fp32")

    def files(source: Rows, *, masks: bool = False, bundle: Bundle = shipped, **changes: object) -> Files:
        if masks:
            bundle = replace(bundle, segmenter=SegmenterGraphs(b"", b""))
        segmenter = cast(Segmenter, HalfColours()) if masks else None
        tools = [Tools(session, segmenter) for session in sessions]
        folder = tmp_path_factory.mktemp("files")
        known = replace(section, **changes)  # type: ignore[arg-type]
        with closing(Lanes(tools)) as lanes:
            collected = collect_section(
                known, source, bundle, lanes, SETTINGS, folder / "spill", lambda *_: None
            )
        with closing(collected):
            assert not (folder / "spill").exists()
            notes = write_section(collected, bundle, endmembers, folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()} | {
            "notes": "\n".join(notes).encode()
        }

    yield files


def same(some: Files, others: Files) -> None:
    assert some.keys() == others.keys()
    assert [name for name in some if some[name] != others[name]] == []


@pytest.mark.parametrize(
    ("height_px", "masks", "scale"),
    [
        (60, False, 32.0),  # less than a window
        (256, True, 32.0),  # two windows and no row more
        (109, True, 27.3),  # one window of 109 px, where others have 110
        (219, True, 27.3),
        (390, False, 27.3),
        (555, True, 32.0),
    ],
)
def test_an_open_source_gives_the_files_of_its_true_height(
    make: Make, core: SyntheticCore, section: Section, height_px: int, masks: bool, scale: float
) -> None:
    rgb = core.image[200 : 200 + height_px]
    closed = make(Rows(section.image, rgb), masks=masks, px_per_cm=scale)
    opened = make(Rows(section.image, rgb, True, 1_000_000), masks=masks, px_per_cm=scale)
    same(closed, opened)


def test_a_source_that_ends_too_early_is_refused(make: Make, core: SyntheticCore, section: Section) -> None:
    said = []
    for source in (
        Rows(section.image, core.image[:20]),
        Rows(section.image, core.image[:20], True, 1_000_000),
        Rows(section.image, core.image[:0], True, 1_000_000),
    ):
        with pytest.raises(SourceError, match="is smaller than one tile") as caught:
            make(source)
        said.append(str(caught.value))
    assert said[0] == said[1] and "0 x 192 px" in said[2]
    with pytest.raises(SourceError, match="ends after 300 of 400 rows"):
        make(Rows(section.image, core.image[:300], False, 400))


def test_a_window_comes_with_its_last_row_below(core: SyntheticCore, section: Section) -> None:
    drawn = []

    class Lines(Rows):
        def slabs(self, rows: int) -> Iterator[Slab]:
            for row in range(len(self.rgb)):
                drawn.append(row)
                yield Slab(row, self.rgb[row : row + 1], None)

    source = Lines(section.image, core.image[:600], True, 1_000_000)
    tile = load_bundle(Path(finish.__file__).parents[1] / "demo_bundle").manifest.input
    grid = section_grid(section, source, tile, SETTINGS)
    seen = [(block.row_px + block.height_px, len(drawn)) for block in blocks(source, grid, SETTINGS, 90)]
    assert seen == [(128, 218), (256, 346), (384, 474), (512, 600), (600, 600)]


def depth_model() -> DepthModel:
    rng = np.random.default_rng(4)
    bank = Bank(
        np.array([1.0, 3.0]),
        rng.normal(size=6),
        rng.normal(size=(5, 6)),
        np.array([0.0, 2.0]),
        rng.normal(size=(2, 6, 3)) * 0.1,
        rng.normal(size=(2, 5, 3)) * [[[0.0]], [[0.1]]],
        rng.normal(size=(2, 3)) * 0.1,
    )
    return DepthModel(
        np.array([False, False, True]),
        np.array([1.7, 1550.0, 3.0]),
        np.array([0.1, 40.0, 0.5]),
        np.full(3, 110.0),
        np.eye(3) * 0.02,
        (bank,),
        np.eye(6) * 0.4,
        1.0,  # some rows are strange
        np.full(3, 1.7),
    )


@pytest.mark.parametrize("masks", [False, True])
def test_the_parts_in_which_segments_are_finished_change_no_bit(
    make: Make,
    core: SyntheticCore,
    section: Section,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    masks: bool,
) -> None:
    light = np.tile(np.arange(256)[:, None] / 255, 3).astype(np.float32)
    calibrated = Calibrated(Calibration(light, None, UNIT_FIT), None, False, ())
    monkeypatch.setattr("lithostream.engine.core.process.calibrate", lambda *_: calibrated)
    bundle = replace(load_bundle(bundle_path), depth_model=depth_model())
    source, made, counts = Rows(section.image, core.image[:900]), [], []
    for part in (10**9, 60, 1):
        monkeypatch.setattr(finish, "PART", part)
        solved = Mock(wraps=segment_minerals)
        monkeypatch.setattr(finish, "segment_minerals", solved)
        made.append(make(source, masks=masks, bundle=bundle))
        counts.append(solved.call_count)
    assert counts[0] == 1 + masks and counts[2] >= max(counts[1], 4)
    segments = pq.read_table(pa.BufferReader(made[0]["segments.parquet"]))
    longest = (floats_of(segments, "base_cm") - floats_of(segments, "top_cm")).max()
    assert longest > SETTINGS.window_cm or not masks  # some lie in several windows
    same(made[0], made[1])
    same(made[0], made[2])


def test_lost_lines_are_told_where_they_are(make: Make, core: SyntheticCore, section: Section) -> None:
    rgb, lost = core.image[320:960].copy(), np.zeros(640, np.bool_)
    lost[[100, 101, 102, 325]] = True
    rgb[lost] = 0
    whole = make(Rows(section.image, core.image[320:960]))
    closed = make(Rows(section.image, rgb, lost=lost))
    opened = make(Rows(section.image, rgb, True, 1_000_000, lost))
    same(closed, opened)
    assert b"4 lines lost: 3.12-3.22 cm, 10.16-10.19 cm" in closed["notes"]
    assert b"lost" not in whole["notes"]
    before, after = (pq.read_table(pa.BufferReader(one["intervals.parquet"])) for one in (whole, closed))
    assert not flags_of(before, "lines_lost").any()
    assert np.flatnonzero(flags_of(after, "lines_lost")).tolist() == [3, 10]
    less = floats_of(before, "core_fraction") - floats_of(after, "core_fraction")
    assert less[3] == pytest.approx(3 / 32, rel=0.2)
    assert b"LOST" not in closed["log.las"]


def test_a_note_names_few_places() -> None:
    grid = Grid(1000, 10, 10.0, 5.0, 1.0, 1.0, 8)
    assert lost_notes(np.zeros(0, np.int64), grid) == ()
    (note,) = lost_notes(np.array([0, 1, 10, 20, 30, 40, 50, 60, 61]), grid)
    assert note.startswith("9 lines lost: 5.00-5.20 cm, 6.00-6.10 cm, ")
    assert note.endswith("9.00-9.10 cm, and 2 more places")


@pytest.mark.parametrize("limit", [10**6, 500, 120, 30, 1])
@pytest.mark.parametrize("height", [1, 97, 200])
def test_a_preview_depends_on_the_size_alone(
    monkeypatch: pytest.MonkeyPatch, limit: int, height: int
) -> None:
    monkeypatch.setattr(preview, "MOST_PX", limit)
    rng = np.random.default_rng(2)
    rgb, mask = rng.integers(0, 256, (height, 7, 3), np.uint8), rng.random((height, 7)) < 0.5
    found, first = preview.Preview(3), 0
    while first < height:
        end = first + int(rng.integers(1, 40))
        found.add(rgb[first:end], mask[first:end])
        first = end
    thin = found.step // 3
    seen, core = found.pixels()
    np.testing.assert_array_equal(seen, rgb[::thin, ::thin])
    np.testing.assert_array_equal(core, mask[::thin, ::thin])
    assert core.size <= limit
    assert thin == 1 or -(-height // (thin // 2)) * -(-7 // (thin // 2)) > limit


def test_a_spill_gives_back_what_was_added_and_leaves_no_name(tmp_path: Path) -> None:
    records = [
        {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False]), "c": np.zeros((0, 3), np.int64)},
        {"a": np.full((1, 3), np.nan), "b": np.zeros(0, np.bool_), "c": np.arange(12).reshape(4, 3)[::2]},
    ]
    with Spill(tmp_path / "spill") as spill:
        assert list(tmp_path.iterdir()) == []
        for record in records:
            spill.append(record)
        assert len(spill) == 2
        for number in (1, 0, 1):
            found = spill.read(number)
            assert found.keys() == records[number].keys()
            for name, values in records[number].items():
                assert found[name].dtype == values.dtype
                np.testing.assert_array_equal(found[name], values)


def test_running_means_have_the_bits_of_those_of_the_whole() -> None:
    rng = np.random.default_rng(5)
    pixels = np.stack([rng.integers(0, 40, 900), rng.integers(0, 9, 900), rng.integers(1, 99, 900)], axis=1)
    values = np.where(rng.random((40, 3)) < 0.2, np.nan, rng.normal(size=(40, 3)) * [1, 1e6, 1e-6])
    sums = IntervalSums(10, 3)
    for rows in np.split(pixels, [1, 333, 333, 800]):
        sums.add(rows[:, 1], rows[:, 2], values[rows[:, 0]])
    np.testing.assert_array_equal(sums.means(), segments_to_intervals(pixels, values, 10))
