"""The three tables of a section as data: columns with type, unit and meaning, and their Arrow form."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lithostream.engine.core.measured import PROPERTIES
from lithostream.engine.core.targets import TARGETS
from lithostream.kernels.errors import ContractError

Column = npt.NDArray[Any]

SCHEMA_VERSION = 1
VOLUME_PCT, DRY_WEIGHT_PCT, WIDTH_PCT = "_vol_pct", "_dry_wt_pct", "_width_pct"
VOLUME_LOW_PCT, VOLUME_HIGH_PCT = "_vol_low_pct", "_vol_high_pct"
FLAGS = ("out_of_domain", "no_core", "partial", "section_end", "underdetermined")

_F64, _I32, _I64 = pa.float64(), pa.int32(), pa.int64()
_TEXT, _BOOL = pa.string(), pa.bool_()


@dataclass(frozen=True, slots=True)
class Field:
    """One column.

    Attributes
    ----------
    name : str
        Column name.
    type : pa.DataType
        Arrow type.
    unit : str
        Unit of its values; empty for names, counts and flags.
    description : str
        One line for a reader who has only the file.
    nullable : bool
        Whether a value may be unknown; an unknown value of any other column is a defect.
    """

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = False

    def arrow(self) -> pa.Field:
        """Arrow field that carries unit and description."""
        metadata = {"unit": self.unit, "description": self.description}
        return pa.field(self.name, self.type, self.nullable, metadata)


def _value(name: str, unit: str, description: str) -> Field:
    return Field(name, _F64, unit, description, nullable=True)


_SECTION = Field("section", _TEXT, "", "name of the core section, unique in a run")
_TOP = Field("top_cm", _F64, "cm", "section offset of the top edge")
_BASE = Field("base_cm", _F64, "cm", "section offset of the base edge")
_LEFT = Field("left_cm", _F64, "cm", "left edge, from the left edge of the oriented image")
_RIGHT = Field("right_cm", _F64, "cm", "right edge, from the left edge of the oriented image")
_OUTSIDE = Field("out_of_domain", _BOOL, "", "unlike the training data: values are no basis for decisions")
_UNDERDETERMINED = Field(
    "underdetermined", _BOOL, "", "fewer independent measurements than minerals: other mixtures fit as well"
)
_RESIDUAL = _value(
    "unmixing_residual", "1", "misfit of the abundances, in standard deviations of the properties"
)

_INTERVAL_HEAD = (
    _SECTION,
    Field("hole", _TEXT, "", "name of the hole", nullable=True),
    Field("interval", _I32, "", "number of the interval from the top, from 0"),
    _TOP,
    _BASE,
    _value("top_m", "m", "hole depth of the top edge"),
    _value("base_m", "m", "hole depth of the base edge"),
    Field("depth_scale", _TEXT, "", "name of the hole depth scale", nullable=True),
    Field("depth_method", _TEXT, "", "how hole depth follows from section offset", nullable=True),
    Field("px_per_cm", _F64, "1/cm", "pixels per centimetre of the image"),
    Field("scale_source", _TEXT, "", "where px_per_cm came from"),
    Field("core_fraction", _F64, "1", "share of the interval's pixels that is core"),
    Field("tile_count", _I32, "", "tiles that touch the interval"),
)
_INTERVAL_FLAGS = (
    _OUTSIDE,
    Field("no_core", _BOOL, "", "no tile with enough core: no value is given"),
    Field(
        "lines_lost", _BOOL, "", "a line of the interval never arrived from the camera: black, and no core"
    ),
    Field("partial", _BOOL, "", "shorter than the interval step"),
    Field("section_end", _BOOL, "", "at a section end, of the picture or of the sensor log"),
    _UNDERDETERMINED,
)
_TILE_HEAD = (
    _SECTION,
    Field("tile_row", _I32, "", "row of the tile from the top, from 0"),
    Field("tile_col", _I32, "", "column of the tile from the left, from 0"),
    _TOP,
    _BASE,
    _LEFT,
    _RIGHT,
    Field("core_fraction", _F64, "1", "share of the tile's pixels that is core"),
)
_TILE_TAIL = (_value("ood_distance", "1", "embedding distance from the training data"), _OUTSIDE)
_SEGMENT_HEAD = (
    _SECTION,
    Field("segment", _I32, "", "number of the segment in its section, from 0"),
    Field("window", _I32, "", "window the segment begins in, from 0"),
    Field("parent", _I32, "", "segment that this one is a part of; -1 for none"),
    Field("area_px", _I64, "px", "pixels of the segment"),
    Field("centroid_cm", _F64, "cm", "section offset of the centroid"),
    Field("centroid_left_cm", _F64, "cm", "centroid, from the left edge of the oriented image"),
    _TOP,
    _BASE,
    _LEFT,
    _RIGHT,
    *(_value(c, "sRGB 0-255", f"mean {c} of the segment's pixels") for c in ("red", "green", "blue")),
    *(
        _value(f"{c}_std", "sRGB 0-255", f"standard deviation of {c} over the segment's pixels")
        for c in ("red", "green", "blue")
    ),
    *(
        _value(f"{c}_reflectance", "1", f"mean reflectance in linear-light {c}, where colours are calibrated")
        for c in ("red", "green", "blue")
    ),
)
_SOURCES = tuple(
    Field(
        f"{name}_source",
        _TEXT,
        "",
        f"where the {TARGETS[name].label} behind the minerals comes from: predicted, measured, mixed",
        nullable=True,
    )
    for name in PROPERTIES
)
_CONDITION = _value(
    "unmixing_condition", "1", "largest over smallest effect of a change of the mixture; null where infinite"
)
_SEGMENT_TAIL = (_RESIDUAL, _CONDITION, _OUTSIDE, _UNDERDETERMINED)


def interval_fields(targets: Sequence[str], minerals: Sequence[str]) -> tuple[Field, ...]:
    """Columns of the interval table, the rows a geologist reads."""
    values = [field for name in targets for field in _interval_target(name)]
    sources = _SOURCES if minerals else ()
    return (*_INTERVAL_HEAD, *values, *_interval_minerals(minerals), *sources, _RESIDUAL, *_INTERVAL_FLAGS)


def tile_fields(targets: Sequence[str]) -> tuple[Field, ...]:
    """Columns of the tile table."""
    return (*_TILE_HEAD, *map(_target, targets), *_TILE_TAIL)


def segment_fields(targets: Sequence[str], minerals: Sequence[str]) -> tuple[Field, ...]:
    """Columns of the segment table."""
    shares = [field for name in minerals for field in (_volume(name), *_volume_interval(name))]
    sources = _SOURCES if minerals else ()
    return (*_SEGMENT_HEAD, *map(_target, targets), *shares, *sources, *_SEGMENT_TAIL)


def _target(name: str) -> Field:
    target = TARGETS[name]
    return _value(name, target.unit, f"predicted {target.label}")


def _interval_target(name: str) -> Iterable[Field]:
    target = TARGETS[name]
    yield _target(name)
    yield _value(f"{name}_low", target.unit, f"lower end of the 90 % interval of {target.label}")
    yield _value(f"{name}_high", target.unit, f"upper end of the 90 % interval of {target.label}")
    yield _value(f"{name}_std", target.unit, f"spread of {target.label} between the interval's tiles")
    yield _value(f"{name}_measured", target.unit, f"{target.label} of the sensor log over the interval")


def _volume(mineral: str) -> Field:
    return _value(
        f"{mineral}{VOLUME_PCT}", "%", f"{_label(mineral)}, share of the bulk volume with its pore water"
    )


def _volume_interval(mineral: str) -> Iterable[Field]:
    yield _value(
        f"{mineral}{VOLUME_LOW_PCT}", "%", f"lower end of the 90 % interval of {mineral}{VOLUME_PCT}"
    )
    yield _value(
        f"{mineral}{VOLUME_HIGH_PCT}", "%", f"upper end of the 90 % interval of {mineral}{VOLUME_PCT}"
    )


def _interval_minerals(names: Sequence[str]) -> Iterable[Field]:
    for name in names:
        yield _volume(name)
        yield from _volume_interval(name)
        yield _value(f"{name}{DRY_WEIGHT_PCT}", "%", f"{_label(name)}, share of the dry weight")
        yield _value(
            f"{name}{WIDTH_PCT}", "%", f"range of {name}{VOLUME_PCT} over all answers that fit as well"
        )


def _label(mineral: str) -> str:
    return mineral.replace("_", " ")


def build_table(
    fields: Sequence[Field], columns: Mapping[str, Column], provenance: Mapping[str, str]
) -> pa.Table:
    """Turn arrays into an Arrow table of exactly these columns.

    Parameters
    ----------
    fields : sequence of Field
        Columns, in order.
    columns : mapping of str to array [N]
        One array per field; NaN in a float column is null, None in a text column is null.
    provenance : mapping of str to str
        Where the values come from (section, px_per_cm, scale_source, bundle hash, ...): the schema's metadata.

    Raises
    ------
    ContractError
        A column is missing, unknown, of the wrong type, shape or length, infinite, or null where a value is due.
    """
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise ContractError(f"fields: expected distinct names, got {sorted(names)}")
    if set(columns) != set(names):
        missing, unknown = sorted(set(names) - set(columns)), sorted(set(columns) - set(names))
        raise ContractError(f"columns: missing {missing}, unknown {unknown}")
    arrays = [_to_arrow(field, columns[field.name]) for field in fields]
    lengths = {field.name: len(array) for field, array in zip(fields, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        raise ContractError(f"columns: expected one length, got {lengths}")
    metadata = {"schema_version": str(SCHEMA_VERSION), **dict(sorted(provenance.items()))}
    return pa.Table.from_arrays(arrays, schema=pa.schema([field.arrow() for field in fields], metadata))


def _to_arrow(field: Field, values: Column) -> pa.Array:
    where = f"column {field.name!r}"
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise ContractError(f"{where}: expected an array [N], got {type(values).__name__} {np.shape(values)}")
    if values.dtype.kind not in _KINDS[field.type]:
        raise ContractError(f"{where}: expected {field.type}, got {values.dtype}")
    if field.type == _F64 and np.isinf(values).any():
        raise ContractError(f"{where}: expected finite or NaN, got inf in row {np.isinf(values).argmax()}")
    try:
        array = pa.array(values, type=field.type, from_pandas=True)  # NaN and None become null
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ContractError(f"{where}: expected {field.type}, got {error}") from error
    if array.null_count and not field.nullable:
        row = array.is_null().to_pylist().index(True)
        raise ContractError(f"{where}: expected a value in every row, got none in row {row}")
    return array


# NumPy kinds each Arrow type is built from: never a conversion that could change a value.
_KINDS = {_F64: "f", _I32: "iu", _I64: "iu", _TEXT: "OU", _BOOL: "b"}


def targets_of(table: pa.Table) -> tuple[str, ...]:
    """Names of the predicted properties in a table, in the order of `TARGETS`."""
    return tuple(name for name in TARGETS if name in table.column_names)


def minerals_of(table: pa.Table) -> tuple[str, ...]:
    """Names of the endmembers in a table, in column order."""
    return tuple(n.removesuffix(VOLUME_PCT) for n in table.column_names if n.endswith(VOLUME_PCT))


def provenance_of(table: pa.Table) -> dict[str, str]:
    """Where the values of a table come from."""
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def floats_of(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """One numeric column, null as NaN, float64 [N]."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)


def flags_of(table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """One flag column, bool [N]."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.bool_)
