"""The `logs` study: how well logs of colour or CT tell physical properties of depth and of cores not seen."""

import os
from pathlib import Path

import numpy as np
from rich.console import Console

from lithostream.engine.config import StrictModel, load_toml
from lithostream.engine.errors import ConfigError
from lithostream.training.config import LogsConfig, SplitConfig
from lithostream.training.data.core_logs import LogRows, read_rows
from lithostream.training.out_of_fold import baseline_folds, depth_folds
from lithostream.training.report import MODEL, TargetReport, report_target
from lithostream.training.tables import by_core_table, cross_validation_table

RESULT = "logs.json"


class LogsResult(StrictModel):
    """`logs.json`: reports by split (`block`, and `core` where there are several cores), then by target."""

    config: LogsConfig
    rows: int
    splits: dict[str, dict[str, TargetReport]]


def train_logs(config_path: Path, out: Path, console: Console | None = None) -> LogsResult:
    """Cross-validate depth models on logs, print the tables, and write `logs.json` into `out`.

    There is no model to ship: a bundle runs on images.

    Parameters
    ----------
    config_path : Path
        TOML, see `LogsConfig`; paths in it start at its folder.
    out : Path
        Folder to make; must not exist.
    console : Console, optional
        For the tables; stderr by default.

    Raises
    ------
    LithostreamError
        Naming the file, the place, the reason and the fix.
    """
    console = console or Console(stderr=True)
    config = load_toml(config_path, LogsConfig)
    if out.exists():
        raise ConfigError("exists already", file=out, fix="choose another --out, or remove it")
    rows = read_rows(config, Path(os.path.normpath(config_path.parent / config.root)))
    splits = {"block": config.split}
    if len(rows.sections) > 1:
        splits["core"] = config.split.model_copy(update={"kind": "core", "folds": len(rows.sections)})
    result = LogsResult(
        config=config,
        rows=len(rows.labels),
        splits={kind: _reports(rows, config, split) for kind, split in splits.items()},
    )
    out.mkdir(parents=True)
    (out / RESULT).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _print(result, splits, console)
    return result


def _reports(rows: LogRows, config: LogsConfig, split: SplitConfig) -> dict[str, TargetReport]:
    logarithmic = np.array([name in config.logarithmic for name in config.targets])
    runs = [
        depth_folds(MODEL, rows, split, seed, logarithmic).joined(
            baseline_folds(rows, split, seed, logarithmic)
        )
        for seed in split.seeds
    ]
    return {
        name: report_target(rows, column, runs, logarithmic, leaky=split.leaky)
        for column, name in enumerate(config.targets)
    }


def _print(result: LogsResult, splits: dict[str, SplitConfig], console: Console) -> None:
    console.print(f"{result.config.name}: {result.rows} labelled rows")
    for kind, reports in result.splits.items():
        for target, report in reports.items():
            console.print(cross_validation_table(target, report, splits[kind].describe()))
            if report.cores:
                console.print(by_core_table(target, report))
