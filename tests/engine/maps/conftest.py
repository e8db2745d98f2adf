"""A map bundle with weights drawn at random."""

from pathlib import Path

import pytest
from map_scene import write_bundle


@pytest.fixture(scope="session")
def map_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("map") / "bundle")
