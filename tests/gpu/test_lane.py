"""A lane on a GPU: the results of the host, and nothing allocated once it has seen a window of every size."""

from pathlib import Path
from types import ModuleType

import pytest
from lane_case import OnGpu, assert_same, plan_of

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.core.lane import Tools, process_window
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.device import Gpu
from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession
from lithostream.engine.io.discover import discover

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
