"""Kernels in Numba CUDA run in Numba's simulator, each thread a thread of Python.

The simulator takes the place of Numba's CUDA target when Numba is imported, so these tests have a process of their
own: `NUMBA_ENABLE_CUDASIM=1 pytest tests/simulator`, started by tests/kernels/test_numba_cuda.py.
"""

import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
collect_ignore_glob = [] if SIMULATED else ["test_*.py"]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in of CuPy; its arrays and streams reach the simulator, which knows neither CuPy's nor pointers."""
    import cupy_on_host
    from numba import cuda
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    module = cupy_on_host.module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(cuda, "as_cuda_array", lambda a, sync: FakeCUDAArray(a._host), raising=False)
    monkeypatch.setattr(cuda, "external_stream", lambda pointer: cuda.stream())
    yield module
    cupy_on_host.check_guards()
    cupy_on_host.forget()
