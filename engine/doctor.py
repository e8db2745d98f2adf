"""What can run on this machine, what to install for more, and what `auto` would pick for a bundle."""

import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import Backend, RunSettings
from lithostream.engine.errors import LithostreamError
from lithostream.engine.inference import open_session
from lithostream.engine.inference.choose import Measured, choose, measure
from lithostream.engine.inference.runtimes import BACKENDS, PACKAGES, missing
from lithostream.engine.machine import cpu_model, gpus, usable_cores, versions
from lithostream.engine.manifest import Precision


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackendState(_Model):
    """One backend.

    Attributes
    ----------
    backend : str
        As in `--backend`.
    missing : str, optional
        What to install, or why it cannot run here; none where it can.
    versions : dict of str to str
        Of its packages that are installed.
    measured : Measured, optional
        With a bundle, where it can run.
    """

    backend: Backend
    missing: str | None
    versions: dict[str, str]
    measured: Measured | None = None

    @property
    def problem(self) -> str:
        """Why it cannot run here or may not serve, or nothing."""
        return self.missing or (self.measured.problem if self.measured else "")

    def cells(self) -> list[str]:
        """Its row of the table."""
        state = "not here" if self.missing else "left out" if self.problem else "usable"
        cells = [self.backend, state, ", ".join(f"{name} {found}" for name, found in self.versions.items())]
        if self.measured is None or self.problem:
            return [*cells, "", ""]
        found = self.measured
        return [*cells, f"{found.tiles_per_s:.3g}", f"{found.deviation:.2g} of {found.allowed:.2g}"]


class Findings(_Model):
    """All that `lithostream doctor` tells; printed as JSON it is one object of these names.

    Attributes
    ----------
    cpu : str
    cores : int
        That this process may use.
    gpus : tuple of str
        That the NVIDIA driver lists.
    versions : dict of str to str
    backends : tuple of BackendState
    precision : str, optional
        Measured with a bundle.
    picks : str, optional
        With a bundle: the session that `auto` opens.
    why : str
        Or why it opens none.
    notes : tuple of str
    """

    cpu: str
    cores: int
    gpus: tuple[str, ...]
    versions: dict[str, str]
    backends: tuple[BackendState, ...]
    precision: Precision | None = None
    picks: str | None = None
    why: str = ""
    notes: tuple[str, ...] = ()

    def renderables(self) -> list[RenderableType]:
        """For the terminal."""
        gpu = ", ".join(self.gpus) or "none"
        packages = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        table = Table("backend", "state", "installed")
        if self.precision:
            table.add_column("tiles/s", justify="right")
            table.add_column("golden deviation", justify="right")
        for one in self.backends:
            table.add_row(*(Text(cell) for cell in one.cells()[: len(table.columns)]))
        said: list[RenderableType] = [
            Text(f"CPU {self.cpu}, {self.cores} cores; GPU {gpu}"),
            Text(packages),
            table,
            *(Text(f"{one.backend}: {one.problem}") for one in self.backends if one.problem),
        ]
        if self.precision:
            said.append(Text(f"auto picks {self.picks or 'nothing'} for {self.precision}: {self.why}"))
        return said + [Text(note) for note in self.notes]


def examine(bundle_path: Path | None = None, precision: Precision = "fp32") -> Findings:
    """Look at this machine, and with a bundle measure every backend that can run here.

    `auto` picks as it does in a run: by the measurement it has kept, not by the one shown beside it.

    Raises
    ------
    BundleError
        The bundle is not whole.
    """
    bundle = load_bundle(bundle_path) if bundle_path else None
    states = []
    for name in BACKENDS:
        reason = missing(name)
        found = _measured(name, bundle, precision) if bundle and reason is None else None
        states.append(
            BackendState(backend=name, missing=reason, versions=versions(PACKAGES[name]), measured=found)
        )
    findings = Findings(
        cpu=cpu_model(),
        cores=usable_cores(),
        gpus=gpus(),
        versions={"python": platform.python_version(), **versions(("lithostream", "numpy", "onnx"))},
        backends=tuple(states),
    )
    return findings.model_copy(update=_picked(bundle, precision)) if bundle else findings


def _measured(name: Backend, bundle: Bundle, precision: Precision) -> Measured:
    settings = RunSettings()
    return measure(name, bundle, settings.batch, settings.threads, precision)


def _picked(bundle: Bundle, precision: Precision) -> dict[str, object]:
    settings = RunSettings(precision=precision)
    try:
        choice = choose(bundle, batch=settings.batch, threads=settings.threads, precision=precision)
        session = open_session(bundle, batch=settings.batch, threads=settings.threads, precision=precision)
    except LithostreamError as error:
        return {"precision": precision, "why": str(error)}
    return {
        "precision": precision,
        "picks": session.backend,
        "why": choice.why,
        "notes": tuple(session.notes),
    }
