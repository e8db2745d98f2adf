"""A generated core on disk, and the bundle that ships."""

from pathlib import Path

import pytest

from lithostream.engine.core.synthetic import SyntheticCore, generate, write

BUNDLE = Path(__file__).parents[2] / "engine" / "demo_bundle"


@pytest.fixture(scope="session")
def bundle_path() -> Path:
    return BUNDLE


@pytest.fixture(scope="session")
def core() -> SyntheticCore:
    return generate(21, length_cm=40.0, width_cm=6.0, px_per_cm=32.0)


@pytest.fixture(scope="session")
def core_image(core: SyntheticCore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(core, tmp_path_factory.mktemp("core"))
