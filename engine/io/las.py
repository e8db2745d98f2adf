"""LAS 2.0: the interval table of one section as a well log that any log viewer opens."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lithostream.engine.core.tables import (
    FLAGS,
    VOLUME_PCT,
    flags_of,
    floats_of,
    minerals_of,
    provenance_of,
    targets_of,
)
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import ScaleError
from lithostream.kernels.errors import ContractError

Floats = npt.NDArray[np.float64]

NULL = -999.25
_DECIMALS = 5
_FLAG_MNEMONICS = dict(zip(FLAGS, ("OOD", "NOCORE", "PARTIAL", "SECEND", "UNDERDET"), strict=True))


def write_las(intervals: pa.Table, path: Path) -> None:
    """Write one section's interval table as LAS 2.0; equal tables give equal bytes.

    Depth is the middle of each interval: hole depth where it is known, else the section offset, both in m.
    Properties come with the ends of their 90 % interval, minerals as bulk volume %, flags as 0 and 1.

    Parameters
    ----------
    intervals : pa.Table
        An interval table (`engine.core.tables`) of one section.
    path : Path
        File to write.

    Raises
    ------
    ScaleError
        Depth does not increase from row to row, or only some rows have a hole depth.
    ContractError
        The table holds no row, or several sections.
    OSError
        The file cannot be written.
    """
    import lasio

    section, hole = _one(intervals, "section"), _one(intervals, "hole")
    depth, label = _depth_m(intervals, path)
    las = lasio.LASFile()
    las.well["NULL"].value = NULL
    las.well["WELL"].value = _plain(hole or section or "")
    las.well.append(lasio.HeaderItem("SECT", "", _plain(section or ""), "CORE SECTION"))
    for name, value in provenance_of(intervals).items():
        las.params.append(lasio.HeaderItem(_mnemonic(name), "", _plain(value), _plain(name)))
    curves = [("DEPT", "M", label, depth), *_curves(intervals)]
    mnemonics = [mnemonic for mnemonic, *_ in curves]
    if len(set(mnemonics)) < len(mnemonics):
        raise ContractError(f"intervals: expected distinct LAS mnemonics, got {sorted(mnemonics)}")
    for mnemonic, unit, label, values in curves:
        las.append_curve(mnemonic, values, unit=unit, descr=_plain(label))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        las.write(file, version=2.0, wrap=False, fmt=f"%.{_DECIMALS}f", STEP=_step(depth))


def _curves(table: pa.Table) -> Iterator[tuple[str, str, str, Floats]]:
    """Yield mnemonic, unit, description and values; LAS ends a unit at a blank, so it holds none."""
    for name in targets_of(table):
        target = TARGETS[name]
        unit = target.unit.replace(" ", "")
        for suffix, which in (("", ""), ("_low", ", low end of 90 %"), ("_high", ", high end of 90 %")):
            values = floats_of(table, f"{name}{suffix}")
            yield f"{target.las}{suffix.upper()}", unit, f"{target.label}{which}", values
    for name in minerals_of(table):
        label = f"{name.replace('_', ' ')}, bulk volume"
        yield _mnemonic(name), "%", label, floats_of(table, f"{name}{VOLUME_PCT}")
    for name, mnemonic in _FLAG_MNEMONICS.items():
        yield mnemonic, "", f"flag {name.replace('_', ' ')}", flags_of(table, name).astype(np.float64)


def _depth_m(table: pa.Table, path: Path) -> tuple[Floats, str]:
    """Middle of each interval as written, m [N], and what kind of depth it is."""
    middle = (floats_of(table, "top_m") + floats_of(table, "base_m")) / 2.0
    unknown = np.isnan(middle)
    if unknown.all():
        middle = (floats_of(table, "top_cm") + floats_of(table, "base_cm")) / 200.0
        label = "section offset, middle of the interval"
    elif unknown.any():
        raise ScaleError(
            f"{unknown.sum()} of {len(unknown)} intervals have no hole depth",
            file=path,
            place=f"interval {unknown.argmax()}",
            fix="give the hole depth of the whole section, or of none of it",
        )
    else:
        label = f"hole depth {_one(table, 'depth_scale') or ''}".rstrip() + ", middle of the interval"
    depth = np.round(middle, _DECIMALS)
    falls = np.diff(depth) <= 0
    if falls.any():
        row = int(falls.argmax())
        raise ScaleError(
            f"depth goes from {depth[row]} m to {depth[row + 1]} m; LAS needs it to increase",
            file=path,
            place=f"interval {row + 1}",
            fix="check the depths in the manifest or sidecar; the Parquet tables hold the same rows",
        )
    return depth, label


def _step(depth: Floats) -> float:
    """Depth step where STRT + k STEP gives every depth as written, else 0 as LAS asks."""
    if len(depth) < 2:
        return 0.0
    step = float(np.round((depth[-1] - depth[0]) / (len(depth) - 1), _DECIMALS))
    uniform = np.abs(depth[0] + step * np.arange(len(depth)) - depth).max() < 1.5 * 10.0**-_DECIMALS
    return step if uniform else 0.0


def _one(table: pa.Table, name: str) -> str | None:
    """Return the one value of a text column."""
    values: list[str | None] = table[name].unique().to_pylist()
    if len(values) != 1:
        raise ContractError(f"intervals: expected one {name}, got {len(values)}")
    return values[0]


def _mnemonic(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name.upper())


def _plain(text: str) -> str:
    """One header line holds one text: LAS ends it at a line break and splits it at a colon."""
    return " ".join(text.replace(":", " ").split())
