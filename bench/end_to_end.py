"""A core image to a table of properties: the runner beside the way the drill-core study goes, same image, same network.

    python bench/end_to_end.py                 # 1 m x 5 cm at 200 px/cm, ResNet-18 (width 64), 7 pairs of runs

The study's way: PIL decodes, each slice is cropped, torchvision turns it into a normalised tensor, PyTorch in eager mode
predicts 32 at a time, and pandas-like rows are written as CSV. Ours is the whole runner with `segments = false`: decode,
core mask, tiles, inference, intervals, every table and picture, checksums, ledger. Both have their network loaded and warm.
Slices are the tiles that our mask keeps, so that both predict the same ones; finding them is in our time alone.
Random weights: speed, and equality of the numbers. The full job (superpixels and minerals too) is timed beside it.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision import transforms

from lithostream.engine.bundle import load_bundle
from lithostream.engine.config import Backend, RunSettings
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.core.synthetic.files import SCANNER
from lithostream.engine.errors import BundleError
from lithostream.engine.inference.runtimes import missing
from lithostream.engine.io.discover import discover
from lithostream.engine.manifest import Precision
from lithostream.engine.stream.runner import Runner
from lithostream.export.bundle import export_bundle
from lithostream.training.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from lithostream.training.models.properties import PropertyNet

SHIPPED = Path(__file__).parents[1] / "engine" / "demo_bundle"
SIZE, WIDTH, BATCH, THREADS = 200, 64, 32, 2
WAYS: list[tuple[Backend, Precision, float]] = [
    ("onnxruntime", "fp32", 2.0),
    ("openvino", "fp16", 4.0),
    ("openvino", "int8", 8.0),
    ("onnxruntime", "int8", 8.0),
]
"""Runtime, precision, and times the study's way that are asked for; fp16 under OpenVINO is bf16."""


def checkpoint(folder: Path, tiles: npt.NDArray[np.uint8]) -> Path:
    """Write a checkpoint of random weights with the shipped bundle's record, calibrated on tiles."""
    manifest = load_bundle(SHIPPED).manifest
    metrics = {output.name: manifest.metrics[output.name] for output in manifest.outputs}
    known = TrainingRecord.model_validate({**manifest.training, "metrics": metrics})
    fit = known.config.fit.model_copy(update={"width": WIDTH})
    tile = known.config.tile.model_copy(update={"size_px": SIZE})
    config = known.config.model_copy(update={"fit": fit, "tile": tile})
    anything = {"distance_limit": 1e6, "px_per_cm": (1.0, 1000.0), "scanners": (SCANNER,)}
    record = known.model_copy(update={"config": config, **anything})
    torch.manual_seed(0)
    model = PropertyNet(len(metrics), WIDTH, SIZE, 0.0).eval()
    torch.nn.init.normal_(model.head.weight, std=0.01)  # it starts at zero
    folder.mkdir()
    save_checkpoint(folder, model, None, record, tiles)
    return folder


