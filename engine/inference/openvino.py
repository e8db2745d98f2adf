"""OpenVINO on the CPU: about as fast as ONNX Runtime in fp32, twice as fast in bf16 and more in int8."""

from importlib import import_module
from typing import Final

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle, model_file
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.inference.memory import typed_errors
from lithostream.engine.manifest import Precision

BF16_TOLERANCE = 0.1
"""Of the golden gate for bf16, in standard deviations; no variant states one, since it has no graph of its own.
bf16 rounds eight times coarser than fp16: the shipped bundle deviates by 0.045."""

# OpenVINO takes bf16 by itself where the CPU has it, unless told.
HINTS = {"fp32": "f32", "fp16": "bf16", "int8": "f32"}


def missing() -> str | None:
    """Say what to install, or why OpenVINO cannot run here; None where it can."""
    try:
        import_module("openvino")
    except ImportError:
        return "openvino is not installed: pip install 'lithostream[openvino]'"
    return None


class OpenVinoSession:
    """One compiled model of one padded batch size, on one stream of `threads` threads.

    Two streams of one thread each were measured no faster on two cores (ResNet-18, batch 32).

    Parameters
    ----------
    bundle : Bundle
        Verified bundle; its bytes are loaded, never its path.
    batch : int
        Tiles per call.
    threads : int
        Of the one stream.
    precision : {"fp32", "fp16", "int8"}
        fp32 is held to float32 throughout, and so is what int8 leaves unquantised. CPUs compute bf16 rather than
        fp16: "fp16" is the fp32 graph in bf16, whether or not the bundle has an fp16 variant; the golden gate
        allows it `BF16_TOLERANCE`.

    Raises
    ------
    BackendError
        This CPU lacks bf16, or OpenVINO refuses the graph.
    """

    on_gpu: Final = False

    def __init__(self, bundle: Bundle, *, batch: int, threads: int, precision: Precision = "fp32") -> None:
        ov = import_module("openvino")
        self.precision: Precision = precision
        hint, version = HINTS[precision], str(ov.get_version()).partition("-")[0]
        self.backend = f"openvino {version} CPU {'int8' if precision == 'int8' else hint}"
        core = ov.Core()
        if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError(
                "this CPU has no bf16, which OpenVINO needs for fp16", fix="choose --precision fp32"
            )
        size, channels = bundle.manifest.input.size_px, bundle.manifest.input.channels
        self._targets = len(bundle.manifest.outputs)
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        }
        with typed_errors("openvino", RuntimeError):
            self._batch = np.zeros((batch, size, size, channels), np.uint8)
            model = core.read_model(bundle.graph("int8" if precision == "int8" else "fp32"))
            _check_signature(model, bundle, precision)
            model.reshape({"tiles": self._batch.shape})
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `Session.infer`."""
        properties = np.empty((len(tiles), self._targets), np.float32)
        distance = np.empty(len(tiles), np.float32)
        step = len(self._batch)
        for start in range(0, len(tiles), step):
            part = tiles[start : start + step]
            self._batch[: len(part)] = part
            with typed_errors("openvino", RuntimeError):
                found = self._request.infer({"tiles": self._batch}, share_inputs=True)
            properties[start : start + step] = found["properties"][: len(part)]
            distance[start : start + step] = found["distance"][: len(part)]
        return properties, distance


def _check_signature(model: object, bundle: Bundle, precision: Precision) -> None:
    """Refuse a graph that is not what the manifest states; a batch of any size is written -1."""
    sides: dict[str, dict[str, tuple[str, list[int]]]] = {}
    for side in ("inputs", "outputs"):
        sides[side] = {
            port.get_any_name(): (
                port.element_type.get_type_name(),
                [one.get_length() if one.is_static else -1 for one in port.partial_shape],
            )
            for port in getattr(model, side)
        }
    size, channels = bundle.manifest.input.size_px, bundle.manifest.input.channels
    wanted = {"properties": ("f32", [-1, len(bundle.manifest.outputs)]), "distance": ("f32", [-1])}
    found = {name: port for name, port in sides["outputs"].items() if name != "rows"}
    if sides["inputs"] != {"tiles": ("u8", [-1, size, size, channels])} or found != wanted:
        raise BundleError(
            f"graph has {sides}, the manifest needs u8 tiles [N, {size}, {size}, {channels}] and {wanted}",
            file=bundle.path / model_file(precision),
            fix="export the bundle again",
        )
