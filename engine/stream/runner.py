"""The runner: every section in, one committed folder each, nothing lost in silence."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Self

from lithostream.engine.bundle import ENDMEMBERS, Bundle, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.lane import Tools
from lithostream.engine.core.minerals import Endmembers, load_endmembers
from lithostream.engine.core.planes import wanted_planes
from lithostream.engine.core.process import process_section
from lithostream.engine.core.results import SectionResult
from lithostream.engine.core.section import Section
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.errors import BackendMemoryError, ConfigError, LithostreamError, SourceError
from lithostream.engine.inference import open_sessions
from lithostream.engine.inference.fallback import ServingSession
from lithostream.engine.io.discover import discover
from lithostream.engine.io.names import safe_name
from lithostream.engine.stream.commit import commit, take_up
from lithostream.engine.stream.failpoints import reach
from lithostream.engine.stream.lanes import Lanes
from lithostream.engine.stream.ledger import Ledger
from lithostream.engine.stream.lock import only_runner
from lithostream.engine.stream.run_record import (
    QUARANTINE,
    RunRecord,
    quarantine,
    section_entry,
    write_record,
)
from lithostream.engine.stream.section_folder import write_section
from lithostream.engine.stream.section_key import section_key

# Told the section, rows done and rows in all.
Progress = Callable[[str, int, int], None]


def run(
    paths: Sequence[Path], bundle_path: Path, out: Path, settings: RunSettings, progress: Progress
) -> RunRecord:
    """Process every section found under `paths`.

    One bad input quarantines itself: its reason goes to `OUT/quarantine/NAME.json`, the others finish.

    Raises
    ------
    ConfigError, BundleError, BackendError
        Before anything is written.
    """
    sections, failures = discover(paths)
    if not sections and not failures:
        raise ConfigError(
            f"no section image under {', '.join(map(str, paths))}",
            fix="give an image, a folder of images, an Itrax folder or a manifest.toml",
        )
    with Runner(bundle_path, out, settings) as runner:
        for failure in failures:
            runner.refuse(safe_name(Path(failure.file or "input").name), failure)
        for section in sections:
            runner.process(section, progress)
    return runner.record


class Runner:
    """Sections in, one committed folder each, for as long as it is open; it writes the record when it is closed.

    Parameters
    ----------
    bundle_path, out : Path
    settings : RunSettings

    Raises
    ------
    ConfigError, BundleError, BackendError
        Before anything is written.
    """

    def __init__(self, bundle_path: Path, out: Path, settings: RunSettings) -> None:
        bundle = load_bundle(bundle_path)
        self._endmembers = load_endmembers(bundle.path / ENDMEMBERS).subset(bundle.manifest.minerals)
        sessions = open_sessions(
            bundle,
            settings.threads,
            batch=settings.batch,
            threads=1,
            backend=settings.backend,
            precision=settings.precision,
        )
        refines = bundle.segmenter is not None and settings.refine
        self._tools = [Tools(session, Segmenter(bundle) if refines else None) for session in sessions]
        self.record = RunRecord(out, bundle, settings, sessions[0].backend)
        self._started = time.monotonic()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        out = self.record.out
        self._open.enter_context(only_runner(out))
        self._ledger = self._open.enter_context(closing(Ledger(out)))
        self._lanes = self._open.enter_context(closing(Lanes(self._tools)))
        shutil.rmtree(out / QUARANTINE, ignore_errors=True)  # what was mended since must not stay there
        self.record.notes += take_up(out, self._ledger)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if kind is None:
                self.write_record()

    def process(self, section: Section, progress: Progress) -> None:
        """Process and commit a section, or quarantine it; what is already there is not done again."""
        begun, record = time.monotonic(), self.record
        try:
            key = section_key(section, record.bundle, record.settings)
            done = self._ledger.latest(section.name)
            if done is None or done.key != key:
                result = _process(
                    section, record.bundle, self._endmembers, self._lanes, record.settings, progress
                )
                planes = wanted_planes(section, record.bundle.manifest.input)
                entry = section_entry(section, planes, result.notes, time.monotonic() - begun)
                entry["backend"] = self._tools[0].session.backend
                write = partial(write_section, result, record.bundle)
                done = commit(record.out, self._ledger, section.name, key, entry, write)
            else:
                record.notes.append(f"{section.name}: was done before, from the same input")
        except SourceError as error:
            self.refuse(section.name, error)
            return
        record.sections.append(done.entry)

    def refuse(self, name: str, error: LithostreamError) -> None:
        """Quarantine an input: say why it has no result."""
        quarantine(self.record, name, error)

    def forget(self, name: str, file: str | None) -> None:
        """Drop what the record says of an input that comes again: under this name, or refused because of this file."""
        record = self.record
        record.sections = [entry for entry in record.sections if entry["name"] != name]
        for entry in list(record.quarantined):
            if entry["name"] == name or (file is not None and entry["file"] == file):
                record.quarantined.remove(entry)
                (record.out / QUARANTINE / f"{entry['name']}.json").unlink(missing_ok=True)

    def write_record(self) -> None:
        """Write what was done so far."""
        notes = [note for tools in self._tools for note in tools.session.notes]
        self.record.notes += [note for note in dict.fromkeys(notes) if note not in self.record.notes]
        write_record(self.record, time.monotonic() - self._started)
        reach("record-written")


def _process(
    section: Section,
    bundle: Bundle,
    endmembers: Endmembers,
    lanes: Lanes[Tools[ServingSession]],
    settings: RunSettings,
    progress: Progress,
) -> SectionResult:
    """Process a section; all of it again where memory runs out, so that no section mixes two sessions."""
    while True:
        try:
            return process_section(
                section,
                bundle,
                endmembers,
                lanes,
                settings,
                lambda done, total: progress(section.name, done, total),
            )
        except BackendMemoryError as error:
            for tools in lanes.tools:
                tools.session.retreat(error)
