"""The way of a facility: the shipped bundle declines its core, a bundle trained on that core serves it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.core.tables import flags_of, floats_of
from lithostream.engine.stream.runner import run
from lithostream.export.bundle import export_bundle
from lithostream.training.study import train_properties

SHIPPED = Path(__file__).parents[2] / "engine" / "demo_bundle"
CONFIG = """
name = "our scanner"
licence = "CC0-1.0"
description = "Cores of our scanner."
data = ["manifest.toml"]
targets = ["density", "magnetic_susceptibility"]
minerals = ["pore_water", "quartz", "magnetite"]
[tile]
size_px = 16
[fit]
width = 2
epochs = 1
[split]
folds = 2
block_cm = 10
buffer_cm = 3
seeds = [0]
"""


def minerals_given(out: Path, name: str) -> tuple[float, float]:
    """Share of the predicted intervals that are in the domain, and share that has minerals."""
    table = pq.read_table(out / name / "intervals.parquet")
    known = ~flags_of(table, "no_core")
    shares = np.isfinite(floats_of(table, "quartz_vol_pct"))
    return float((~flags_of(table, "out_of_domain"))[known].mean()), float(shares[known].mean())


def test_minerals_only_after_training_on_the_own_scanner(tmp_path: Path) -> None:
    image = write(generate(2103, length_cm=120.0, width_cm=6.0, px_per_cm=32.0), tmp_path)
    image.with_suffix(".xml").unlink()  # the generated sidecar would name the generated scanner
    manifest, config = tmp_path / "manifest.toml", tmp_path / "study.toml"
    manifest.write_text(f'[[section]]\nfile = "{image.name}"\npx_per_cm = 32\nscanner = "ours"\n')
    config.write_text(CONFIG)
    run([manifest], SHIPPED, tmp_path / "before", RunSettings(), lambda *_: None)
    assert minerals_given(tmp_path / "before", image.stem) == (0.0, 0.0)
    train_properties(config, tmp_path / "checkpoint")
    bundle = export_bundle(tmp_path / "checkpoint", tmp_path / "bundle")
    run([manifest], bundle, tmp_path / "after", RunSettings(), lambda *_: None)
    inside, given = minerals_given(tmp_path / "after", image.stem)
    assert inside > 0.9 and given == inside
