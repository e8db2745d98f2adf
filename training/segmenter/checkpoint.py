"""Weights of Segment Anything on disk: written and read without pickled code."""

import json
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from lithostream.engine.errors import BundleError
from lithostream.training.models.small_sam import small_sam
from lithostream.training.segmenter.config import Architecture
from lithostream.training.tensors import read_tensors

WEIGHTS: Final = "segmenter.safetensors"
RECORD: Final = "segmenter.json"
FIX: Final = "give the folder that `train segmenter` wrote, or a published sam_vit_b, sam_vit_l or sam_vit_h"


def build(architecture: Architecture) -> Sam:
    """Build a network with random weights."""
    return small_sam() if architecture == "small" else sam_model_registry[architecture](checkpoint=None)


def save(folder: Path, sam: Sam, architecture: Architecture, record: dict[str, Any]) -> None:
    """Write the weights and the record of the training into a folder, the weights whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f".{WEIGHTS}"
    save_file({name: tensor.cpu().contiguous() for name, tensor in sam.state_dict().items()}, made)
    made.replace(folder / WEIGHTS)
    text = json.dumps({"architecture": architecture, **record}, indent=2)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def load_sam(path: Path, architecture: Architecture | None = None) -> Sam:
    """Read a network from a checkpoint folder, or from one file of published weights.

    Parameters
    ----------
    path : Path
        Folder that `train segmenter` wrote, or a `.safetensors` or `.pth` file.
    architecture : {"small", "vit_b", "vit_l", "vit_h"}, optional
        Of a file: without it, the one that its name says, as the published `sam_vit_b_01ec64.pth`.

    Raises
    ------
    BundleError
        A file is missing, damaged, holds code beside tensors, or is of another network.
    """
    if path.is_dir():
        architecture, file = _recorded(path), path / WEIGHTS
    else:
        architecture, file = architecture or _named(path), path
    weights = read_tensors(file, partial(BundleError, file=file, fix=FIX))
    sam = build(architecture)
    own = sam.state_dict()
    for kind, names in (("lacks", own.keys() - weights.keys()), ("also holds", weights.keys() - own.keys())):
        if names:
            raise BundleError(
                f"{kind} {len(names)} tensors ({architecture})", file=file, place=min(names), fix=FIX
            )
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            reason = f"is {tuple(weights[name].shape)}, {architecture} needs {tuple(tensor.shape)}"
            raise BundleError(reason, file=file, place=name, fix=FIX)
        if not torch.isfinite(weights[name]).all():
            raise BundleError("weights are not finite numbers", file=file, place=name, fix=FIX)
    sam.load_state_dict(weights)
    return sam.eval()


def read_record(folder: Path) -> dict[str, Any]:
    """Read what `train segmenter` wrote beside the weights: their architecture, how they were trained, their score.

    Raises
    ------
    BundleError
        There is no such file, or it is damaged.
    """
    file = folder / RECORD
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found["architecture"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"cannot be read: {error}", file=file, fix=FIX) from error
    return found


def _recorded(folder: Path) -> Architecture:
    file, found = folder / RECORD, read_record(folder)["architecture"]
    for known in get_args(Architecture):
        if found == known:
            return known  # type: ignore[no-any-return]
    raise BundleError(f"unknown architecture {found!r}", file=file, place="architecture", fix=FIX)


def _named(file: Path) -> Architecture:
    found = [known for known in get_args(Architecture) if known in file.name]
    if len(found) != 1:
        known = ", ".join(get_args(Architecture))
        raise BundleError(
            "the name does not say which network it is",
            file=file,
            fix=f"name one of {known} in it or beside it",
        )
    return found[0]  # type: ignore[no-any-return]
