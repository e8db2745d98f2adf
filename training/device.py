"""Where a network is trained, and what makes two trainings there equal to the last bit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lithostream.engine.errors import ConfigError


def fit_device(wanted: str) -> torch.device:
    """Device of `FitConfig.device`.

    Raises
    ------
    ConfigError
        There is no CUDA device for `cuda`.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"PyTorch {torch.__version__} finds no CUDA device",
            place="fit.device",
            fix='install a driver and a CUDA build of PyTorch, or set device = "cpu" or "auto"',
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS refuses to be deterministic without
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def deterministic(threads: int, device: torch.device) -> Iterator[None]:
    """Fix the thread count, allow deterministic algorithms only, and give the caller's random state back after.

    CUDA lacks a few of them: PyTorch then warns, and two trainings may differ in the last bits.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
