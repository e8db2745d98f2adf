"""What this machine is, as far as a run's speed depends on it."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_FILE, GPU_FOLDER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


def cpu_model() -> str:
    """Name of the processor."""
    return _field(CPU_FILE, "model name") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> tuple[str, ...]:
    """Names of the GPUs that the NVIDIA driver lists; asking needs no package."""
    return tuple(_field(path, "Model") or "unknown" for path in sorted(GPU_FOLDER.glob("*/information")))


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _field(path: Path, name: str) -> str:
    """Value of the first `name : value` line, or nothing."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
