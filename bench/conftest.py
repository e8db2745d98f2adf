"""How the suites are timed: in interleaved passes, beside a calibration loop, with the machine written down.

A benchmark and its peers run alternately, several times, so that whatever slows the machine for a while
slows both; `compare.py` takes one ratio from each pass and its error from how the passes scatter.
"""

import copy
import os
import platform
import re
import statistics
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import ceiling
import numba
import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.stats import Metadata

CALIBRATIONS = 15  # short and many: few of them meet a neighbour's time slice
PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "scikit-image",
    "opencv-python-headless",
    "fast-slic",
    "pykdtree",
    "Pillow",
    "tifffile",
    "imagecodecs",
    "torch",
    "onnxruntime",
    "openvino",
    "cupy",
)
THREAD_VARIABLES = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cpu_seconds() -> tuple[float, float, float]:
    """Wall clock, CPU time of this process and its children, CPU time of the whole machine (0 if unknown)."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return perf_counter(), 0.0, 0.0
    user, nice, system, _, _, irq, soft_irq, steal = map(int, stat.read_text().split(maxsplit=9)[1:9])
    all_s = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
    return perf_counter(), sum(os.times()[:4]), all_s


STARTED = cpu_seconds()


def taken_by_others() -> float:
    """Share of all cores that other processes used since the start."""
    wall_s, own_s, all_s = (now - then for now, then in zip(cpu_seconds(), STARTED, strict=True))
    return max(0.0, round((all_s - own_s) / wall_s / (os.cpu_count() or 1), 3))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--passes", type=int, default=1, help="times every benchmark is run, beside its peers")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run each file's benchmarks pass by pass: ours, peer, ours, peer; then all again, peers first."""
    if not config.getoption("benchmark_enable"):
        return
    files: dict[Path, dict[str, list[pytest.Item]]] = {}
    for item in items:
        family = re.sub(r"_peer_\w+", "", item.name)
        files.setdefault(item.path, {}).setdefault(family, []).append(item)
    items[:] = [
        again(item)
        for families in files.values()
        for turn in range(config.getoption("--passes"))
        for family in families.values()
        for item in family[:: -1 if turn % 2 else 1]
    ]


def again(item: pytest.Item) -> pytest.Item:
    """Copy an item for one pass: pytest sets an item up anew only if it is another one than the last."""
    twin = copy.copy(item)
    if isinstance(twin, pytest.Function):
        twin._initrequest()  # what pytest-rerunfailures relies on
    return twin


@pytest.fixture(scope="session")
def calibration_values() -> npt.NDArray[np.float64]:
    return np.random.default_rng(7).random(60_000)


def timed_calibration(values: npt.NDArray[np.float64]) -> float:
    """Seconds of a fixed workload of one thread: branches, arithmetic and memory, under a millisecond."""
    start = perf_counter()
    np.sort(values)
    np.exp(np.sin(values))
    values.reshape(200, 300).T.copy()
    return perf_counter() - start


@pytest.fixture(autouse=True)
def calibrated(benchmark: BenchmarkFixture, calibration_values: npt.NDArray[np.float64]) -> Iterator[None]:
    """Time the calibration loop right before and right after the benchmark."""
    if not benchmark.enabled:
        yield
        return
    before = [timed_calibration(calibration_values) for _ in range(CALIBRATIONS)]
    yield
    after = [timed_calibration(calibration_values) for _ in range(CALIBRATIONS)]
    benchmark.extra_info["calibration_s"] = before + after


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_generate_json(benchmarks: list[Metadata]) -> None:
    """Join the passes of one benchmark into one record that keeps where each pass begins."""
    first: dict[str, Metadata] = {}
    for bench in benchmarks:
        kept = first.setdefault(bench.fullname, bench)
        rounds = list(bench.stats.data)
        if kept is not bench:
            kept.stats.data.extend(rounds)
        passes = kept.extra_info.setdefault("passes", [])
        calibration_s = statistics.median(bench.extra_info.pop("calibration_s"))
        passes.append({"rounds": len(rounds), "calibration_s": calibration_s})
    benchmarks[:] = first.values()


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Add what decides a timing and pytest-benchmark does not record."""
    machine_info["lithostream"] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {name: installed for name in PACKAGES if (installed := installed_version(name))},
        "threads": {
            "numba": numba.config.NUMBA_NUM_THREADS,
            **{name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        },
        "gpu": gpu(),
        "copy_gb_s": round(ceiling.copy_gb_s(), 2),
        **gpu_ceiling(),
        "taken_by_others": taken_by_others(),
    }


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@pytest.fixture(scope="session", name="gpu")
def cupy_with_device() -> ModuleType:
    """CuPy, where there is a GPU for it."""
    cupy: ModuleType = pytest.importorskip("cupy", reason="needs CuPy: the extra [cuda13]")
    if not cupy.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return cupy


def gpu_ceiling() -> dict[str, float]:
    if gpu() == "none":
        return {}
    return {"gpu_copy_gb_s": round(ceiling.gpu_copy_gb_s(import_module("cupy")), 1)}


def gpu() -> str:
    """Name and driver of the device CuPy would use, or "none"."""
    if find_spec("cupy") is None:
        return "none"
    runtime = import_module("cupy").cuda.runtime
    try:
        name = runtime.getDeviceProperties(0)["name"].decode()
    except runtime.CUDARuntimeError:
        return "none"
    return f"{name}, driver for CUDA {runtime.driverGetVersion()}"
