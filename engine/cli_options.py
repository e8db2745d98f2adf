"""What commands share: options, the console, how notes are shown."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lithostream.engine.config import AnyBackend
from lithostream.engine.manifest import Precision

console = Console(stderr=True)

OutOption = Annotated[Path, typer.Option("--out", help="Folder to write.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one machine-readable line on stdout.")]
BundleOption = Annotated[Path, typer.Option("--bundle", help="Model bundle.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings, TOML.")]
BackendOption = Annotated[
    AnyBackend | None, typer.Option("--backend", help="Inference runtime, in place of the settings'.")
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="Of the network, in place of the settings'.")
]
EventsOption = Annotated[
    list[str] | None,
    typer.Option("--events", help="Tell events here too: -, a file, a named pipe or a Unix socket."),
]
MetricsOption = Annotated[
    int | None,
    typer.Option("--metrics-port", min=0, max=65535, help="Serve Prometheus metrics on this machine."),
]


def warn(notes: Iterable[str]) -> None:
    """Show notes on stderr."""
    for note in notes:
        console.print(note, style="yellow", markup=False, soft_wrap=True)
