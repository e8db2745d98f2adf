"""What makes sections on another machine: files into a folder that the driver sees, and one line that says so."""

import errno
import json
import shutil
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lithostream.engine.config import RunSettings
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.lane import WindowResult
from lithostream.engine.core.results import CollectedSection
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import open_section, section_grid
from lithostream.engine.errors import (
    BackendError,
    BundleError,
    ConfigError,
    LithostreamError,
    SourceError,
    StoppedError,
    from_json,
)
from lithostream.engine.machine import versions
from lithostream.engine.stream.commit import sync_files
from lithostream.engine.stream.metrics import Amounts
from lithostream.engine.stream.observe import News, window_news
from lithostream.engine.stream.run_record import PACKAGES
from lithostream.engine.stream.section_key import attempt_key, section_key
from lithostream.engine.stream.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Job:
    """One section to be made.

    Attributes
    ----------
    section : Section
        Its paths lead to the same files on every machine.
    key : str
        Its `attempt_key`, as the driver has it.
    """

    section: Section
    key: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told when it starts.

    Attributes
    ----------
    bundle_path : Path
    bundle_sha256 : str
        As the driver has it.
    settings : RunSettings
    folder : Path
        That the driver made for this run.
    packages : mapping of str to str
        Versions that the driver runs with.
    jobs : tuple of Job
        A row names one by its place.
    """

    bundle_path: Path
    bundle_sha256: str
    settings: RunSettings
    folder: Path
    packages: Mapping[str, str]
    jobs: tuple[Job, ...]


class Made(NamedTuple):
    """What became of a section: files, or an error.

    Attributes
    ----------
    name : str
        Of the section.
    error : LithostreamError, optional
        There is nothing else then.
    files : tuple of Path
        Synced, in a folder of their own.
    key : str
        As `section_key` has it.
    entry : dict
        For the record.
    grid : Grid, optional
    news : tuple of News
        Of its windows, in their order.
    notes : tuple of str
        Of the worker's inference, so far.
    """

    name: str
    error: LithostreamError | None = None
    files: tuple[Path, ...] = ()
    key: str = ""
    entry: dict[str, Any] = {}  # noqa: RUF012  # never written to
    grid: Grid | None = None
    news: tuple[News, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return it as one line."""
        told = [one._asdict() for one in self.news]
        plain = {"files": [str(path) for path in self.files], "grid": self.grid and asdict(self.grid)}
        error = self.error and self.error.as_json()
        return json.dumps({**self._asdict(), **plain, "error": error, "news": told})

    @classmethod
    def from_json(cls, text: str) -> "Made":
        """Read what `to_json` wrote; numbers are the same."""
        held = json.loads(text)
        return cls(
            held["name"],
            held["error"] and from_json(held["error"]),
            tuple(map(Path, held["files"])),
            held["key"],
            held["entry"],
            held["grid"] and Grid(**held["grid"]),
            tuple(News(**{**one, "done": Amounts(*one["done"])}) for one in held["news"]),
            tuple(held["notes"]),
        )


class SectionWorker:
    """Makes sections, one after another; opens its sessions with the first.

    Parameters
    ----------
    order : Order
    """

    def __init__(self, order: Order) -> None:
        self._order, self._host = order, socket.gethostname()

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Make the section that `row["job"]` names; what a user can cause comes back as `Made.error`."""
        job = self._order.jobs[int(row["job"])]
        try:
            return {"made": self._make(job).to_json()}
        except LithostreamError as error:
            return {"made": Made(job.section.name, error).to_json()}
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            full = StoppedError(
                f"disk full on {self._host}: {error}", fix="free space, then run the same command again"
            )
            return {"made": Made(job.section.name, full).to_json()}

    @cached_property
    def _workshop(self) -> Workshop:
        order = self._order
        if not order.folder.is_dir():
            raise ConfigError(
                f"{self._host} does not see it",
                file=order.folder,
                fix="give --out a folder that the driver and every worker reach under the same path",
            )
        packages = versions(PACKAGES)
        if packages != order.packages:
            differing = sorted({name for name, _ in packages.items() ^ order.packages.items()})
            raise BackendError(
                f"{self._host} has other packages than the driver: {', '.join(differing)}",
                fix="install the same versions on every machine",
            )
        workshop = Workshop(order.bundle_path, order.settings)
        if workshop.bundle.sha256 != order.bundle_sha256:
            raise BundleError(
                f"is another bundle on {self._host} than for the driver",
                file=order.bundle_path,
                fix="give the same bundle to every machine",
            )
        return workshop

    def _make(self, job: Job) -> Made:
        section, bundle, settings = job.section, self._workshop.bundle, self._order.settings
        begun = time.monotonic()
        if attempt_key(section, bundle, settings) != job.key:
            raise SourceError(
                f"is not on {self._host} what it is for the driver",
                file=section.image,
                fix="give inputs that every machine reaches under the same path",
            )
        # A folder of its own for each attempt: a worker that was given up as lost may still be writing to the last.
        folder = self._order.folder / section.name / uuid.uuid4().hex
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        collected, news, backend = self._collect(section, folder)
        with closing(collected):
            entry = self._workshop.finish(collected, backend, begun, folder)
        sync_files(folder)
        return Made(
            section.name,
            files=tuple(sorted(folder.iterdir())),
            key=section_key(section, bundle, settings),
            entry=entry,
            grid=collected.grid,
            news=tuple(news),
            notes=tuple(self._workshop.notes),
        )

    def _collect(self, section: Section, folder: Path) -> tuple[CollectedSection, list[News], str]:
        manifest = self._workshop.bundle.manifest
        source = open_section(section)
        grid = section_grid(section, source, manifest.input, self._order.settings)
        while True:
            news: list[News] = []

            def told(result: WindowResult, rows_px: int, _: int, news: list[News] = news) -> None:
                news.append(window_news(result, rows_px, grid, manifest))

            try:
                return self._workshop.collect(section, source, folder, told), news, self._workshop.backend
            except BackendError as error:
                self._workshop.retreat(error)
