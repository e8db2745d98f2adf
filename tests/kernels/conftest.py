"""A stand-in for CuPy, so that device code runs where there is no device."""

import shutil
import sys
from collections.abc import Iterator
from types import ModuleType

import cupy_on_host
import pytest

from lithostream.kernels import loader


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module cupy of this test: arrays of an emulated device, kernels compiled for the host."""
    if shutil.which("g++") is None:
        pytest.skip("device code runs on the host through g++ -std=c++20: install g++")
    module = cupy_on_host.module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    loader._load.cache_clear()
    yield module
    loader._load.cache_clear()
    cupy_on_host.forget()
