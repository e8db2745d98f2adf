"""A watched folder at its worst: files that change under the reader, a share that fails, clocks that jump."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apart import SETTINGS

from lithostream.engine.core.row_source import RowSource
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.core.windows import open_section
from lithostream.engine.errors import SourceError
from lithostream.engine.stream.runner import Runner
from lithostream.engine.stream.verify_run import verify_run
from lithostream.engine.stream.watch import TRIES, Settling, Watch

SETTLE_S, HOUR_S = 5.0, 3600.0


def nothing() -> None:
    """Happens in the middle of most sections."""


class Place:
    """A watched folder with one core, and a clock that is turned by hand."""

    def __init__(self, core: Path, folder: Path, runner: Runner) -> None:
        self.now, self.folder, self.runner = 100.0, folder, runner
        shutil.copytree(core.parent, folder)
        self.image = folder / core.name
        self.watch = Watch(folder, runner, Settling(SETTLE_S, lambda: self.now))
        self.at_window = nothing

    def after(self, seconds: float) -> int:
        self.now += seconds
        return self.watch.round(lambda *_: self.at_window())

    def settled(self) -> int:
        """A round that sees the files, and one that may take them."""
        return self.after(0) + self.after(SETTLE_S)

    def once(self, what: str) -> None:
        """Let this happen to the image in the middle of the next section."""
        away, content = self.folder.with_name("away"), self.image.read_bytes()

        def happen() -> None:
            self.at_window = nothing
            if what == "altered":
                changed = bytearray(content)
                changed[len(changed) // 2] ^= 1
                self.image.write_bytes(changed)
            elif what == "cut":
                self.image.write_bytes(content[: len(content) // 3])
            elif what == "grown":
                self.image.write_bytes(content + bytes(100))
            else:
                self.folder.rename(away)

        self.at_window = happen

    @property
    def done(self) -> list[str]:
        return [str(entry["folder"]) for entry in self.runner.record.sections]

    @property
    def reasons(self) -> list[str | None]:
        return [entry["reason"] for entry in self.runner.record.quarantined]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = generate(91, length_cm=12.0, width_cm=4.0, px_per_cm=30.0)
    return write(made, tmp_path_factory.mktemp("core"))


@pytest.fixture
def place(core: Path, bundle_path: Path, tmp_path: Path) -> Iterator[Place]:
    settings = SETTINGS.model_copy(update={"window_cm": 1.0, "slab_rows": 16})
    with Runner(bundle_path, tmp_path / "out", settings) as runner:
        yield Place(core, tmp_path / "in", runner)


@pytest.mark.parametrize("what", ["altered", "cut", "grown"])
def test_a_file_that_changes_meanwhile_is_refused_and_taken_when_it_settles(
    what: str, place: Place, core: Path
) -> None:
    place.once(what)
    assert place.settled() == 1
    assert place.done == [] and len(place.reasons) == 1
    if what == "altered":
        assert place.reasons == ["changed while it was processed"]
    assert verify_run(place.runner.record.out) == (0, [])
    shutil.copy(core, place.image)
    assert place.after(0) == 0 and place.after(SETTLE_S) == 1
    assert place.done == [core.stem] and place.reasons == []
    assert place.after(HOUR_S) == 0


def test_a_share_that_goes_while_it_is_read_is_taken_when_it_is_back(place: Place, core: Path) -> None:
    place.once("gone")
    assert place.settled() == 1
    assert place.done == [] and len(place.reasons) == 1 and "cannot be read" in str(place.reasons[0])
    assert place.after(HOUR_S) == 0
    place.folder.with_name("away").rename(place.folder)
    assert place.settled() == 1
    assert place.done == [core.stem] and place.reasons == []
    assert place.after(HOUR_S) == 0


@pytest.mark.parametrize(("failures", "tries"), [(1, 2), (1000, TRIES)])
def test_a_share_that_fails_is_tried_again_but_not_for_ever(
    failures: int, tries: int, place: Place, core: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(range(failures))

    def opened(section: Section) -> RowSource:
        if next(left, None) is None:
            return open_section(section)
        raise SourceError("cannot be read: Input/output error", file=section.image, fix="check the disk")

    monkeypatch.setattr("lithostream.engine.stream.runner.open_section", opened)
    assert [place.settled() for _ in range(TRIES + 2)] == [1] * tries + [0] * (TRIES + 2 - tries)
    assert bool(place.done) == (failures == 1) and len(place.reasons) == (failures > 1)
    monkeypatch.undo()
    os.utime(place.image)  # somebody wrote it again
    assert place.settled() == 1
    assert place.done == [core.stem] and place.reasons == []


@pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S])
def test_a_clock_that_jumps_changes_nothing(
    jump_s: float, place: Place, core: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.after(0) == 0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert place.after(SETTLE_S - 1) == 0
    os.utime(place.image, (real() + HOUR_S, real() + HOUR_S))  # written by a machine that is ahead
    assert place.after(1) == 0 and place.after(SETTLE_S - 1) == 0
    assert place.after(1) == 1
    assert place.done == [core.stem] and place.after(HOUR_S) == 0
    os.utime(place.image, (real() - HOUR_S, real() - HOUR_S))  # and set back: the same bytes
    assert place.settled() == 1
    assert place.done == [core.stem] and verify_run(place.runner.record.out) == (1, [])
