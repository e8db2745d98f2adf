"""Live lines in, sections out; what a scan that was killed had received is processed first."""

from pathlib import Path

from lithostream.engine.config import RunSettings
from lithostream.engine.errors import SourceError
from lithostream.engine.io.line_file import SUFFIX, open_lines
from lithostream.engine.io.line_stream import receive
from lithostream.engine.stream.runner import Progress, Runner

SPOOL = "spool"
LIVE_WINDOW_CM = 1.0  # a window is begun when its lines are there: the less it holds, the sooner
LIVE_SETTINGS = RunSettings(window_cm=LIVE_WINDOW_CM)


def scan(source: str, runner: Runner, progress: Progress) -> None:
    """Process sections as their lines arrive, until the sender closes.

    Parameters
    ----------
    source : str
        See `receive`.
    runner : Runner
        Open.
    progress : callable

    Raises
    ------
    SourceError
        Nobody sends, or what is sent is not in the format. What had arrived is committed.
    StoppedError
        The disk is full.
    """
    spool = (runner.record.out / SPOOL).resolve()
    for path in sorted(set(spool.glob(f"*{SUFFIX}")) - runner.inputs(), key=_age):
        _resume(path, runner, progress)
    with receive(source, spool) as sections:
        for incoming in sections:
            runner.process(incoming.header.to_section(incoming.path), progress, incoming.source)
            runner.write_record()


def _age(path: Path) -> tuple[int, str]:
    """Order the spools of a section as they came: NAME, NAME-2, ... NAME-10; clocks jump."""
    return len(path.name), path.name


def _resume(path: Path, runner: Runner, progress: Progress) -> None:
    try:
        section = open_lines(path).header.to_section(path)
    except SourceError as error:
        runner.refuse(path.stem, error)
        return
    runner.process(section, progress)
