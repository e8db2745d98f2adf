"""Tests that need a CUDA device: skipped, with the reason, where there is none."""

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def gpu() -> ModuleType:
    """CuPy, on a machine whose GPU answers."""
    cupy: ModuleType = pytest.importorskip("cupy", reason="needs CuPy: the extra [cuda13]")
    if not cupy.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return cupy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
