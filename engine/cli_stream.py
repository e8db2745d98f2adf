"""The commands that run sections: from files, from a folder that fills, from live lines."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from lithostream.engine.cli_options import (
    BackendOption,
    BundleOption,
    ConfigOption,
    EventsOption,
    JsonOption,
    MetricsOption,
    OutOption,
    PrecisionOption,
    console,
    warn,
)
from lithostream.engine.config import AnyBackend, RunSettings, load_toml
from lithostream.engine.errors import ConfigError
from lithostream.engine.manifest import Precision

if TYPE_CHECKING:  # what is slow to import waits for the command that needs it
    from lithostream.engine.stream.metrics import Metrics
    from lithostream.engine.stream.run_record import RunRecord


def run(
    paths: Annotated[list[Path], typer.Argument(help="Images, folders, Itrax folders or manifests.")],
    bundle: BundleOption,
    out: OutOption,
    config: ConfigOption = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with what comes into PATH, a folder, until stopped.")
    ] = False,
    on: Annotated[
        Literal["local", "ray"], typer.Option("--on", help="This machine, or those of a Ray cluster.")
    ] = "local",
    events: EventsOption = None,
    metrics_port: MetricsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn section images into depth logs."""
    from lithostream.engine.progress import section_progress
    from lithostream.engine.stream.on_ray import run_on_ray
    from lithostream.engine.stream.runner import run as run_here

    if watch and on == "ray":
        raise ConfigError("a watch runs on this machine alone", fix="leave out --watch or --on ray")
    settings = _settings(config, RunSettings(), backend, precision)
    _check_stdout(events, as_json)
    if watch:
        _watch(paths, bundle, out, settings, events or (), metrics_port)
    with _metrics(metrics_port) as metrics, section_progress(console) as progress:
        run_sections = run_on_ray if on == "ray" else run_here
        record = run_sections(paths, bundle, out, settings, progress, metrics=metrics, events=events or ())
    _tell(record, as_json, quiet="-" in (events or ()))


def scan(
    source: Annotated[
        str, typer.Argument(help="Live lines: -, tcp://host:port, unix:/path, or a spool that grows.")
    ],
    bundle: BundleOption,
    out: OutOption,
    config: ConfigOption = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    events: EventsOption = None,
    metrics_port: MetricsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn live scan lines into depth logs, centimetre by centimetre, until the sender closes."""
    from lithostream.engine.progress import section_progress
    from lithostream.engine.stream.runner import Runner
    from lithostream.engine.stream.scan import LIVE_SETTINGS
    from lithostream.engine.stream.scan import scan as scan_lines

    settings = _settings(config, LIVE_SETTINGS, backend, precision)
    _check_stdout(events, as_json)
    with (
        _metrics(metrics_port) as metrics,
        section_progress(console) as progress,
        Runner(bundle, out, settings, metrics=metrics, events=events or ()) as runner,
    ):
        scan_lines(source, runner, progress)
    _tell(runner.record, as_json, quiet="-" in (events or ()))


def _settings(
    config: Path | None, default: RunSettings, backend: AnyBackend | None, precision: Precision | None
) -> RunSettings:
    settings = load_toml(config, RunSettings) if config else default
    given = {"backend": backend, "precision": precision}
    return settings.model_copy(update={name: value for name, value in given.items() if value})


def _check_stdout(events: Sequence[str] | None, as_json: bool) -> None:
    if as_json and "-" in (events or ()):
        raise ConfigError("stdout carries events or the summary, not both", fix="leave out --json")


@contextmanager
def _metrics(port: int | None) -> Iterator["Metrics"]:
    from lithostream.engine.stream.metrics import Metrics

    with ExitStack() as stack:
        metrics = Metrics()
        if port is not None:
            served = stack.enter_context(metrics.serve(port))
            console.print(f"metrics at http://127.0.0.1:{served}/metrics", highlight=False)
        yield metrics


def _tell(record: "RunRecord", as_json: bool, *, quiet: bool) -> NoReturn:
    """Write the report, say what was done, and leave with the exit code of the contract."""
    from lithostream.engine.report.run_report import write_report

    report = write_report(record.out)
    warn(record.notes)
    for entry in record.quarantined:
        console.print(f"quarantined {entry['name']}: {entry['reason']} (fix: {entry['fix']})", style="yellow")
    if as_json:
        summary = {"out": str(record.out), "report": str(report), "sections": len(record.sections)}
        print(json.dumps({**summary, "quarantined": record.quarantined}))
    elif not quiet:
        print(report)
    raise typer.Exit(record.exit_code)


def _watch(
    paths: list[Path],
    bundle: Path,
    out: Path,
    settings: RunSettings,
    events: Sequence[str],
    metrics_port: int | None,
) -> NoReturn:
    from lithostream.engine.report.run_report import write_report
    from lithostream.engine.stream.runner import Runner
    from lithostream.engine.stream.watch import watch

    if len(paths) != 1 or paths[0].suffix:
        raise ConfigError("--watch takes one folder", fix="name the folder that the scanner writes to")

    def told(section: str, done: int, total: int) -> None:
        if done == total:
            console.print(f"{section}: done", highlight=False)

    def reported() -> None:
        report = write_report(out)
        if "-" not in events:
            print(report, flush=True)

    with (
        _metrics(metrics_port) as metrics,
        Runner(bundle, out, settings, metrics=metrics, events=events) as runner,
    ):
        console.print(f"watching {paths[0]}", highlight=False)
        watch(paths[0], runner, settings.settle_s, told, reported)
    raise AssertionError("a watch ends by being stopped")
