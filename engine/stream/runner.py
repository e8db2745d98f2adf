"""The runner: every section in, one committed folder each, nothing lost in silence."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from lithostream.engine.config import RunSettings
from lithostream.engine.core.lane import WindowResult
from lithostream.engine.core.results import CollectedSection
from lithostream.engine.core.row_source import RowSource
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import open_section, section_grid
from lithostream.engine.errors import BackendError, ConfigError, LithostreamError, SourceError
from lithostream.engine.io.discover import discover
from lithostream.engine.io.names import safe_name
from lithostream.engine.stream.books import Books
from lithostream.engine.stream.commit import PARTIAL
from lithostream.engine.stream.events import Subject
from lithostream.engine.stream.failpoints import reach
from lithostream.engine.stream.metering import Live
from lithostream.engine.stream.metrics import Metrics
from lithostream.engine.stream.observe import SectionWatch
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.staged import Staged
from lithostream.engine.stream.workshop import Workshop

FINISHING = 2  # sections whose files are made at the same time: one alone leaves a core idle

# Told the section, rows done and the most rows there may be.
Progress = Callable[[str, int, int], None]


class LiveSource(RowSource, Live, Protocol):
    """Lines that still arrive."""


class _Attempt(NamedTuple):
    """A section of which every window is done, and by which backend: another may serve the next by now."""

    collected: CollectedSection
    watch: SectionWatch
    backend: str


def found(paths: Sequence[Path]) -> tuple[list[Section], list[LithostreamError]]:
    """Find every section under `paths`, and what has none.

    Raises
    ------
    ConfigError
        There is nothing at all.
    """
    sections, failures = discover(paths)
    if not sections and not failures:
        raise ConfigError(
            f"no section image under {', '.join(map(str, paths))}",
            fix="give an image, a folder of images, an Itrax folder or a manifest.toml",
        )
    return sections, failures


def run(
    paths: Sequence[Path],
    bundle_path: Path,
    out: Path,
    settings: RunSettings,
    progress: Progress,
    *,
    metrics: Metrics | None = None,
    events: Sequence[str] = (),
) -> RunRecord:
    """Process every section found under `paths`.

    One bad input quarantines itself: its reason goes to `OUT/quarantine/NAME.json`, the others finish.

    Raises
    ------
    ConfigError, BundleError, BackendError
        Before anything is written.
    """
    sections, failures = found(paths)
    with Runner(bundle_path, out, settings, metrics=metrics, events=events) as runner:
        for failure in failures:
            runner.refuse(safe_name(Path(failure.file or "input").name), failure)
        for section in sections:
            runner.process(section, progress)
    return runner.record


class Runner(Books):
    """Sections in, one committed folder each, for as long as it is open; it writes the record when it is closed.

    While a section is finished, the one before it is committed and the windows of the next are under way.

    Parameters
    ----------
    bundle_path, out : Path
    settings : RunSettings
    metrics : Metrics, optional
        Counted into, where somebody looks.
    events : sequence of str
        Where events go besides `OUT/events.jsonl`, see `open_sink`.

    Raises
    ------
    ConfigError, BundleError, BackendError
        Before anything is written.
    """

    def __init__(
        self,
        bundle_path: Path,
        out: Path,
        settings: RunSettings,
        *,
        metrics: Metrics | None = None,
        events: Sequence[str] = (),
    ) -> None:
        self._workshop = Workshop(bundle_path, settings)
        record = RunRecord(out, self._workshop.bundle, settings, self._workshop.backend)
        super().__init__(record, metrics=metrics, events=events)

    def __enter__(self) -> Self:
        super().__enter__()
        self._open.callback(self._workshop.close)
        self._finishers = self._open.enter_context(ThreadPoolExecutor(FINISHING, "finisher"))
        return self

    def process(self, section: Section, progress: Progress, live: LiveSource | None = None) -> None:
        """Process a section and queue its commit, or quarantine it; what is already there is not done again.

        Parameters
        ----------
        section : Section
        progress : callable
        live : LiveSource, optional
            Lines of the section's image, which still grows.
        """
        begun = time.monotonic()
        subject = self.admit(section, live=live is not None)
        if subject is None:
            return
        try:
            attempt = self._collect(section, live, subject, progress)
        except SourceError as error:
            self.refuse_as(subject, error)
        else:
            self._finish(attempt, subject, live is not None, begun)

    def write_record(self) -> None:
        """Wait for what is under way, and write what was done so far."""
        self._committer.wait()
        self.note(self._workshop.notes)
        super().write_record()

    def _collect(
        self, section: Section, live: LiveSource | None, subject: Subject, progress: Progress
    ) -> _Attempt:
        manifest = self.record.bundle.manifest
        source = live or open_section(section)
        grid = section_grid(section, source, manifest.input, self.record.settings)
        while True:
            watch = self._observer.begin(subject, section.image.name, grid, manifest, live)

            def told(result: WindowResult, rows_px: int, total_px: int, watch: SectionWatch = watch) -> None:
                watch.window(result, rows_px)
                progress(section.name, rows_px, total_px)
                reach("window-done")

            try:
                with self._metrics.stage("collect"):
                    collected = self._workshop.collect(section, source, self.record.out, told)
                return _Attempt(collected, watch, self._workshop.backend)
            except BackendError as error:
                self._workshop.retreat(error)

    def _finish(self, attempt: _Attempt, subject: Subject, live: bool, begun: float) -> None:
        """Begin to make a section's files, and queue their commit."""
        collected = attempt.collected

        def write(folder: Path) -> dict[str, Any]:
            with self._metrics.stage("finish"):
                return self._workshop.finish(collected, attempt.backend, begun, folder)

        with ExitStack() as ends:
            ends.callback(collected.close)
            folder = self.record.out / f"..{subject.section}{PARTIAL}"  # no section's name begins with a dot
            staged = Staged(self._finishers, write, folder)
            ends.callback(staged.close)
            self._committer.put(partial(self._commit, attempt, staged, subject, live))
            ends.pop_all()

    def _commit(self, attempt: _Attempt, staged: Staged, subject: Subject, live: bool) -> None:
        with closing(attempt.collected), closing(staged):
            staged.wait()
            with self._metrics.stage("commit"):
                self.commit(attempt.collected.section, subject, attempt.watch, staged.move, live=live)
