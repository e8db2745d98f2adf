"""A folder that fills: sections are taken once their files have stopped changing."""

import time
from collections.abc import Callable
from pathlib import Path

from lithostream.engine.core.section import Section
from lithostream.engine.errors import LithostreamError
from lithostream.engine.io.discover import discover
from lithostream.engine.io.names import safe_name
from lithostream.engine.stream.runner import Progress, Runner

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

    def round(self, progress: Progress) -> int:
        """Look once; returns the number of inputs that were taken.

        A folder that is not there, or not for the moment, holds nothing.
        """
        try:
            sections, failures = discover([self.folder]) if self.folder.is_dir() else ([], [])
        except OSError:
            return 0
        taken = 0
        for section in sections:
            signature = self._new(section.name, _files(section))
            if signature is not None:
                self._runner.forget(section.name, str(section.image))
                self._runner.process(section, progress)
                taken += self._take(section.name, signature)
        for failure in failures:
            name = safe_name(Path(failure.file or "input").name)
            signature = self._new(name, _stated_file(failure))
            if signature is not None and failure.file != str(self.folder):
                self._runner.forget(name, failure.file)
                self._runner.refuse(name, failure)
                taken += self._take(name, signature)
        if taken:
            self._runner.write_record()
        return taken

    def _new(self, name: str, files: tuple[Path, ...]) -> Signature | None:
        signature = self._settling.signature(files)
        return None if signature == self._taken.get(name) else signature

    def _take(self, name: str, signature: Signature) -> int:
        self._taken[name] = signature
        return 1


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
