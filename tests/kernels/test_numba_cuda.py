"""The kernels in Numba CUDA without a GPU: run in Numba's simulator, and compiled for each GPU they are shipped for."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lithostream.kernels.errors import BackendUnavailableError
from lithostream.kernels.loader import BUILT_FOR
from lithostream.kernels.roi.rules import RULES

ROOT = Path(__file__).parents[2]


def require_numba_cuda() -> None:
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: the extra [cuda-tests]")


def test_in_the_simulator() -> None:
    require_numba_cuda()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/simulator"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout), done.stdout


def signatures(rules: Iterable[str] = ("divided_box",)) -> dict[Any, tuple[object, ...]]:
    """Each kernel with the types it is launched with; arrays of the caller may have any strides."""
    from numba.cuda import types

    from lithostream.kernels.roi import bit_planes as roi
    from lithostream.kernels.tiling import cuda as tiling

    def array(dtype: object, ndim: int, layout: str = "C") -> object:
        return types.Array(dtype, ndim, layout)

    number, words, table = types.int64, array(types.uint64, 3), array(types.int64, 2)
    flags, pixels = array(types.boolean, 1), array(types.uint8, 3, "A")
    mask, line, plane = array(types.boolean, 2), array(types.int64, 1), array(types.uint64, 2)
    limits = (table, number, number, types.float64, number)
    classify = {
        roi.classifier(RULES[rule]): (pixels, array(types.boolean, 2, "A"), array(types.uint8, 3))
        for rule in rules
    }
    return {
        **classify,
        roi.widen_along_rows: (words, number, number, number, words),
        roi.widen_along_columns: (words, number, number, number, types.boolean, words),
        roi.row_limits: (words, number, table),
        roi.smooth_limits: (table, number, table),
        roi.core_rows: (words, words, *limits, plane, table),
        roi.long_pieces: (table, number, flags, line),
        roi.unpack: (plane, flags, mask),
        roi.count_core: (words, number, flags, table),
        tiling.resample: (pixels, line, line, array(types.uint8, 5)),
    }


def kernels_of(room: ModuleType) -> set[object]:
    from numba.cuda.dispatcher import CUDADispatcher

    return {value for value in vars(room).values() if isinstance(value, CUDADispatcher)}


def test_every_kernel_is_compiled_here() -> None:
    require_numba_cuda()
    from lithostream.kernels.roi import bit_planes as roi
    from lithostream.kernels.tiling import cuda as tiling

    assert kernels_of(roi) | kernels_of(tiling) <= set(signatures())


@pytest.mark.parametrize("arch", BUILT_FOR)
def test_compiles_to_machine_code(monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    require_numba_cuda()
    core = pytest.importorskip("cuda.core", reason="assembling needs the extra [cuda-tests]")
    from numba import cuda

    capability = (int(arch[:-1]), int(arch[-1]))
    monkeypatch.setattr(
        "numba.cuda.dispatcher.get_current_device", lambda: SimpleNamespace(compute_capability=capability)
    )
    assembled = []
    for kernel, types in signatures(RULES if arch == BUILT_FOR[-1] else ["divided_box"]).items():
        name = kernel.py_func.__name__
        ptx, _ = cuda.compile(kernel.py_func, types, device=False, cc=capability, abi="numba")
        assert f".target sm_{arch}" in ptx
        assert re.search(rf"\.visible \.entry \w*{name}\w*\(", ptx), name
        assembled.append(core.ObjectCode.from_ptx(ptx.encode()))
    code = core.Linker(*assembled, options=core.LinkerOptions(arch=f"sm_{arch}")).link("cubin").code
    assert code[:4] == b"\x7fELF"


def test_what_fails_is_known() -> None:
    require_numba_cuda()
    from cuda.core._utils.cuda_utils import CUDAError
    from numba.cuda.cudadrv.driver import CudaAPIError
    from numba.cuda.cudadrv.error import CudaSupportError, NvvmSupportError

    from lithostream.kernels.launch import failures

    for kind in (CUDAError, CudaAPIError, CudaSupportError, NvvmSupportError):
        assert issubclass(kind, failures())


def test_without_numba_cuda_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    monkeypatch.delitem(sys.modules, "lithostream.kernels.launch", raising=False)
    with pytest.raises(BackendUnavailableError, match=r"install lithostream with the extra \[cuda13\]"):
        import lithostream.kernels.launch  # noqa: F401
