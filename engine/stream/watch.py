"""A folder that fills: sections are taken once their files have stopped changing."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from lithostream.engine.core.section import Section
from lithostream.engine.errors import LithostreamError, SourceError
from lithostream.engine.io.discover import discover
from lithostream.engine.io.names import safe_name
from lithostream.engine.stream.runner import Progress, Runner

TRIES = 5  # of files that could not be read, while nothing about them changes: shares fail for a moment
POLL_S = 1.0  # shares over a network tell nobody of changes, so the folder is looked at

Signature = tuple[tuple[str, int, int, int], ...]
Clock = Callable[[], float]


class Settling:
    """Which files have not changed for a while.

    Parameters
    ----------
    settle_s : float
    clock : callable
        Seconds that never jump.
    """

    def __init__(self, settle_s: float, clock: Clock = time.monotonic) -> None:
        self._settle_s, self._clock = settle_s, clock
        self._since: dict[Path, tuple[tuple[int, int, int], float]] = {}

    def signature(self, files: tuple[Path, ...]) -> Signature | None:
        """Name, size, time and number of files; None while one of them is missing or still changes."""
        found: list[tuple[str, int, int, int] | None] = []
        for path in files:
            try:
                status = path.stat()
            except OSError:
                self._since.pop(path, None)
                return None
            now = (status.st_size, status.st_mtime_ns, status.st_ino)
            before, since = self._since.get(path, (None, 0.0))
            if now != before:
                since = self._clock()
                self._since[path] = (now, since)
            settled = self._clock() - since >= self._settle_s
            found.append((str(path), *now) if settled else None)
        return tuple(one for one in found if one) if all(found) else None

    def again(self, files: tuple[Path, ...]) -> None:
        """Let files settle anew."""
        for path in files:
            self._since.pop(path, None)


class Watch:
    """Rounds over a folder; each takes what has settled and was not taken as it is now.

    Parameters
    ----------
    folder : Path
    runner : Runner
        Open.
    settling : Settling
    """

    def __init__(self, folder: Path, runner: Runner, settling: Settling) -> None:
        self.folder, self._runner, self._settling = folder, runner, settling
        self._taken: dict[str, Signature] = {}
        self._tries: Counter[str] = Counter()

    def round(self, progress: Progress) -> int:
        """Look once; returns the number of inputs that were taken.

        A folder that is not there, or not for the moment, holds nothing.
        """
        try:
            sections, failures = discover([self.folder]) if self.folder.is_dir() else ([], [])
        except OSError:
            return 0
        taken: dict[str, tuple[Path, ...]] = {}
        refused = 0
        for section in sections:
            files = _files(section)
            if self._takes(section.name, files):
                self._runner.forget(section.name, str(section.image))
                self._runner.process(section, progress)
                taken[section.name] = files
        for failure in failures:
            name = safe_name(Path(failure.file or "input").name)
            if failure.file != str(self.folder) and self._takes(name, _stated_file(failure)):
                self._runner.forget(name, failure.file)
                self._runner.refuse(name, failure)
                refused += 1
        if taken or refused:
            self._runner.write_record()
            self._look_back(taken)
        return len(taken) + refused

    def _takes(self, name: str, files: tuple[Path, ...]) -> bool:
        """Take files that have settled and are others than those taken before."""
        signature = self._settling.signature(files)
        if signature is None or signature == self._taken.get(name):
            return False
        self._taken[name] = signature
        return True

    def _look_back(self, taken: dict[str, tuple[Path, ...]]) -> None:
        """Let sections come again that changed or went away meanwhile, or that the disk could not give."""
        refused = self._runner.record.quarantined
        unread = {entry["name"] for entry in refused if entry["error"] == SourceError.__name__}
        for name, files in taken.items():
            self._tries[name] = self._tries[name] + 1 if name in unread else 0
            if self._settling.signature(files) != self._taken[name] or 0 < self._tries[name] < TRIES:
                del self._taken[name]
                self._settling.again(files)


def watch(
    folder: Path, runner: Runner, settle_s: float, progress: Progress, on_round: Callable[[], None]
) -> None:
    """Go on until the process is stopped.

    Parameters
    ----------
    folder : Path
    runner : Runner
    settle_s : float
        Time for which a file must not have changed.
    progress : callable
    on_round : callable
        Told after each round that took something.
    """
    rounds = Watch(folder, runner, Settling(settle_s))
    while True:
        if rounds.round(progress):
            on_round()
        time.sleep(POLL_S)


def _files(section: Section) -> tuple[Path, ...]:
    """Every file that decides a section's result."""
    planes = [plane.image for plane in section.planes]
    calibration = section.calibration.files if section.calibration else ()
    log = (section.log,) if section.log else ()
    return (section.image, *section.sidecars, *log, *planes, *calibration)


def _stated_file(failure: LithostreamError) -> tuple[Path, ...]:
    return (Path(failure.file),) if failure.file else ()
