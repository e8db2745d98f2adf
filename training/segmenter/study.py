"""The `segmenter` study: train the small Segment Anything, measure it, and write it into a folder."""

import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from segment_anything.modeling import Sam

from lithostream.engine.config import load_toml
from lithostream.engine.errors import ConfigError
from lithostream.training.device import deterministic, fit_device
from lithostream.training.models import small_sam
from lithostream.training.segmenter.checkpoint import build, load_sam, read_record, save
from lithostream.training.segmenter.config import SegmenterConfig
from lithostream.training.segmenter.distil import SamTeacher
from lithostream.training.segmenter.evaluate import score
from lithostream.training.segmenter.fit import Example, Learner, Teacher, batches, learning_rate
from lithostream.training.segmenter.sheets import read_sheets

STATE = "state.safetensors"
EVERY_S = 240.0  # between two states: what a kill costs
TELL = 50  # steps between two lines
CODE = b"".join(  # as it was loaded: a state of other code is not taken up
    path.read_bytes() for path in (Path(small_sam.__file__), *sorted(Path(__file__).parent.glob("*.py")))
)


def train_segmenter(config_path: Path, out: Path, console: Console | None = None) -> dict[str, Any]:
    """Train, and write `segmenter.safetensors` and `segmenter.json` into `out`; a rerun after a kill goes on.

    Parameters
    ----------
    config_path : Path
        TOML, see `SegmenterConfig`.
    out : Path
        The weights in it are usable from the first minutes on, and final when the record says `"done": true`.
    console : Console, optional

    Returns
    -------
    dict
        The record.
    """
    console = console or Console(stderr=True)
    config = load_toml(config_path, SegmenterConfig)
    out.mkdir(parents=True, exist_ok=True)
    device = fit_device(config.device)
    with deterministic(config.threads, device):
        torch.manual_seed(config.seed)
        begun = None if config.start is None else config_path.parent / config.start
        learner = Learner(build("small") if begun is None else _start(begun, config_path), config, device)
        _take_up(learner, out / STATE)
        sheets = read_sheets([config_path.parent / path for path in config.textures])
        teacher = _teacher(config, config_path, device)
        _learn(learner, console, out, batches(config, learner.step, teacher, sheets))
        record = _record(learner, True)
        if begun is not None:
            record["start"] = read_record(begun)
        record["score"] = score(learner.average, config.evaluate_scenes).model_dump()
    save(out, learner.average, "small", record)
    (out / STATE).unlink(missing_ok=True)
    console.print(json.dumps(record["score"]))
    return record


def _start(folder: Path, config_path: Path) -> Sam:
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder", file=config_path, place="start", fix="name what `train segmenter` wrote"
        )
    sam = load_sam(folder)
    if sam.image_encoder.img_size != small_sam.VIEW_PX:
        raise ConfigError(
            "is not the small network that this study trains",
            file=folder,
            place="start",
            fix="distil from it",
        )
    return sam


def _learn(learner: Learner, console: Console, out: Path, drawn: Iterator[list[Example]]) -> None:
    config, losses, due = learner.config, [], time.monotonic() + EVERY_S
    started, first = time.monotonic(), learner.step
    for examples in drawn:
        losses.append(learner.learn(examples))
        if learner.step % TELL == 0:
            each = (time.monotonic() - started) / (learner.step - first)
            loss, losses = sum(losses) / len(losses), []
            rate = learning_rate(config, learner.step)
            console.print(
                f"step {learner.step}/{config.steps} loss {loss:.4f} rate {rate:.2e} {each:.2f} s a step"
            )
        if time.monotonic() >= due:
            _keep(learner, out)
            due = time.monotonic() + EVERY_S


def _keep(learner: Learner, out: Path) -> None:
    save(out, learner.average, "small", _record(learner, False))
    made = out / f".{STATE}"
    about = {"step": str(learner.step), "key": _key(learner.config)}
    save_file({name: value.cpu().contiguous() for name, value in learner.tensors().items()}, made, about)
    made.replace(out / STATE)


def _take_up(learner: Learner, path: Path) -> None:
    """Go on from a state of the same configuration and code, if there is a sound one."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != _key(learner.config):
                return
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return
    learner.take_up(tensors, int(about["step"]))


def _key(config: SegmenterConfig) -> str:
    return sha256(CODE + config.model_dump_json().encode()).hexdigest()


def _record(learner: Learner, done: bool) -> dict[str, Any]:
    return {
        "done": done,
        "step": learner.step,
        "config": learner.config.model_dump(mode="json"),
        "versions": {"torch": torch.__version__},
    }


def _teacher(config: SegmenterConfig, config_path: Path, device: torch.device) -> Teacher | None:
    if config.distil is None:
        return None
    return SamTeacher(config.distil, config_path.parent, device)
