"""Runs in processes of their own, which can be stopped and killed; forked from one that has imported everything."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from lithostream.engine.config import RunSettings
from lithostream.engine.stream.failpoints import VARIABLE

SETTINGS = RunSettings(backend="onnxruntime", threads=1, refine=False)
_PRELOAD = [
    "numba.cpython.charseq",
    "numba.np.arraymath",
    "numba.np.arrayobj",
    "onnxruntime",
    "pyarrow.parquet",
    "pytest",
    "scipy.linalg",
    "lithostream.engine.cli",
    "lithostream.engine.doctor",
    "lithostream.engine.progress",
    "lithostream.engine.report.run_report",
    "lithostream.engine.stream.scan",
]


def start(work: Callable[..., None], *given: object, said: Path, failpoint: str = "") -> BaseProcess:
    """Begin a function of an importable module in a process of its own.

    Parameters
    ----------
    work : callable
    *given
        Its arguments.
    said : Path
        File for what the process writes to standard error.
    failpoint : str
        See `failpoints.VARIABLE`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    process = context.Process(target=_begin, args=(work, given, said, failpoint))
    process.start()
    return process


def run_sections(cores: Path, bundle: Path, out: Path) -> None:
    """Process every section under `cores`."""
    from lithostream.engine.stream.runner import run

    run([cores], bundle, out, SETTINGS, lambda *_: None)


def command(*words: str) -> None:
    """Run the command line."""
    from lithostream.engine.cli import main

    sys.argv = ["lithostream", *words]
    main()


def _begin(work: Callable[..., None], given: tuple[object, ...], said: Path, failpoint: str) -> None:
    with said.open("wb") as file:
        os.dup2(file.fileno(), 2)
    if failpoint:
        os.environ[VARIABLE] = failpoint
    work(*given)
