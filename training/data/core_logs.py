"""Rows of depth from tables instead of images: logs of colour, CT and the like, beside a sensor log."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError, LogError
from lithostream.engine.io.log_table import read_table
from lithostream.engine.io.mscl import read_log
from lithostream.training.config import CoreLogs, InputLog, LogsConfig
from lithostream.training.data.labels import row_labels
from lithostream.training.data.profile import Profile

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LogRows:
    """R labelled rows of cores that are known by logs; one section per core, attributes as in `TileSet`."""

    targets: tuple[str, ...]
    sections: tuple[Section, ...]
    labels: Floats
    section: Ints
    top_cm: Floats
    base_cm: Floats
    place: Ints
    colour: Floats
    profile: Profile

    @property
    def measured(self) -> Floats:
        """Labels, all of them read by a sensor, float64 [R, T]."""
        return self.labels

    def mean_colour(self) -> Floats:
        """Return the inputs of each row, float64 [R, C]."""
        return self.colour


def read_rows(config: LogsConfig, folder: Path) -> LogRows:
    """Read the cores of a configuration whose paths start at `folder`.

    A row is the mean of the readings in it, and is left out where an input has none.

    Raises
    ------
    LogError
        A log cannot be read.
    ConfigError
        No row of any core has both inputs and a label.
    """
    parts = [_core(core, config, folder) for core in config.cores]
    known = [np.any(np.isfinite(part.labels), axis=1) for part in parts]
    if not any(part.any() for part in known):
        raise ConfigError(
            "no row has both inputs and a reading", place="cores", fix="check depths and columns"
        )
    numbers = [np.full(len(part.place), index) for index, part in enumerate(parts)]
    profile = Profile(
        np.concatenate(numbers),
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.colour for part in parts]),
    )
    keep, place = np.concatenate(known), profile.place
    return LogRows(
        targets=config.targets,
        sections=tuple(part.section for part in parts),
        labels=np.concatenate([part.labels for part in parts])[keep],
        section=profile.section[keep],
        top_cm=place[keep] * config.row_cm,
        base_cm=(place[keep] + 1) * config.row_cm,
        place=place[keep],
        colour=profile.colour[keep],
        profile=profile,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Core:
    """Rows of one core that have all inputs, labelled or not."""

    section: Section
    place: Ints
    colour: Floats
    labels: Floats


def _core(core: CoreLogs, config: LogsConfig, folder: Path) -> _Core:
    logs = [_readings(folder / one.file, one) for one in core.inputs]
    count = int(max(np.nanmax(depth) for depth, _ in logs) // config.row_cm) + 1
    colour = np.concatenate([_row_means(*log, config.row_cm, count) for log in logs], axis=1)
    place = np.flatnonzero(np.all(np.isfinite(colour), axis=1))
    top: Floats = place.astype(np.float64) * config.row_cm
    log = folder / core.log
    labels = row_labels(read_log(log), config.targets, top, top + config.row_cm, config.qc)
    section = Section(core.name, folder / core.inputs[0].file, 1.0 / config.row_cm, "manifest", log=log)
    return _Core(section, place, colour[place], labels.value)


def _readings(path: Path, log: InputLog) -> tuple[Floats, Floats]:
    """Depths in cm [N] and the wanted columns [N, C] of one table."""
    wanted = (log.depth, *log.columns)
    table = read_table(path, lambda cells: set(wanted) <= set(cells), lambda _cells: False)
    depth, *columns = (table.numbers(table.names.index(name)) for name in wanted)
    if not np.isfinite(depth).any() or np.nanmin(depth) < 0:
        raise LogError(
            "depths are missing or negative",
            file=path,
            place=f"column {log.depth!r}",
            fix="export the log again",
        )
    return depth, np.stack(columns, axis=1)


def _row_means(depth: Floats, values: Floats, row_cm: float, count: int) -> Floats:
    """Mean of the readings [N, C] in each row, float64 [count, C]; NaN where there is none."""
    known = np.isfinite(depth)
    row = (depth[known] // row_cm).astype(np.int64)
    return np.stack([_mean_by_row(row, channel, count) for channel in values[known].T], axis=1)


def _mean_by_row(row: Ints, value: Floats, count: int) -> Floats:
    known = np.isfinite(value)
    number = np.bincount(row[known], minlength=count)
    mean = np.full(count, np.nan)
    np.divide(np.bincount(row[known], value[known], minlength=count), number, out=mean, where=number > 0)
    return mean
