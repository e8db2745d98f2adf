"""The known minerals: density, elasticity, magnetism and colour of each endmember, with sources."""

import csv
import io
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import ConfigError

FloatArray = npt.NDArray[np.float64]

PORE_WATER = "pore_water"
# Unconsolidated marine sediment. Three measured properties and the sum give four equations for these
# five fractions: the answer is a set, and `unmix` reports its width.
SEDIMENT = (PORE_WATER, "quartz", "calcite", "illite", "magnetite")

_REQUIRED = ("density_g_cm3", "p_wave_velocity_m_s", "magnetic_susceptibility_1e-5_SI")
_OPTIONAL = ("bulk_modulus_GPa", "shear_modulus_GPa", "colour_r", "colour_g", "colour_b")
# Columns that a table may lack, each as a whole: a blank cell or no column is "not stated".
_GRAIN = ("grain_size_um", "grain_size_low_um", "grain_size_high_um")
_SPREAD = ("density_rel_std", "p_wave_velocity_rel_std", "susceptibility_rel_std", "colour_rel_std")
_POSITIVE = ("density_g_cm3", "p_wave_velocity_m_s", *_GRAIN, *_SPREAD)
_TABLE = "minerals.csv"


@dataclass(frozen=True, slots=True, eq=False)
class Endmembers:
    """Properties of E pure components.

    Attributes
    ----------
    names : tuple of str [E]
        Unique names.
    density : float64 [E]
        g/cm3.
    bulk_modulus, shear_modulus : float64 [E]
        GPa; NaN where the table has no value.
    p_wave_velocity : float64 [E]
        m/s.
    susceptibility : float64 [E]
        Volume magnetic susceptibility, 1e-5 SI.
    colour : float64 [E, 3]
        Reflectance of the dry powder in linear-light sRGB, 0..1; NaN where transparent or unknown.
    grain_size_um : float64 [E, 3], optional
        Typical size, and the low and high end of 90 % of the grains' sizes; NaN where not stated. None where
        the table has no such columns.
    spread : float64 [E, 4], optional
        Relative standard deviation of density, velocity, susceptibility and colour between samples of one
        endmember; NaN where not stated. None where the table has no such columns.
    """

    names: tuple[str, ...]
    density: FloatArray
    bulk_modulus: FloatArray
    shear_modulus: FloatArray
    p_wave_velocity: FloatArray
    susceptibility: FloatArray
    colour: FloatArray
    grain_size_um: FloatArray | None = None
    spread: FloatArray | None = None

    def subset(self, names: tuple[str, ...]) -> "Endmembers":
        """Return the endmembers called `names`, in that order.

        Raises
        ------
        ConfigError
            A name is unknown or given twice.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ConfigError(f"unknown endmember {unknown[0]!r}", fix=f"choose from {', '.join(self.names)}")
        if len(set(names)) != len(names):
            raise ConfigError(f"an endmember is named twice in {', '.join(names)}", fix="name each once")
        rows = [self.names.index(name) for name in names]
        return Endmembers(
            names=tuple(names),
            density=self.density[rows],
            bulk_modulus=self.bulk_modulus[rows],
            shear_modulus=self.shear_modulus[rows],
            p_wave_velocity=self.p_wave_velocity[rows],
            susceptibility=self.susceptibility[rows],
            colour=self.colour[rows],
            grain_size_um=None if self.grain_size_um is None else self.grain_size_um[rows],
            spread=None if self.spread is None else self.spread[rows],
        )


def load_endmembers(path: Path | None = None) -> Endmembers:
    """Read an endmember table.

    Parameters
    ----------
    path : Path, optional
        UTF-8 CSV with the columns of the table that ships with lithostream, which is read without it.
        Moduli and colour may be blank; the columns of grain sizes and of relative standard deviations may be
        blank or absent; further columns (formula, sources, notes) are free text.

    Raises
    ------
    ConfigError
        A column is missing, a cell is no finite number, a name is blank or repeated, or grain sizes are not
        low <= typical <= high.
    """
    if path is None:
        return _parse((files("lithostream.engine.core") / _TABLE).read_text(encoding="utf-8"), _TABLE)
    try:
        return _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise ConfigError(reason, file=path, fix="give the path of a readable CSV table") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            "is not UTF-8 text", file=path, place=f"byte {error.start}", fix="save the table as UTF-8 CSV"
        ) from error


def sediment_endmembers() -> Endmembers:
    """Return the default endmembers of unconsolidated sediment, `SEDIMENT`."""
    return load_endmembers().subset(SEDIMENT)


def _parse(text: str, file: str) -> Endmembers:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or []
    for column in ("name", *_REQUIRED, *_OPTIONAL):
        if column not in header:
            reason = f"column {column!r} is missing"
            raise ConfigError(reason, file=file, place="line 1", fix=f"add the column {column!r}")
    given = [set(block) <= set(header) for block in (_GRAIN, _SPREAD)]
    columns = (*_REQUIRED, *_OPTIONAL, *(_GRAIN if given[0] else ()), *(_SPREAD if given[1] else ()))
    names: list[str] = []
    values: list[list[float]] = []
    for row in reader:
        place = f"line {reader.line_num}"
        name = (row["name"] or "").strip()
        if not name or name in names:
            reason = f"name {name!r} appears twice" if name else "the name is blank"
            raise ConfigError(reason, file=file, place=place, fix="give every endmember its own name")
        if None in row:
            reason = "has more cells than the header"
            raise ConfigError(reason, file=file, place=place, fix="quote the cells that hold a comma")
        names.append(name)
        values.append([_number(row[column], column, file, place) for column in columns])
        if given[0]:
            _check_grains(values[-1][8:11], file, place)
    if not names:
        raise ConfigError("holds no endmember", file=file, fix="add one line per endmember")
    table = np.array(values, dtype=np.float64)
    density, velocity, susceptibility, bulk, shear = table.T[:5].copy()
    return Endmembers(
        tuple(names),
        density,
        bulk,
        shear,
        velocity,
        susceptibility,
        table[:, 5:8].copy(),
        table[:, 8:11].copy() if given[0] else None,
        table[:, -4:].copy() if given[1] else None,
    )


def _check_grains(sizes: list[float], file: str, place: str) -> None:
    typical, low, high = sizes
    if not (all(map(math.isnan, sizes)) or low <= typical <= high):
        reason = f"grain sizes {typical:g}, {low:g}, {high:g} um are not a value between low and high"
        raise ConfigError(
            reason, file=file, place=place, fix="give all three, low <= typical <= high, or none"
        )


def _number(cell: str | None, column: str, file: str, place: str) -> float:
    text = (cell or "").strip()
    where = f"{place}, column {column}"
    if not text:
        if column in (*_OPTIONAL, *_GRAIN, *_SPREAD):
            return math.nan
        raise ConfigError("the cell is blank", file=file, place=where, fix="give a number")
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a number", file=file, place=where, fix="give a number") from error
    if not math.isfinite(value) or (column in _POSITIVE and value <= 0):
        kind = "positive finite" if column in _POSITIVE else "finite"
        raise ConfigError(f"{text!r} is not a {kind} number", file=file, place=where, fix="correct the value")
    return value
