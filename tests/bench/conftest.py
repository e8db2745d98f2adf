"""The scripts of `bench/`, which is never installed: loaded from their paths."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"bench_{name}_under_test", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def compare() -> ModuleType:
    return script("compare")


@pytest.fixture(scope="session")
def selftest() -> ModuleType:
    return script("selftest")


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return script("conftest")
