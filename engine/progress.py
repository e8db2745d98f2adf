"""Progress of a run on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lithostream.engine.stream.runner import Progress as OnRows


@contextmanager
def section_progress(console: Console) -> Iterator[OnRows]:
    """Show one bar per section; yields the callback that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        tasks = {}

        def on_rows(section: str, done: int, total: int) -> None:
            if section not in tasks:
                tasks[section] = progress.add_task(section, total=total)
            progress.update(tasks[section], completed=done)

        yield on_rows
