"""A checkpoint of a tiny network, trained once on generated cores by the function behind the command."""

from pathlib import Path

import pytest

CONFIG = """
name = "tiny"
licence = "CC0-1.0"
description = "Generated cores, for tests."
targets = ["density", "magnetic_susceptibility"]
minerals = ["quartz", "pore_water", "magnetite"]
[synthetic]
cores = 3
first_seed = 1900
length_cm = [40, 50]
width_cm = 6
px_per_cm = [16, 20]
[tile]
size_px = 16
[fit]
width = 2
epochs = 1
[split]
folds = 2
block_cm = 10
buffer_cm = 3
seeds = [0, 1]
"""


@pytest.fixture(scope="session")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, config_path: Path) -> Path:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    from lithostream.training.study import train_properties

    out = tmp_path_factory.mktemp("checkpoint") / "tiny"
    train_properties(config_path, out)
    return out


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    from lithostream.export.bundle import export_bundle

    return export_bundle(checkpoint, tmp_path_factory.mktemp("bundle") / "tiny")