def study_way(image: Path, slices: npt.NDArray[np.int64], model: PropertyNet, out: Path) -> None:
    """Predict slices int64 [N, 4] (left, top, right, base) and write them."""
    turn = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.PILToTensor()])
    with Image.open(image) as opened:
        whole = opened.convert("RGB")
    rows: list[list[float]] = []
    with torch.inference_mode():
        for first in range(0, len(slices), BATCH):
            part = slices[first : first + BATCH]
            crops = [turn(whole.crop((left, top, right, base))) for left, top, right, base in part.tolist()]
            images = (torch.stack(crops).float() - model.pixel_mean) / model.pixel_std
            found, _ = model._in_units(*model.normalised(images))
            rows += [[*map(int, box), *map(float, one)] for box, one in zip(part, found, strict=True)]
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def boxes(folder: Path, grid: Grid) -> npt.NDArray[np.int64]:
    """Tiles that a run kept, as (left, top, right, base) in px."""
    table = pq.read_table(folder / "tiles.parquet")
    row, col = table["tile_row"].to_numpy(), table["tile_col"].to_numpy()
    y, x = grid.tile_rows, grid.tile_cols
    return np.stack([x[col], y[row], x[col + 1], y[row + 1]], axis=1)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--length-cm", type=float, default=100.0)
    parser.add_argument("--width-cm", type=float, default=5.0)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        core = generate(91, length_cm=given.length_cm, width_cm=given.width_cm, px_per_cm=float(SIZE))
        image = write(core, folder)
        with Image.open(image) as opened:
            whole = np.asarray(opened.convert("RGB"))
        rows, cols = len(whole) // SIZE, whole.shape[1] // SIZE
        cut = whole[: rows * SIZE, : cols * SIZE].reshape(rows, SIZE, cols, SIZE, 3).swapaxes(1, 2)
        made = checkpoint(folder / "checkpoint", np.ascontiguousarray(cut.reshape(-1, SIZE, SIZE, 3)[::4]))
        for backend, precision, asked in WAYS:
            print(_compared(folder, image, made, backend, precision, asked, given.pairs), flush=True)


def _compared(
    folder: Path, image: Path, made: Path, backend: Backend, precision: Precision, asked: float, pairs: int
) -> str:
    label = f"{backend} {precision}"
    if reason := missing(backend):
        return f"{label}: {reason}"
    bundle = folder / f"bundle-{precision}"
    try:
        if not bundle.exists():
            export_bundle(made, bundle, () if precision == "fp32" else (precision,))
    except BundleError as error:
        return f"{label}: {error}"
    model, _ = load_checkpoint(made)
    settings = RunSettings(segments=False, backend=backend, precision=precision, batch=BATCH, threads=THREADS)
    (section,), _ = discover([image])
    grid = Grid(*core_shape(image), float(SIZE), section.top_cm, 1.0, 1.0, 8)
    with (
        Runner(bundle, folder / f"out-{label}", settings) as runner,
        Runner(bundle, folder / f"full-{label}", settings.model_copy(update={"segments": True})) as full,
    ):
        runner.process(section, lambda *_: None)
        runner.write_record()
        slices = boxes(folder / f"out-{label}" / section.name, grid)
        study, ours, whole = [], [], []
        for number in range(1, pairs + 1):
            again = replace(section, top_cm=section.top_cm + number)  # to the ledger, another section
            study.append(_seconds(lambda: study_way(image, slices, model.eval(), folder / "study.csv")))
            ours.append(_seconds(lambda again=again: _processed(runner, again)))  # type: ignore[misc]
            whole.append(_seconds(lambda again=again: _processed(full, again)))  # type: ignore[misc]
    ratio = statistics.median(peer / own for peer, own in zip(study, ours, strict=True))
    full_ratio = statistics.median(peer / own for peer, own in zip(study, whole, strict=True))
    gap = _gap(folder / "study.csv", folder / f"out-{label}" / section.name / "tiles.parquet")
    return (
        f"{label}: {ratio:.2f} times (asked {asked:g}), full job {full_ratio:.2f} times;"
        f" {len(slices)} tiles, largest deviation {gap:.2g} of the largest value"
    )


def core_shape(image: Path) -> tuple[int, int]:
    """Rows and columns."""
    with Image.open(image) as opened:
        return opened.height, opened.width


def _processed(runner: Runner, section: Section) -> None:
    runner.process(section, lambda *_: None)
    runner.write_record()
    assert not runner.record.quarantined


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _gap(study: Path, tiles: Path) -> float:
    peer = np.loadtxt(study, delimiter=",", ndmin=2)[:, 4:]
    table = pq.read_table(tiles)
    names = [output.name for output in load_bundle(SHIPPED).manifest.outputs]
    own = np.stack([table[name].to_numpy() for name in names], axis=1)
    return float((np.abs(own - peer).max(axis=0) / np.abs(peer).max(axis=0)).max())


if __name__ == "__main__":
    main()
