"""Plans built in a process of their own: what is built, and what is left where that process dies."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_on_host as host

from lithostream.engine.bundle import Bundle, load_bundle
from lithostream.engine.cache import private_folder
from lithostream.engine.errors import BackendError, BackendMemoryError, StoppedError
from lithostream.engine.inference.tensorrt import TensorRtSession

# The stand-in as a child finds it by its name; $WHILE_BUILDING is what happens to the child in the midst of its work.
CHILD = """
import os, signal, sys
import tensorrt_on_host as host
made = host.tensorrt("11.4.1")
class Builder(made.Builder):
    def build_serialized_network(self, network, config):
        config.progress_monitor.phase_start("Building", None, 2)
        exec(os.environ.get("WHILE_BUILDING", ""))
        return super().build_serialized_network(network, config)
made.Builder = Builder
sys.modules["tensorrt"] = made
"""


@pytest.fixture
def xp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    (tmp_path / "tensorrt.py").write_text(CHILD)
    (tmp_path / "cupy.py").write_text(
        "import sys, tensorrt_on_host\nsys.modules['cupy'] = tensorrt_on_host.cupy()\n"
    )
    path = (str(tmp_path), str(Path(host.__file__).parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("LITHOSTREAM_CACHE", str(tmp_path / "cache"))
    module = host.cupy()
    monkeypatch.setitem(sys.modules, "tensorrt", host.tensorrt("11.4.1"))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


def opened(bundle: Bundle, **given: Any) -> TensorRtSession:
    return TensorRtSession(bundle, batch=8, threads=1, **given)


def no_plan() -> bool:
    return not list(private_folder("plans").glob("*.plan"))


def test_a_plan_of_a_child_serves(xp: Any, bundle: Bundle) -> None:
    told: list[tuple[str, int, int]] = []
    session = opened(bundle, progress=lambda *step: told.append(step))
    assert told == [("Building", 0, 2), ("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2)]
    assert session.plan.built and not sys.modules["tensorrt"].configs  # nothing was built in this process
    properties = session.infer(bundle.golden_tiles)[0]
    np.testing.assert_allclose(properties, bundle.golden_properties, rtol=1e-4, atol=1e-5)
    timings = [path.read_bytes() for path in private_folder("plans").glob("*.plan")]
    assert b"timed;" in timings and not opened(bundle).plan.built


@pytest.mark.parametrize(
    ("happens", "kind", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", BackendError, "was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", BackendMemoryError, "killed by SIGKILL, as the system does"),
        ("os._exit(3)", BackendError, "ended with exit code 3"),
        ("raise RuntimeError('unforeseen')", BackendError, "ended with exit code 1"),
        ("made.says['build'] = 'Error Code 2: OutOfMemory (5 bytes)'", BackendMemoryError, "5 bytes"),
        ("made.says['build'] = 'no implementation'", BackendError, "no implementation"),
    ],
)
def test_a_child_that_dies_is_a_typed_error_and_leaves_no_plan(
    xp: Any,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    happens: str,
    kind: type[BackendError],
    words: str,
) -> None:
    monkeypatch.setenv("WHILE_BUILDING", happens)
    with pytest.raises(BackendError, match=words) as error:
        opened(bundle)
    assert type(error.value) is kind and no_plan()
    monkeypatch.delenv("WHILE_BUILDING")
    assert opened(bundle).plan.built


@pytest.mark.parametrize("stop", [StoppedError("SIGTERM", fix="again"), BrokenPipeError("no console")])
def test_what_the_listener_raises_ends_the_child(
    xp: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stop: Exception
) -> None:
    number = tmp_path / "number"
    monkeypatch.setenv(
        "WHILE_BUILDING", f"open({str(number)!r}, 'w').write(str(os.getpid())); signal.pause()"
    )

    def listener(*_: object) -> None:
        deadline = time.monotonic() + 20
        while not (number.exists() and number.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        raise stop

    with pytest.raises(type(stop)):
        opened(bundle, progress=listener)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), signal.SIG_DFL)
    assert no_plan()
