"""Fixtures shared by every test: a seeded generator and the way to the real data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

DATA = Path(os.environ.get("LITHOSTREAM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep cut tiles out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITHOSTREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190643)


@pytest.fixture(scope="session")
def data_dir() -> Callable[[str], Path]:
    """Folder of one real data set, or a skip that says where it was looked for."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_dir():
            pytest.skip(
                f"real data not found at {path}; set LITHOSTREAM_DATA to the folder that holds {name}"
            )
        return path

    return find
