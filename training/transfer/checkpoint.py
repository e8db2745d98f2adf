"""What `lithostream train transfer` leaves: every model as arrays, and a record of the study."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lithostream.engine.config import StrictModel
from lithostream.engine.errors import BundleError
from lithostream.training.checkpoint import DataFile
from lithostream.training.transfer.config import TransferConfig
from lithostream.training.transfer.features import Logarithms
from lithostream.training.transfer.final import Distance, Final
from lithostream.training.transfer.members import Arrays, Kind, arrays_of, kind_of

RECORD, TABLE, TABLE_TEXT, MAPPED = "transfer.json", "table.json", "table.md", "unlabelled.csv"
FIX = "give the folder that `lithostream train transfer` wrote"


class StoredModel(StrictModel):
    """One model: the kinds of its members, and what its scores mean.

    Attributes
    ----------
    members : tuple of str
        See `members.arrays_of`; the arrays lie in `<name>.safetensors`, as `<number>.<array>`.
    calibration : (float, float)
        Slope and intercept.
    """

    members: tuple[Kind, ...]
    calibration: tuple[float, float]
    threshold: float


class TransferRecord(StrictModel):
    """`transfer.json`.

    Attributes
    ----------
    winner : str
        The model that `lithostream export` takes where none is named.
    models : dict of name to StoredModel
    distance_limit : float
    logarithmic : (tuple of int, tuple of float)
        Columns that also enter as logarithms, and their scales.
    to_components : (list of P lists, list)
        Matrix and offset that give the published components.
    files : tuple of DataFile
        What was learned from.
    spread : tuple of C float
        Standard deviations of the components of the labelled rows.
    row_hashes : tuple of tuple of str
        Fingerprints of the rows that were learned from, by which an evaluation finds them again, see `alike`.
    notes : tuple of str
    metrics : dict
        Of each model at the most and the fewest deposits.
    """

    config: TransferConfig
    winner: str
    models: dict[str, StoredModel]
    distance_limit: float
    logarithmic: tuple[tuple[int, ...], tuple[float, ...]]
    to_components: tuple[list[list[float]], list[float]]
    files: tuple[DataFile, ...]
    spread: tuple[float, ...]
    row_hashes: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    metrics: dict[str, dict[str, dict[str, tuple[float, float, float]]]]
    versions: dict[str, str]

    @property
    def logarithms(self) -> Logarithms:
        """What extends the predictors."""
        return Logarithms(*self.logarithmic)


class LoadedModel:
    """A stored model, ready to be turned into a graph.

    Attributes
    ----------
    stored : StoredModel
    members : list of dict of name to array
    weights : float32 [M]
    distance : (float32 [P], float32 [P, P])
        Mean and matrix, see `final.Distance`.
    """

    def __init__(self, stored: StoredModel, tensors: Arrays) -> None:
        self.stored = stored
        self.members: list[Arrays] = [
            {
                name.split(".", 1)[1]: array
                for name, array in tensors.items()
                if name.split(".", 1)[0] == str(number)
            }
            for number in range(len(stored.members))
        ]
        self.weights = tensors["weights"]
        self.distance = tensors["distance.mean"], tensors["distance.matrix"]
        self.golden_rows = tensors["golden.rows"]
        self.golden_probability = tensors["golden.probability"]


def stored(final: Final) -> StoredModel:
    """Describe a model."""
    kinds = tuple(kind_of(member) for member in final.members)
    return StoredModel(members=kinds, calibration=final.calibration, threshold=final.threshold)


def model_bytes(final: Final, distance: Distance, golden: npt.NDArray[np.float32], logs: Logarithms) -> bytes:
    """Arrays of a model as a safetensors file, with what it says of golden rows [G, P]."""
    tensors: Arrays = {
        "weights": final.weights.astype(np.float32),
        "distance.mean": distance.mean.astype(np.float32),
        "distance.matrix": distance.matrix.astype(np.float32),
        "golden.rows": golden,
        "golden.probability": final.predict(logs.extend(golden.astype(np.float64)))[0],
    }
    for number, member in enumerate(final.members):
        tensors |= {f"{number}.{name}": array for name, array in arrays_of(member).items()}
    content: bytes = save({name: np.array(array, order="C") for name, array in tensors.items()})
    return content


def is_transfer(folder: Path) -> bool:
    """Tell whether a checkpoint is one of the transfer study."""
    return (folder / RECORD).is_file()


def load_record(folder: Path) -> TransferRecord:
    """Read the record of a checkpoint.

    Raises
    ------
    BundleError
        It is missing or damaged.
    """
    file = folder / RECORD
    try:
        return TransferRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"cannot be read: {error}", file=file, fix=FIX) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(first["msg"], file=file, place=place, fix=FIX) from error


def load_model(folder: Path, record: TransferRecord, name: str) -> LoadedModel:
    """Read one model of a checkpoint.

    Raises
    ------
    BundleError
        There is none of that name, or its file is damaged.
    """
    if name not in record.models:
        raise BundleError(
            f"no model {name!r}",
            file=folder / RECORD,
            place="models",
            fix=f"known: {', '.join(record.models)}",
        )
    file = folder / f"{name}.safetensors"
    try:
        return LoadedModel(record.models[name], load(file.read_bytes()))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"cannot be read: {error}", file=file, fix=FIX) from error
