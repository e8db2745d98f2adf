"""ONNX Runtime on the CPU: the default, and the oracle of every other session."""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from lithostream.engine.bundle import MODEL, Bundle
from lithostream.engine.errors import BundleError


class OnnxRuntimeSession:
    """One ONNX Runtime CPU session that always runs one padded batch size.

    Parameters
    ----------
    bundle : Bundle
        Verified bundle; its bytes are loaded, never its path.
    batch : int
        Tiles per call.
    threads : int
        Intra-op threads.
    """

    def __init__(self, bundle: Bundle, *, batch: int, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
        self._targets = len(bundle.manifest.outputs)
        size, channels = bundle.manifest.input.size_px, bundle.manifest.input.channels
        self._batch = np.zeros((batch, size, size, channels), np.uint8)
        self._check_signature(bundle)

    @property
    def backend(self) -> str:
        """Runtime and version."""
        return f"onnxruntime {ort.__version__} {self._session.get_providers()[0]}"

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `Session.infer`."""
        properties = np.empty((len(tiles), self._targets), np.float32)
        distance = np.empty(len(tiles), np.float32)
        step = len(self._batch)
        for start in range(0, len(tiles), step):
            part = tiles[start : start + step]
            self._batch[: len(part)] = part
            found = self._session.run(["properties", "distance"], {"tiles": self._batch})
            properties[start : start + step] = found[0][: len(part)]
            distance[start : start + step] = found[1][: len(part)]
        return properties, distance

    def _check_signature(self, bundle: Bundle) -> None:
        size, channels = bundle.manifest.input.size_px, bundle.manifest.input.channels
        inputs = [(i.name, i.type, list(i.shape[1:])) for i in self._session.get_inputs()]
        outputs = {o.name: (o.type, list(o.shape[1:])) for o in self._session.get_outputs()}
        wanted = {"properties": ("tensor(float)", [self._targets]), "distance": ("tensor(float)", [])}
        if "rows" in outputs:  # within a tile: may be given too, any number of them, and is not asked for
            wanted["rows"] = ("tensor(float)", [*outputs["rows"][1][:1], self._targets])
        if inputs != [("tiles", "tensor(uint8)", [size, size, channels])] or outputs != wanted:
            raise BundleError(
                f"graph takes {inputs} and gives {outputs}, the manifest needs"
                f" uint8 tiles [N, {size}, {size}, {channels}] and {wanted}",
                file=bundle.path / MODEL,
                fix="export the bundle again",
            )
