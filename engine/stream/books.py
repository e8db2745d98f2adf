"""What a run keeps of its output folder: the lock, the ledger, the events and the record."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Self

from lithostream.engine.core.section import Section
from lithostream.engine.errors import LithostreamError, SourceError
from lithostream.engine.stream.commit import commit, take_up
from lithostream.engine.stream.committer import Committer
from lithostream.engine.stream.events import EVENTS, Subject, open_events
from lithostream.engine.stream.failpoints import reach
from lithostream.engine.stream.ledger import Committed, Ledger
from lithostream.engine.stream.lock import only_runner
from lithostream.engine.stream.metrics import Metrics
from lithostream.engine.stream.observe import Observer, SectionWatch
from lithostream.engine.stream.run_record import QUARANTINE, RunRecord, quarantine, write_record
from lithostream.engine.stream.section_key import attempt_key, section_key


class Books:
    """Holds an output folder while it is open, wherever its sections are made; writes the record when it is closed.

    Parameters
    ----------
    record : RunRecord
        Empty.
    metrics : Metrics, optional
        Counted into, where somebody looks.
    events : sequence of str
        Where events go besides `OUT/events.jsonl`, see `open_sink`.
    """

    def __init__(
        self, record: RunRecord, *, metrics: Metrics | None = None, events: Sequence[str] = ()
    ) -> None:
        self.record = record
        self._metrics, self._events = metrics or Metrics(), events
        self._started = time.monotonic()
        self._last = ""
        self._open = ExitStack()

    def __enter__(self) -> Self:
        out = self.record.out
        with ExitStack() as opened:
            opened.enter_context(only_runner(out))
            self._ledger = opened.enter_context(closing(Ledger(out)))
            events = opened.enter_context(closing(open_events([str(out / EVENTS), *self._events])))
            self._committer = opened.enter_context(closing(Committer()))
            self._observer = Observer(events, self._metrics)
            self._observer.started(self.record.bundle, self.record.backend)
            shutil.rmtree(out / QUARANTINE, ignore_errors=True)  # what was mended since must not stay there
            self.record.notes += take_up(out, self._ledger)
            self._open = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        with self._open:
            try:
                if error is not None:
                    raise error
                self.write_record()
            except BaseException as why:
                self._observer.stopped(why)
                raise
            self._observer.finished(len(self.record.sections), len(self.record.quarantined))

    def admit(self, section: Section, *, live: bool = False) -> Subject | None:
        """Say as what a section is to be done; None where nothing is, since it was done before or is refused.

        Parameters
        ----------
        section : Section
        live : bool
            Its image still grows.
        """
        settings = self.record.settings
        if self._last == section.name:
            self._committer.wait()
        self._last = section.name
        subject = Subject(section.name)
        try:
            before = self._ledger.latest(section.name)
            version = before.version + 1 if before else 1
            subject = Subject(section.name, version, attempt_key(section, self.record.bundle, settings))
            # Only what may have been done before is read once more, and before it is decoded.
            if before and not live and section_key(section, self.record.bundle, settings) == before.key:
                self._committer.put(partial(self._unchanged, before))
                return None
        except SourceError as error:
            self.refuse_as(subject, error)
            return None
        return subject

    def refuse(self, name: str, error: LithostreamError) -> None:
        """Quarantine an input that is no section: say why it has no result."""
        self.refuse_as(Subject(name), error)

    def refuse_as(self, subject: Subject, error: LithostreamError) -> None:
        """Quarantine a section."""
        self._committer.put(partial(self._refuse, subject, error))

    def inputs(self) -> set[Path]:
        """Images of all committed sections, of every version."""
        self._committer.wait()
        return {Path(row.entry["inputs"][0]["file"]).resolve() for row in self._ledger.rows()}

    def forget(self, name: str, file: str | None) -> None:
        """Drop what the record says of an input that comes again: under this name, or refused because of this file."""
        self._committer.wait()
        record = self.record
        record.sections = [entry for entry in record.sections if entry["name"] != name]
        for entry in list(record.quarantined):
            if entry["name"] == name or (file is not None and entry["file"] == file):
                record.quarantined.remove(entry)
                (record.out / QUARANTINE / f"{entry['name']}.json").unlink(missing_ok=True)

    def write_record(self) -> None:
        """Wait for what is under way, and write what was done so far."""
        self._committer.wait()
        write_record(self.record, time.monotonic() - self._started)
        reach("record-written")

    def note(self, notes: Sequence[str]) -> None:
        """Add to the record what it does not say yet."""
        self.record.notes += [note for note in notes if note not in self.record.notes]

    def commit(
        self,
        section: Section,
        subject: Subject,
        watch: SectionWatch,
        write: Callable[[Path], dict[str, Any]],
        *,
        live: bool = False,
        key: str | None = None,
    ) -> None:
        """Put a section in place, or quarantine it where it changed since it was admitted; on the committer's thread.

        Parameters
        ----------
        section : Section
        subject : Subject
        watch : SectionWatch
        write : callable
            As for `commit`.
        live : bool
            Its image grew.
        key : str, optional
            Its key, where its inputs were read for that already.
        """
        record = self.record
        try:
            key = key or section_key(section, record.bundle, record.settings)
            if not live and attempt_key(section, record.bundle, record.settings) != subject.key:
                raise SourceError(
                    "changed while it was processed", file=section.image, fix="run again once it is complete"
                )
            before = self._ledger.latest(section.name)
            if before is not None and before.key == key:
                self._unchanged(before)
                return

            def settled(folder: Path) -> dict[str, Any]:
                entry = write(folder)
                self._observer.events.settle()
                return entry

            done = commit(record.out, self._ledger, section.name, key, settled)
        except SourceError as error:
            self._refuse(subject, error)
            return
        record.sections.append(done.entry)
        watch.committed(done.folder)

    def _unchanged(self, before: Committed) -> None:
        self.record.notes.append(f"{before.name}: was done before, from the same input")
        self.record.sections.append(before.entry)
        self._observer.unchanged(Subject(before.name, before.version), before.folder)

    def _refuse(self, subject: Subject, error: LithostreamError) -> None:
        quarantine(self.record, subject.section, error)
        self._observer.refused(subject, error)
