"""The runtimes by their names: which can run here, and how to open one that may serve."""

from typing import NamedTuple, get_args

from lithostream.engine.bundle import Bundle
from lithostream.engine.config import Backend
from lithostream.engine.inference import Session, check_golden
from lithostream.engine.manifest import Precision

BACKENDS: tuple[Backend, ...] = get_args(Backend)
ORACLE: Backend = "onnxruntime"
PACKAGES: dict[Backend, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnxruntime-cuda": ("onnxruntime-gpu", "cupy-cuda13x"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt-cu13", "tensorrt", "cupy-cuda13x"),
}
"""What each is installed as."""
ON_CPU: tuple[Backend, ...] = ("onnxruntime", "openvino")
CPU_CALL = 4
"""Tiles a call on a processor: more were no faster, for ResNet-18 at 200 px and for the shipped network alike, and OpenVINO's
last call for a window is filled up to as many."""


class Gated(NamedTuple):
    """A session that met the golden cases, by how much it deviates and how much it might."""

    session: Session
    deviation: float
    allowed: float


def missing(name: Backend) -> str | None:
    """Say what to install, or why this backend cannot run here; None where it can."""
    if name == "openvino":
        from lithostream.engine.inference import openvino

        return openvino.missing()
    if name == "tensorrt":
        from lithostream.engine.inference import tensorrt

        return tensorrt.missing()
    from lithostream.engine.inference import onnxruntime

    return onnxruntime.missing() if name == "onnxruntime" else onnxruntime.missing_cuda()


def call_sizes(name: Backend, batch: int) -> list[int]:
    """Tiles a call to try, each half of the one before, down to 1."""
    most = min(batch, CPU_CALL) if name in ON_CPU else batch
    return [most >> power for power in range(most.bit_length())]


def open_gated(name: Backend, bundle: Bundle, *, batch: int, threads: int, precision: Precision) -> Gated:
    """Open a session and hold it to the golden cases.

    Raises
    ------
    BackendError
        It cannot be opened; `BackendMemoryError` where memory is why.
    BundleError
        It misses the golden cases, or the bundle has no such precision.
    """
    session = _open(name, bundle, batch, threads, precision)
    allowed = tolerance(name, bundle, precision)
    return Gated(session, check_golden(session, bundle, allowed), allowed)


def tolerance(name: Backend, bundle: Bundle, precision: Precision) -> float:
    """Largest deviation on the golden cases, in standard deviations over them."""
    from lithostream.engine.inference.openvino import BF16_TOLERANCE

    if name == "openvino" and precision == "fp16":
        return BF16_TOLERANCE
    return bundle.tolerance(precision)


def _open(name: Backend, bundle: Bundle, batch: int, threads: int, precision: Precision) -> Session:
    if name == "openvino":
        from lithostream.engine.inference.openvino import OpenVinoSession

        return OpenVinoSession(bundle, batch=batch, threads=threads, precision=precision)
    if name == "tensorrt":
        from lithostream.engine.inference.tensorrt import TensorRtSession

        return TensorRtSession(bundle, batch=batch, threads=threads, precision=precision)
    from lithostream.engine.inference.onnxruntime import OnnxRuntimeCudaSession, OnnxRuntimeSession

    kind = OnnxRuntimeSession if name == "onnxruntime" else OnnxRuntimeCudaSession
    return kind(bundle, batch=batch, threads=threads, precision=precision)
