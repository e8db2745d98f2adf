"""A small generated core, written once, and the tiles a study would cut from it."""

import pytest

from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.training.config import TileConfig
from lithostream.training.data.tiles import TileSet, build_tiles

TARGETS = ("density", "magnetic_susceptibility")


@pytest.fixture(scope="session")
def core_section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    core = generate(2101, length_cm=140.0, width_cm=8.0, px_per_cm=16.0)
    image = write(core, tmp_path_factory.mktemp("core"))
    log = image.with_name(f"{core.name}_mscl.csv")
    return Section(core.name, image, 16.0, "manifest", scanner="test camera", log=log)


@pytest.fixture(scope="session")
def core_tiles(core_section: Section) -> TileSet:
    tile = TileConfig(tile_cm=1.0, size_px=16).as_input()
    return build_tiles([core_section], TARGETS, tile, RunSettings(), {})
