"""Every command, thin: parse, call, exit code."""

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from lithostream.engine import cli_map, cli_stream
from lithostream.engine.cli_options import JsonOption, OutOption, console, warn
from lithostream.engine.config import RunSettings, load_toml
from lithostream.engine.errors import BackendError, ConfigError, LithostreamError, StoppedError
from lithostream.engine.manifest import Precision

app = typer.Typer(
    name="lithostream",
    help="Core-scanner images in, depth-registered properties and mineral abundances out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
train_app = typer.Typer(help="Train a model: one sub-command per study.", no_args_is_help=True)
app.add_typer(train_app, name="train")
USAGE, STOPPED = 2, 4
DRAIN_S = 4.5  # until a stop is as good as a loss of power, which a rerun mends too


@app.command()
def demo(out: OutOption = Path("demo_run"), as_json: JsonOption = False) -> None:
    """Run the whole job on a generated core and print its errors against the truth."""
    from lithostream.engine.demo import run_demo
    from lithostream.engine.progress import section_progress

    with section_progress(console) as progress:
        outcome = run_demo(out, progress)
    if as_json:
        print(json.dumps(outcome.as_json()))
    else:
        console.print(outcome.table())
        print(outcome.report)
    raise typer.Exit(outcome.exit_code)


app.command()(cli_stream.run)
app.command()(cli_stream.scan)
app.command("map")(cli_map.map_command)


@train_app.command("properties")
def train_properties(
    config: Annotated[Path, typer.Argument(help="Training configuration, TOML.")],
    out: OutOption,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Manifests or folders in place of the configuration's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a property network; prints its scores on unseen depth blocks beside ridge and random forest."""
    with _needs_train_extra():
        from lithostream.training.study import train_properties as train
    summary = train(config, out, data or (), console)
    print(json.dumps(summary) if as_json else out)


@train_app.command("logs")
def train_logs(
    config: Annotated[Path, typer.Argument(help="Configuration, TOML.")],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Score depth models on logs of colour or CT, beside ridge and random forest; makes no bundle."""
    with _needs_train_extra():
        from lithostream.training.logs_study import train_logs as train
    result = train(config, out, console)
    print(result.model_dump_json(exclude={"config"}) if as_json else out)


@train_app.command("segmenter")
def train_segmenter(
    config: Annotated[Path, typer.Argument(help="Configuration, TOML.")],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Train the small Segment Anything on generated scenes; prints its overlap with unseen objects."""
    with _needs_train_extra():
        from lithostream.training.segmenter.study import train_segmenter as train
    record = train(config, out, console)
    print(json.dumps(record) if as_json else out)


@train_app.command("transfer")
def train_transfer(
    config: Annotated[Path, typer.Argument(help="Configuration, TOML.")],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Compare models of prospectivity from few deposits under spatial blocks; writes the table and every model."""
    with _needs_train_extra():
        from lithostream.training.transfer.study import train_transfer as train
    summary = train(config, out, console)
    print(json.dumps(summary) if as_json else out)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `train` wrote.")],
    out: OutOption,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="Also make this variant, fp16 or int8; may be given twice."),
    ] = None,
    segmenter: Annotated[
        Path | None,
        typer.Option("--segmenter", help="Folder of `train segmenter`, or weights of Segment Anything."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Of a transfer study. Default: the one that won.")
    ] = None,
    components: Annotated[
        bool,
        typer.Option("--components", help="Of a transfer study: take its components, not the predictors."),
    ] = False,
) -> None:
    """Turn a checkpoint into a verified bundle."""
    with _needs_train_extra():
        from lithostream.export.bundle import export_bundle
        from lithostream.export.transfer import export_map
        from lithostream.training.transfer.checkpoint import is_transfer
    if is_transfer(checkpoint):
        if precision or segmenter:
            raise ConfigError("a map bundle has one precision and no segmenter", fix="leave them out")
        print(export_map(checkpoint, out, model, components=components))
        return
    if model or components:
        raise ConfigError("--model and --components are of a transfer study", fix="leave them out")
    print(export_bundle(checkpoint, out, precision or (), segmenter=segmenter))


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Model bundle.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="Sections with sensor logs: manifest or folder. Of a map bundle: labelled points."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for evaluation.json and a plot per section.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a bundle on measured sections, beside ridge and random forest on mean colour; or on labelled points."""
    from lithostream.engine.maps.bundle import is_map_bundle

    with _needs_train_extra():
        from lithostream.training.evaluate import evaluate as score
        from lithostream.training.transfer.evaluate import evaluate_map
    found = (evaluate_map if is_map_bundle(bundle) else score)(bundle, data, console, out)
    if as_json:
        print(found.model_dump_json())


@app.command()
def endmembers(
    path: Annotated[Path, typer.Argument(help="Manifest, or folder with one, of calibrated sections.")],
    out: Annotated[Path, typer.Option("--out", help="Table to write, CSV.")],
    count: Annotated[int, typer.Option("--count", help="Endmembers, 2 to 4.")] = 3,
    config: Annotated[Path | None, typer.Option("--config", help="Settings of the runs, TOML.")] = None,
) -> None:
    """Extract endmember colours from calibrated images into a table to fill in."""
    with _needs_train_extra():
        from lithostream.training.endmembers import write_endmembers
    found = write_endmembers(path, out, count, load_toml(config, RunSettings) if config else None)
    console.print(f"{count} endmembers leave {found.residual:.4f} of reflectance", highlight=False)
    print(out)


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Write a run's HTML report again from its tables."""
    from lithostream.engine.report.run_report import write_report

    print(write_report(run_folder))


@app.command()
def build(
    bundle: Annotated[Path, typer.Argument(help="Model bundle.")],
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="Build this one alone. Default: all that the bundle has."),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings of the runs, TOML.")] = None,
) -> None:
    """Build TensorRT plans for this GPU, so that a run starts at once."""
    from lithostream.engine.bundle import load_bundle
    from lithostream.engine.inference.tensorrt import build_plans
    from lithostream.engine.progress import section_progress

    loaded = load_bundle(bundle)
    settings = load_toml(config, RunSettings) if config else RunSettings()
    with section_progress(console) as progress:
        for made in build_plans(loaded, precision, settings.batch, settings.threads, progress):
            how = f"built in {made.seconds:.1f} s" if made.built else "was built before"
            print(f"{made.precision} {how}: {made.path}")


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="Model bundle, the folder of a run, or a map.")],
) -> None:
    """Check a bundle's checksums, graph and golden cases; a run's folders against its ledger; or a map's files."""
    from lithostream.engine.bundle import load_bundle
    from lithostream.engine.inference import open_session
    from lithostream.engine.inference.segmenter import SegmenterSession
    from lithostream.engine.maps.bundle import is_map_bundle
    from lithostream.engine.maps.verify import is_map
    from lithostream.engine.stream.ledger import LEDGER

    if (path / LEDGER).is_file():
        _verify_run(path)
        return
    if is_map(path):
        cli_map.verify_files(path)
        return
    if is_map_bundle(path):
        cli_map.verify_map_bundle(path)
        return
    loaded = load_bundle(path)
    session = open_session(loaded, batch=len(loaded.golden_tiles), threads=1)
    if loaded.segmenter is not None:
        SegmenterSession(loaded, threads=1)
    warn(session.notes)
    print(f"{loaded.manifest.name} {loaded.sha256} whole; golden cases met by {session.backend}")


