"""The segmenter's two graphs on ONNX Runtime's CPU provider."""

from importlib import import_module

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.graph_segmenter import IMAGE_SIDE
from lithostream.engine.inference.onnxruntime import _errors as runtime_errors
from lithostream.engine.inference.onnxruntime import missing

PROMPTS = 16
"""Prompts a call: fixed, so that results do not depend on how many there are; more do not fit the cache."""

Floats = npt.NDArray[np.float32]


class SegmenterSession:
    """Encodes a view once and decodes prompts on it, always `PROMPTS` a call. Serves one thread.

    Parameters
    ----------
    bundle : Bundle
        Verified bundle that holds a segmenter.
    threads : int
        Intra-op threads.

    Raises
    ------
    BundleError
        The bundle holds no segmenter.
    BackendError
        ONNX Runtime is not installed, or refuses a graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        if bundle.segmenter is None:
            raise BundleError(
                "holds no segmenter", file=bundle.path, fix="export the bundle with a segmenter's checkpoint"
            )
        reason = missing()
        if reason is not None:
            raise BackendError("the segmenter runs on ONNX Runtime", fix=reason)
        ort = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with runtime_errors():
            self._encoder, self._decoder = (
                ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
                for graph in (bundle.segmenter.encoder, bundle.segmenter.decoder)
            )
        self._image: dict[str, Floats] = {}
        self._points = np.zeros((PROMPTS, 2), np.float32)
        self._boxes = np.zeros((PROMPTS, 4), np.float32)

    def encode(self, view: npt.NDArray[np.uint8], valid: tuple[int, int]) -> None:
        """Take a view uint8 [S, S, 3], of which `valid` rows and columns are image."""
        given = {"view": view[None], "valid": np.array(valid, np.int64)}
        with runtime_errors():
            found = self._encoder.run(IMAGE_SIDE, given)
        self._image = dict(zip(IMAGE_SIDE, found, strict=True))

    def decode(self, points: Floats, boxes: Floats | None) -> tuple[Floats, Floats]:
        """Give masks of up to `PROMPTS` prompts on the view taken last.

        Parameters
        ----------
        points : float32 [P, 2]
        boxes : float32 [P, 4], optional
            No box where the second corner is not to the right of the first.

        Returns
        -------
        logits : float32 [P, 3, S / 4, S / 4]
        quality : float32 [P, 3]
        """
        count = len(points)
        self._points[:count], self._points[count:] = points, 0
        self._boxes[:] = 0
        if boxes is not None:
            self._boxes[:count] = boxes
        with runtime_errors():
            logits, quality = self._decoder.run(
                ("logits", "quality"), {**self._image, "points": self._points, "boxes": self._boxes}
            )
        return logits[:count], quality[:count]
