"""What a section's interval table amounts to: notices, facts, and one row per property and mineral."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lithostream.engine.core.tables import (
    DRY_WEIGHT_PCT,
    VOLUME_PCT,
    WIDTH_PCT,
    flags_of,
    floats_of,
    minerals_of,
    targets_of,
)
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.report.content import ReportSection
from lithostream.engine.report.figure import spans

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence that a reader must not miss, and how loud it is."""

    level: Literal["plain", "warn", "stop"]
    text: str


def notices(table: pa.Table) -> list[Notice]:
    """Say what limits the use of a section's values, the gravest first."""
    flags = {name: flags_of(table, name) for name in ("out_of_domain", "no_core", "underdetermined")}
    said = []
    if flags["out_of_domain"].any():
        text = f"Out of domain: values are flagged and no mineral % is given. {_where(table, flags['out_of_domain'])}"
        said.append(Notice("stop", text))
    if flags["underdetermined"].any():
        text = (
            "Minerals are underdetermined: there are fewer independent measurements than minerals, so other mixtures "
            f"fit as well; the table below says how far they range. {_where(table, flags['underdetermined'])}"
        )
        said.append(Notice("warn", text))
    if flags["no_core"].any():
        said.append(Notice("plain", f"No core: left blank. {_where(table, flags['no_core'])}"))
    return said


def _where(table: pa.Table, flag: Bools) -> str:
    top, base = floats_of(table, "top_cm"), floats_of(table, "base_cm")
    if flag.all():
        return f"All {len(flag)} intervals."
    runs = [f"{round(first, 1):g} to {round(last, 1):g} cm" for first, last in spans(top, base, flag)]
    shown = ", ".join(runs[:6]) + (f" and {len(runs) - 6} further stretches" if len(runs) > 6 else "")
    return f"{flag.sum()} of {len(flag)} intervals: {shown}."


def section_facts(section: ReportSection) -> dict[str, str]:
    """Rows of the facts table."""
    table = section.intervals
    top, base = floats_of(table, "top_cm"), floats_of(table, "base_cm")
    first = {name: table[name][0].as_py() for name in ("hole", "depth_scale", "depth_method", "scale_source")}
    facts = {
        "Section offset": f"{round(top.min(), 1):g} to {round(base.max(), 1):g} cm, {len(top)} intervals"
    }
    if first["hole"] is not None:
        facts["Hole"] = first["hole"]
    hole_m = np.append(floats_of(table, "top_m"), floats_of(table, "base_m"))
    if np.isfinite(hole_m).any():
        facts["Hole depth"] = f"{np.nanmin(hole_m):.8g} to {np.nanmax(hole_m):.8g} m"
        facts["Depth scale"] = first["depth_scale"] or "not named"
    else:
        facts["Hole depth"] = "not known"
    if first["depth_method"] is not None:
        facts["Depth method"] = first["depth_method"]
    scale = floats_of(table, "px_per_cm")[0]
    facts["Image scale"] = f"{scale:.6g} px/cm, from: {first['scale_source']}"
    covered = np.average(floats_of(table, "core_fraction"), weights=base - top)
    facts["Core in the picture"] = f"{covered:.1%} of its area"
    return facts | dict(section.facts)


def property_table(section: ReportSection) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, one per property, over the intervals inside the domain.

    Where a sensor log or the truth is known, the last columns compare the prediction with it.
    """
    table, known = section.intervals, ~flags_of(section.intervals, "out_of_domain")
    names = targets_of(table)
    nothing = np.full(len(known), np.nan)
    references = {
        "sensor log": {name: floats_of(table, f"{name}_measured") for name in names},
        "truth": {name: section.true_properties.get(name, nothing) for name in names},
    }
    used = [what for what, values in references.items() if np.isfinite(list(values.values())).any()]
    heading = ["", "intervals", "median", "5th to 95th percentile", "± of the 90 % interval"]
    for what in used:
        heading += [f"mean absolute difference to {what}", f"{what} in the 90 % interval"]
    rows = []
    for name in names:
        value, low, high = (
            np.where(known, floats_of(table, name + part), np.nan) for part in ("", "_low", "_high")
        )
        present = value[np.isfinite(value)]
        row = [f"{TARGETS[name].label}, {TARGETS[name].unit}", str(len(present)), _quantiles(present, 0.5)]
        row += [_quantiles(present, 0.05, 0.95), _mean((high - low) / 2.0)]
        for what in used:
            row += _agreement(value, low, high, references[what][name])
        rows.append(row)
    return heading, rows


def mineral_table(section: ReportSection) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, one per mineral that has an answer in some interval."""
    table = section.intervals
    heading = ["", "intervals", "volume %", "dry weight %", "range of equally good answers, volume %"]
    rows = []
    for name in minerals_of(table):
        columns = [floats_of(table, name + part) for part in (VOLUME_PCT, DRY_WEIGHT_PCT, WIDTH_PCT)]
        answered = int(np.isfinite(columns[0]).sum())
        if answered:
            rows.append(
                [
                    name.replace("_", " "),
                    str(answered),
                    *(_mean(column, "{:.1f}".format) for column in columns),
                ]
            )
    return heading, rows


def _agreement(value: Floats, low: Floats, high: Floats, reference: Floats) -> list[str]:
    compared = np.isfinite(value) & np.isfinite(reference)
    if not compared.any():
        return [_UNKNOWN, _UNKNOWN]
    inside = ((low <= reference) & (reference <= high))[compared].mean()
    return [_mean(np.abs(value - reference)), f"{inside:.0%} of {compared.sum()}"]


def _quantiles(values: Floats, *shares: float) -> str:
    return " to ".join(map(_number, np.quantile(values, shares))) if len(values) else _UNKNOWN


def _mean(values: Floats, show: Callable[[float], str] | None = None) -> str:
    known = values[np.isfinite(values)]
    return (show or _number)(float(known.mean())) if len(known) else _UNKNOWN


def _number(value: float) -> str:
    """Four significant digits, never an exponent, at most three decimals."""
    digits = 3 - int(np.floor(np.log10(abs(value)))) if value else 0
    return f"{value:,.{min(max(digits, 0), 3)}f}"
