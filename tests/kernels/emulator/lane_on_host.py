"""A GPU for a whole lane, on the host: CuPy's stand-in, whose CUDA C++ is emulated, and the kernels in Numba CUDA, which
have a simulator of their own, replaced by their CPU twins on the emulated arrays.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import cupy_on_host
import pytest
import tensorrt_on_host

from lithostream.kernels import roi, tiling


def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Let `cupy`, and what of the kernels needs Numba CUDA, be found as on a machine with a GPU; return cupy."""
    module = tensorrt_on_host.cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    for name, stand_in in {
        "launch": SimpleNamespace(failures=lambda: ()),
        "roi.cuda": SimpleNamespace(core_roi=_core_roi),
        "tiling.cuda": SimpleNamespace(tiles=_tiles),
    }.items():
        monkeypatch.setitem(sys.modules, f"lithostream.kernels.{name}", stand_in)
    monkeypatch.setattr(roi, "cuda", sys.modules["lithostream.kernels.roi.cuda"], raising=False)
    monkeypatch.setattr(tiling, "cuda", sys.modules["lithostream.kernels.tiling.cuda"], raising=False)
    cupy_on_host.forget()
    for bytes_of in cupy_on_host.moved.values():
        bytes_of.clear()
    return module


def _core_roi(
    image: Any, rule: Any, crack_px: int, row: float, piece_px: int, alpha: Any, out: Any, _: Any
) -> Any:
    assert out is None
    found = roi.core_roi(
        image._host,
        rule=rule,
        crack_px=crack_px,
        min_row_fraction=row,
        min_piece_px=piece_px,
        alpha=None if alpha is None else alpha._host,
    )
    return cupy_on_host.asarray(found.mask), cupy_on_host.asarray(found.rows), found.box


def _tiles(image: Any, rows: Any, cols: Any, size_px: int, out: Any, _: Any) -> Any:
    assert out is None
    return cupy_on_host.asarray(tiling.tiles(image._host, rows, cols, size_px))
