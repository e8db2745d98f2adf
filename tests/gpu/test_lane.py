"""Lanes on a GPU: the results of the host, and nothing allocated once they have seen a window of every size."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from lane_case import OnGpu, assert_same, plan_of

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.lane import Tools, process_window
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.device import Gpu
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession, missing_cuda
from lithostream.engine.io.discover import discover
from lithostream.engine.stream.runner import run

BUNDLE = Path(__file__).parents[2] / "engine" / "demo_bundle"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(BUNDLE)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(bundle, batch=32, threads=1)


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    core = generate(21, length_cm=40.0, width_cm=6.0, px_per_cm=32.0)
    (found,), _ = discover([write(core, tmp_path_factory.mktemp("core"))])
    return found


@pytest.mark.parametrize("segments", [True, False])
def test_a_window_is_what_it_is_on_the_host(
    gpu: ModuleType, section: Section, bundle: Bundle, session: OnnxRuntimeSession, segments: bool
) -> None:
    chosen, plan = plan_of(section, bundle, segments=segments)
    here, there = Tools(session, None), Tools(OnGpu(session), None, Gpu())
    for block in chosen:
        assert_same(process_window(block, plan, there), process_window(block, plan, here))


def test_nothing_is_allocated_after_warm_up(
    gpu: ModuleType, section: Section, bundle: Bundle, session: OnnxRuntimeSession
) -> None:
    chosen, plan = plan_of(section, bundle)
    tools = Tools(OnGpu(session), None, Gpu())
    for block in (*chosen, *chosen):
        process_window(block, plan, tools)
    held = gpu.get_default_memory_pool().total_bytes()
    for block in chosen * 5:
        process_window(block, plan, tools)
    assert gpu.get_default_memory_pool().total_bytes() == held


@pytest.mark.parametrize("refine", [False, True])
def test_a_run_is_what_it_is_on_the_host(gpu: ModuleType, tmp_path: Path, refine: bool) -> None:
    reason = missing_cuda()
    if reason is not None:
        pytest.skip(reason)
    core = generate(21, length_cm=40.0, width_cm=6.0, px_per_cm=32.0)
    image = write(core, tmp_path / "in")
    tables = []
    for backend in ("onnxruntime", "onnxruntime-cuda"):
        settings = RunSettings.model_validate({"backend": backend, "refine": refine, "threads": 3})
        record = run([image], BUNDLE, tmp_path / backend, settings, lambda *_: None)
        assert not record.quarantined
        folder = tmp_path / backend / str(record.sections[0]["folder"])
        tables.append(pq.read_table(folder / "intervals.parquet"))
        if not refine:  # masks may differ at their outlines
            assert (folder / "segments.tif").read_bytes() == (
                tmp_path / "onnxruntime" / str(record.sections[0]["folder"]) / "segments.tif"
            ).read_bytes()
    for name, allowed in (("density", 1e-3), ("p_wave_velocity", 1.0), ("magnetic_susceptibility", 0.1)):
        here, there = (np.asarray(table[name].to_numpy(zero_copy_only=False)) for table in tables)
        np.testing.assert_allclose(there, here, atol=allowed)
