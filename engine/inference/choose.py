"""Which backend serves: the fastest that meets the golden cases, measured once on each machine.

Two backends differ in their last digits, and two measurements in their times. So that two runs give the same
bytes, the choice is kept and made again only when bundle, precision, versions or machine change; batch and
threads, which never change a result, are none of its keys. ONNX Runtime on the CPU, the oracle, stays unless another
is faster by a clear margin.
"""

import hashlib
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lithostream.engine.bundle import Bundle
from lithostream.engine.cache import private_folder
from lithostream.engine.config import AnyBackend, Backend
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError
from lithostream.engine.inference import Session, require_one_runtime
from lithostream.engine.inference.runtimes import BACKENDS, ORACLE, PACKAGES, call_sizes, missing, open_gated
from lithostream.engine.machine import cpu_model, gpus, versions
from lithostream.engine.manifest import Precision

MARGIN = 1.1  # the oracle stays unless another is so many times faster
PASSES = 5
MEASURED_BATCH = 64  # at most: what a larger one would gain is little, what it costs in time is not
CACHE = "backends"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Model):
    """One backend on the golden tiles.

    Attributes
    ----------
    backend : str
        As in the settings.
    runtime : str
        Name and version as the session gives them; empty where none could be opened.
    tiles_per_s : float
        Median of several passes; 0 where it may not serve.
    deviation, allowed : float
        On the golden cases, in standard deviations over them; 0 where it may not serve.
    problem : str
        Why it may not serve, or nothing.
    """

    backend: Backend
    runtime: str = ""
    tiles_per_s: float = 0.0
    deviation: float = 0.0
    allowed: float = 0.0
    problem: str = ""


class Choice(_Model):
    """What serves.

    Attributes
    ----------
    order : tuple of str
        The backends that may serve, the chosen one first.
    why : str
        One sentence for a person.
    notes : tuple of str
        Of backends that could run here but may not serve: why, with the numbers.
    """

    order: tuple[Backend, ...]
    why: str
    notes: tuple[str, ...] = ()


class _Kept(_Model):
    """A choice on disk, with all that it depends on."""

    key: dict[str, str]
    choice: Choice


def choose(
    bundle: Bundle, *, batch: int, threads: int, backend: AnyBackend = "auto", precision: Precision = "fp32"
) -> Choice:
    """Choose what serves; the parameters are those of `open_session`.

    Raises
    ------
    BackendError
        No runtime is installed, or the one asked for cannot run here.
    BundleError
        None of several meets the golden cases. That a single one does is left to its opening.
    """
    reasons = {name: missing(name) for name in BACKENDS}
    if backend != "auto":
        if reasons[backend] is not None:
            raise BackendError(
                f"{backend} cannot run here: {reasons[backend]}",
                fix="do so, or choose another --backend; `lithostream doctor` tells which can run",
            )
        return Choice(order=(backend,), why="asked for")
    usable = [name for name, reason in reasons.items() if reason is None]
    builds = set(versions(PACKAGES[ORACLE]))
    if len(builds) > 1:
        require_one_runtime(builds)  # never silently without the oracle
    if not usable:
        raise BackendError(f"no inference runtime: {reasons[ORACLE]}", fix="pip install 'lithostream[cpu]'")
    if len(usable) == 1:
        return Choice(order=(usable[0],), why="the only one that can run here")
    key = _key(bundle, precision, usable)
    try:
        path = private_folder(CACHE) / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
        kept = _read(path, key)
        if kept is None:
            measured = [measure(name, bundle, batch, threads, precision) for name in usable]
            kept = _keep(path, key, rank(measured, bundle.path))
    except (BackendError, OSError) as error:
        return _unkept(usable, error)
    return kept


def measure(name: Backend, bundle: Bundle, batch: int, threads: int, precision: Precision) -> Measured:
    """Hold a backend that can run here to the golden cases, and time it on a batch of their tiles."""
    problem, together = "", min(batch, MEASURED_BATCH)
    for size in call_sizes(name, together):
        try:
            gated = open_gated(name, bundle, batch=size, threads=threads, precision=precision)
            return Measured(
                backend=name,
                runtime=gated.session.backend,
                tiles_per_s=together / _seconds(gated.session, bundle, together),
                deviation=gated.deviation,
                allowed=gated.allowed,
            )
        except BackendMemoryError as error:
            problem = error.reason
        except (BackendError, BundleError) as error:
            return Measured(backend=name, problem=error.reason)
    return Measured(backend=name, problem=problem)


def _seconds(session: Session, bundle: Bundle, count: int) -> float:
    """Median time of as many tiles; the golden cases have warmed the session up."""
    tiles = bundle.golden_tiles[np.arange(count) % len(bundle.golden_tiles)]
    times = []
    for _ in range(PASSES):
        start = perf_counter()
        session.infer(tiles)
        times.append(perf_counter() - start)
    return statistics.median(times)


def rank(measured: Sequence[Measured], bundle: Path) -> Choice:
    """Order the backends that may serve by speed, the oracle before any that is not clearly faster.

    Raises
    ------
    BundleError
        None may serve.
    """
    speed = {one.backend: one.tiles_per_s for one in measured if not one.problem}
    notes = tuple(f"{one.backend} left out: {one.problem}" for one in measured if one.problem)
    if not speed:
        raise BundleError(
            "no backend can serve: " + "; ".join(notes),
            file=bundle,
            fix="use other runtime versions, or export the bundle again",
        )
    handicap = {name: MARGIN if name == ORACLE else 1.0 for name in speed}
    order = sorted(speed, key=lambda name: speed[name] * handicap[name], reverse=True)
    listed = ", ".join(f"{name} {speed[name]:.3g}" for name in order)
    margin = f" ({MARGIN:g} times as fast as {ORACLE} is asked for)" if ORACLE in speed else ""
    return Choice(order=tuple(order), why=f"tiles/s when measured: {listed}{margin}", notes=notes)


def _unkept(usable: Sequence[Backend], error: Exception) -> Choice:
    """Choose without measuring, for where a choice cannot be kept it must come out the same each time."""
    order = tuple(sorted(usable, key=lambda name: name != ORACLE))
    note = f"backends not measured, a choice could not be kept: {error}"
    return Choice(order=order, why="the first that can run here, for a choice cannot be kept", notes=(note,))


def _key(bundle: Bundle, precision: Precision, usable: Sequence[Backend]) -> dict[str, str]:
    packages = sorted({package for name in usable for package in PACKAGES[name]})
    return {
        "bundle": bundle.sha256,
        "precision": precision,
        "backends": ", ".join(usable),
        "versions": str({"lithostream": version("lithostream"), **versions(packages)}),
        "cpu": cpu_model(),
        "gpus": ", ".join(gpus()),
    }


def _read(path: Path, key: dict[str, str]) -> Choice | None:
    """Return what was kept under this very key, or None where nothing whole was."""
    try:
        kept = _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return kept.choice if kept.key == key and kept.choice.order else None


def _keep(path: Path, key: dict[str, str], choice: Choice) -> Choice:
    """Keep a choice, unless another process was first: then return its choice."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent) as made:
        made.write(_Kept(key=key, choice=choice).model_dump_json())
        made.flush()
        try:
            os.link(made.name, path)
        except FileExistsError:
            first = _read(path, key)
            if first is not None:
                return first
            path.unlink(missing_ok=True)  # damaged
            os.link(made.name, path)
    return choice