@app.command()
def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Model bundle to measure the backends with.")] = None,
    precision: Annotated[Precision, typer.Option("--precision", help="Of the network.")] = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Say which inference backends can run here, what to install for more, and what `auto` picks."""
    from lithostream.engine.doctor import examine

    found = examine(bundle, precision)
    if as_json:
        print(found.model_dump_json())
    else:
        Console(soft_wrap=True).print(*found.renderables(), sep="\n")


def _verify_run(path: Path) -> None:
    from lithostream.engine.stream.verify_run import verify_run

    sections, problems = verify_run(path)
    warn(problems)
    if problems:
        raise ConfigError(
            f"{len(problems)} problems",
            file=path,
            fix="move the folders that are named away and run the sections again",
        )
    print(f"{sections} sections whole")


@contextmanager
def _needs_train_extra() -> Iterator[None]:
    """Say what to install where PyTorch or scikit-learn is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        reason = f"this command needs {error.name}, which is not installed"
        raise BackendError(reason, fix="pip install 'lithostream[cpu,train]'") from error


def main() -> None:
    """Entry point: typed errors become one line and the exit code of the contract."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except StoppedError as error:
        _fail(error, STOPPED)
    except LithostreamError as error:
        _fail(error, USAGE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(StoppedError(f"disk full: {error}", fix="free space, then run the same command again"), STOPPED)


def _stop(signum: int, _frame: FrameType | None) -> NoReturn:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # the first is enough: a second must not cut what it began
    drain = threading.Timer(DRAIN_S, os._exit, (STOPPED,))
    drain.daemon = True
    drain.start()
    name = signal.Signals(signum).name
    raise StoppedError(f"{name}: finished sections are whole", fix="run the same command again")


def _fail(error: LithostreamError, code: int) -> NoReturn:
    console.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
