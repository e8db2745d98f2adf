"""The demo: a core whose truth is known, through the shipped bundle, and the errors stated."""

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import SyntheticCore, generate, write
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.report.run_report import write_report
from lithostream.engine.stream.runner import Progress, run
from lithostream.engine.stream.section_folder import INTERVALS

# Unlike every training core: those are drawn from seeds of 1000 and above.
SEED = 7
LENGTH_CM, WIDTH_CM, PX_PER_CM = 100.0, 8.0, 40.0

Columns = dict[str, npt.NDArray[np.float64]]
Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the demo found.

    Attributes
    ----------
    report : Path
        The HTML report.
    errors : dict of str to float
        Mean absolute error against the truth per property, in its unit, and `abundance` in volume %.
    spreads : dict of str to float
        Mean absolute deviation of the truth from its mean: the error of knowing only the average.
    coverage : dict of str to float
        Share of intervals whose truth lies in the stated 90 % interval.
    exit_code : int
    """

    report: Path
    errors: dict[str, float]
    spreads: dict[str, float]
    coverage: dict[str, float]
    exit_code: int

    def table(self) -> Table:
        """Errors as a table for the terminal."""
        table = Table(title="mean absolute error against the truth of the generated core")
        for heading in ("quantity", "error", "of the mean", "in 90 % band"):
            table.add_column(heading, justify="left" if heading == "quantity" else "right")
        for name, error in self.errors.items():
            unit = TARGETS[name].unit if name in TARGETS else "volume %"
            covered = f"{self.coverage[name]:.0%}" if name in self.coverage else ""
            table.add_row(
                f"{name.replace('_', ' ')}, {unit}", f"{error:.3g}", f"{self.spreads[name]:.3g}", covered
            )
        return table

    def as_json(self) -> dict[str, object]:
        """Everything as a JSON-ready mapping."""
        return {
            "report": str(self.report),
            "errors": self.errors,
            "errors_of_the_mean": self.spreads,
            "coverage": self.coverage,
        }


def run_demo(out: Path, progress: Progress) -> DemoOutcome:
    """Generate the demo core, run it, compare with its truth, and write the report."""
    core = generate(SEED, length_cm=LENGTH_CM, width_cm=WIDTH_CM, px_per_cm=PX_PER_CM)
    image = write(core, out / "input")
    with as_file(files("lithostream.engine") / "demo_bundle") as bundle:
        record = run([image], bundle, out / "run", RunSettings(refine=True), progress)
    table = pq.read_table(out / "run" / str(record.sections[0]["folder"]) / INTERVALS)
    found = {
        name: np.asarray(table[name].to_numpy(zero_copy_only=False), np.float64) for name in _numeric(table)
    }
    truth = core.truth_at(found["top_cm"], found["base_cm"])
    report = write_report(out / "run", truth={core.name: truth})
    errors, spreads, coverage = _errors(core, found, truth)
    return DemoOutcome(report, errors, spreads, coverage, record.exit_code)


def _numeric(table: pa.Table) -> list[str]:
    return [field.name for field in table.schema if pa.types.is_floating(field.type)]


def _errors(core: SyntheticCore, found: Columns, truth: Columns) -> tuple[Scores, Scores, Scores]:
    """Errors, errors of the mean, and coverage, over the intervals that are all core."""
    errors, spreads, coverage = {}, {}, {}
    whole = truth["core_share"] > 0.999
    for name in (name for name in TARGETS if name in truth):
        value, true = found[name][whole], truth[name][whole]
        errors[name] = float(np.nanmean(np.abs(value - true)))
        spreads[name] = float(np.mean(np.abs(true - true.mean())))
        inside = (found[f"{name}_low"][whole] <= true) & (true <= found[f"{name}_high"][whole])
        coverage[name] = float(np.mean(inside[np.isfinite(value)]))
    names = [f"{name}_volume_pct" for name in core.endmembers.names]
    true = np.stack([truth[name][whole] for name in names])
    value = np.stack([found[f"{name}_vol_pct"][whole] for name in core.endmembers.names])
    errors["abundance"] = float(np.nanmean(np.abs(value - true)))
    spreads["abundance"] = float(np.mean(np.abs(true - true.mean(axis=1, keepdims=True))))
    return errors, spreads, coverage
