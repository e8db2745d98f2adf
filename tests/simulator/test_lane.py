"""A whole lane with its real kernels: Numba's in Numba's simulator, CUDA C++ emulated on the host."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from lane_case import OnGpu, assert_same, plan_of

from lithostream.engine.bundle import load_bundle
from lithostream.engine.core.lane import Tools, process_window
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.device import Gpu
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.io.discover import discover

BUNDLE = Path(__file__).parents[2] / "engine" / "demo_bundle"


def test_a_window_is_what_it_is_on_the_host(cupy: ModuleType, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("device code runs on the host through g++ -std=c++20: install g++")
    bundle = load_bundle(BUNDLE)
    session = OnnxRuntimeSession(bundle, batch=8, threads=1)
    core = generate(21, length_cm=14.0, width_cm=3.0, px_per_cm=10.0)
    (section,), _ = discover([write(core, tmp_path)])
    chosen, plan = plan_of(section, bundle, window_cm=2.0)
    wanted = process_window(chosen[0], plan, Tools(session, None))
    assert len(wanted.tiles.row) and np.count_nonzero(wanted.labels)
    assert_same(process_window(chosen[0], plan, Tools(OnGpu(session), None, Gpu())), wanted)
