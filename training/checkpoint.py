"""A training checkpoint: weights without pickle, and a record of where they come from."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save_file

from lithostream.engine.bundle import read_depth_model
from lithostream.engine.config import StrictModel
from lithostream.engine.core.depth_model import DepthModel
from lithostream.engine.errors import BundleError
from lithostream.training.config import TrainConfig
from lithostream.training.data.tiles import TileSet
from lithostream.training.models.properties import PropertyNet
from lithostream.training.report import TargetReport

WEIGHTS, DEPTH, RECORD = "weights.safetensors", "depth.safetensors", "training.json"
CALIBRATION = "calibration.safetensors"
CALIBRATION_TILES, CALIBRATION_BYTES = 256, 8 << 20


class DataFile(StrictModel):
    """One file that was learned from."""

    name: str
    sha256: str


class TrainingRecord(StrictModel):
    """`training.json`.

    Attributes
    ----------
    config : TrainConfig
    seed : int
        Of the final model.
    rows, tiles : int
        Labelled rows and their tiles.
    best_epoch : int
        Of the final model; 0 is the linear start.
    metrics : dict of target to TargetReport
        Cross-validation.
    distance_limit : float
        Largest embedding distance that counts as known material.
    scanners, px_per_cm
        Instruments and the range of scales, a margin included.
    error_correlation : tuple of T tuples
        Of the out-of-fold residuals; empty in older checkpoints.
    data : tuple of DataFile
        Images and logs.
    versions : dict of package to version
    """

    config: TrainConfig
    seed: int
    rows: int
    tiles: int
    best_epoch: int
    metrics: dict[str, TargetReport]
    distance_limit: float
    scanners: tuple[str, ...]
    px_per_cm: tuple[float, float]
    error_correlation: tuple[tuple[float, ...], ...] = ()
    data: tuple[DataFile, ...]
    versions: dict[str, str]


def save_checkpoint(
    folder: Path,
    model: PropertyNet,
    depth_model: DepthModel | None,
    record: TrainingRecord,
    calibration: npt.NDArray[np.uint8],
) -> None:
    """Write weights, the depth model if there is one, calibration tiles [K, S, S, C] and the record into a folder."""
    (folder / CALIBRATION).write_bytes(save_arrays({"tiles": calibration}))
    if depth_model is not None:
        (folder / DEPTH).write_bytes(depth_model.to_bytes())
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    (folder / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> tuple[PropertyNet, TrainingRecord]:
    """Read a checkpoint.

    Raises
    ------
    BundleError
        A file is missing, damaged, or not of this version.
    """
    fix = "give the folder that `lithostream train properties` wrote"
    try:
        record = TrainingRecord.model_validate_json((folder / RECORD).read_bytes())
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"cannot be read: {error}", file=folder, fix=fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(first["msg"], file=folder / RECORD, place=place, fix=fix) from error
    config = record.config
    fit, tile = config.fit, config.tile.as_input()
    model = PropertyNet(
        len(config.targets), fit.width, tile.size_px, fit.dropout, fit.network, channels=tile.channels
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError("the weights are of another network", file=folder / WEIGHTS, fix=fix) from error
    bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise BundleError(
            "weights are not finite numbers", file=folder / WEIGHTS, place=bad[0], fix="train again"
        )
    return model.eval(), record


def calibration_tiles(tiles: TileSet) -> npt.NDArray[np.uint8]:
    """Tiles spread evenly over a training set, uint8 [K, S, S, C]: what a network is quantised and measured on.

    They stay with the checkpoint; a bundle holds no training pixel.
    """
    count = max(2, min(CALIBRATION_TILES, CALIBRATION_BYTES // tiles.pixels[0].nbytes, len(tiles.tile)))
    return tiles.gather(np.linspace(0, len(tiles.tile) - 1, count).round().astype(np.int64))


def load_calibration(folder: Path, record: TrainingRecord) -> npt.NDArray[np.uint8]:
    """Read the calibration tiles of a checkpoint, uint8 [K, S, S, C], K >= 2.

    Raises
    ------
    BundleError
        They are missing, damaged, or of another shape.
    """
    file, tile = folder / CALIBRATION, record.config.tile.as_input()
    fix = "train again: checkpoints hold the tiles that fp16 and int8 are measured on since they can be exported"
    try:
        tiles = load_arrays(file.read_bytes())["tiles"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"calibration tiles cannot be read: {error}", file=file, fix=fix) from error
    if (
        tiles.dtype != np.uint8
        or tiles.shape[1:] != (tile.size_px, tile.size_px, tile.channels)
        or len(tiles) < 2
    ):
        raise BundleError(f"calibration tiles are {tiles.dtype} {tiles.shape}", file=file, fix=fix)
    return tiles


def load_depth_model(folder: Path, record: TrainingRecord) -> DepthModel | None:
    """Read the depth model of a checkpoint, None where it was trained without.

    Raises
    ------
    BundleError
        It is missing, damaged, or does not fit the record.
    """
    config = record.config
    if not config.depth_model:
        return None
    file = folder / DEPTH
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(
            f"cannot be read: {error}",
            file=file,
            fix="give the folder that `lithostream train properties` wrote",
        ) from error
    return read_depth_model(content, file, len(config.targets), config.tile.as_input().channels)
