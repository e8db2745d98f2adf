"""Sections over many machines: Ray Data hands them to workers, this process alone commits what they made."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from lithostream.engine.bundle import load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.io.names import safe_name
from lithostream.engine.machine import versions
from lithostream.engine.stream.books import Books
from lithostream.engine.stream.commit import PARTIAL
from lithostream.engine.stream.events import Subject
from lithostream.engine.stream.metrics import Metrics
from lithostream.engine.stream.ray_pool import Pool, import_ray, made_on_ray
from lithostream.engine.stream.ray_worker import Job, Made, Order
from lithostream.engine.stream.run_record import PACKAGES, RunRecord
from lithostream.engine.stream.runner import Progress, found

ATTEMPTS = 3
MADE = f"..made{PARTIAL}"  # no section's name begins with a dot


def run_on_ray(
    paths: Sequence[Path],
    bundle_path: Path,
    out: Path,
    settings: RunSettings,
    progress: Progress,
    *,
    metrics: Metrics | None = None,
    events: Sequence[str] = (),
) -> RunRecord:
    """Process every section found under `paths` on the machines of a Ray cluster, see `run`.

    The cluster is that of the environment's RAY_ADDRESS; without it, a Ray of this machine's own is started.

    Raises
    ------
    BackendError
        Ray is not installed, or not there.
    ConfigError, BundleError
        Also of a worker's machine.
    """
    import_ray()
    sections, failures = found([path.absolute() for path in paths])
    with RayRunner(
        bundle_path.absolute(), out.absolute(), settings, metrics=metrics, events=events
    ) as runner:
        for failure in failures:
            runner.refuse(safe_name(Path(failure.file or "input").name), failure)
        runner.process(sections, partial(made_on_ray, settings), progress)
    return runner.record


class RayRunner(Books):
    """Hands sections out, and commits what comes back, as it comes; the record has them in their order.

    Parameters
    ----------
    bundle_path, out : Path
        As every machine reaches them.
    settings : RunSettings
    metrics, events
        See `Books`.
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
        backend = "ray " + versions(("ray",)).get("ray", "unknown")
        record = RunRecord(out, load_bundle(bundle_path), settings, backend)
        super().__init__(record, metrics=metrics, events=events)

    def process(self, sections: Sequence[Section], pool: Pool, progress: Progress) -> None:
        """Process sections, or quarantine them; what is already there is not done again.

        A section whose worker is lost is handed out again, `ATTEMPTS` times in all.

        Parameters
        ----------
        sections : sequence of Section
            Of different names.
        pool : callable
        progress : callable
            Told each section when it is done.

        Raises
        ------
        LithostreamError
            A worker cannot work at all.
        """
        self._committer.wait()
        refused = len(self.record.quarantined)
        admitted = [(section, self.admit(section)) for section in sections]
        left = {section.name: (section, subject) for section, subject in admitted if subject is not None}
        made_in = self.record.out / MADE
        try:
            for _ in range(ATTEMPTS if left else 0):
                made_in.mkdir(exist_ok=True)
                with closing(pool(self._order(left, made_in))) as answers:
                    for made in map(Made.from_json, answers):
                        self._take(made, *left.pop(made.name), progress)
                if not left:
                    break
            for section, subject in left.values():
                self.refuse_as(subject, _lost(section))
            self._committer.wait()
        finally:
            shutil.rmtree(made_in, ignore_errors=True)
        places = {section.name: place for place, section in enumerate(sections)}
        self.record.sections.sort(key=lambda entry: places[str(entry["name"])])
        late = self.record.quarantined[refused:]
        late.sort(key=lambda entry: places.get(str(entry["name"]), len(places)))
        self.record.quarantined[refused:] = late

    def _order(self, left: Mapping[str, tuple[Section, Subject]], folder: Path) -> Order:
        bundle = self.record.bundle
        jobs = tuple(Job(section, str(subject.key)) for section, subject in left.values())
        return Order(bundle.path, bundle.sha256, self.record.settings, folder, versions(PACKAGES), jobs)

    def _take(self, made: Made, section: Section, subject: Subject, progress: Progress) -> None:
        if isinstance(made.error, SourceError):
            self.refuse_as(subject, made.error)
        elif made.error is not None:
            raise made.error
        else:
            self._committer.put(partial(self._finish, made, section, subject, progress))

    def _finish(self, made: Made, section: Section, subject: Subject, progress: Progress) -> None:
        assert made.grid is not None, "only an error comes without"
        watch = self._observer.begin(subject, section.image.name, made.grid, self.record.bundle.manifest)
        for news in made.news:
            watch.tell(news)
        with self._metrics.stage("commit"):
            self.commit(section, subject, watch, partial(_moved, made), key=made.key)
        self.note(made.notes)
        progress(section.name, made.grid.height_px, made.grid.height_px)


def _moved(made: Made, folder: Path) -> dict[str, Any]:
    """Bring a section's files into a folder beside theirs."""
    for path in made.files:
        try:
            path.rename(folder / path.name)
        except FileNotFoundError as error:
            raise ConfigError(
                "was written by a worker and is not seen here",
                file=path,
                fix="give --out a folder that the driver and every worker reach under the same path",
            ) from error
    return made.entry


def _lost(section: Section) -> SourceError:
    return SourceError(
        f"lost its worker {ATTEMPTS} times",
        file=section.image,
        fix="see Ray's log; run it without --on ray, and see how much memory it takes",
    )
