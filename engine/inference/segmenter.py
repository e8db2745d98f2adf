"""The segmenter's two graphs on ONNX Runtime's CPU provider."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.graph_segmenter import IMAGE_SIDE
from lithostream.engine.inference.onnxruntime import missing, open_graph, runtime_errors, session_name
from lithostream.engine.segmenter_golden import SegmenterGolden, mask_iou

PROMPTS = 16
"""Prompts a call: fixed, so that results do not depend on how many there are; more do not fit the cache."""

Floats = npt.NDArray[np.float32]


class SegmenterSession:
    """Encodes a view once and decodes prompts on it, always `PROMPTS` a call. Serves one thread.

    It has met the bundle's golden cases once it is open.

    Parameters
    ----------
    bundle : Bundle
        Verified bundle that holds a segmenter.
    threads : int
        Intra-op threads.

    Raises
    ------
    BundleError
        The bundle holds no segmenter, or the golden cases are missed.
    BackendError
        ONNX Runtime is not installed, or refuses a graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        stated, golden = bundle.manifest.segmenter, bundle.segmenter_golden
        if bundle.segmenter is None or stated is None or golden is None:
            raise BundleError(
                "holds no segmenter", file=bundle.path, fix="export the bundle with a segmenter's checkpoint"
            )
        reason = missing()
        if reason is not None:
            raise BackendError("the segmenter runs on ONNX Runtime", fix=reason)
        self._encoder, self._decoder = (
            open_graph(graph, threads) for graph in (bundle.segmenter.encoder, bundle.segmenter.decoder)
        )
        self.backend = session_name(self._encoder)
        self._image: dict[str, Floats] = {}
        self._points = np.zeros((PROMPTS, 2), np.float32)
        self._boxes = np.zeros((PROMPTS, 4), np.float32)
        iou, gap = golden_deviation(self, golden, stated.view_px)
        if not (iou >= stated.golden_iou and gap <= stated.golden_quality):  # NaN is a miss too
            raise BundleError(
                f"{self.backend} misses the segmenter's golden cases: masks have a mean IoU of {iou:.4f} with"
                f" those expected ({stated.golden_iou:g} is needed), quality is off by {gap:.3g}"
                f" ({stated.golden_quality:g} is allowed)",
                file=bundle.path,
                fix="use another runtime version, or export the bundle again",
            )

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


def golden_deviation(session: SegmenterSession, golden: SegmenterGolden, view_px: int) -> tuple[float, float]:
    """Mean IoU of a session's masks with the golden ones, and the largest deviation of their quality."""
    ious, gaps = [], []
    rows, columns = golden.masks.shape[-2:]
    for window, points, boxes, masks, quality in zip(*golden, strict=True):
        view = np.zeros((view_px, view_px, 3), np.uint8)
        view[: window.shape[0], : window.shape[1]] = window
        session.encode(view, window.shape[:2])
        logits, found = session.decode(points, boxes)
        ious.append(mask_iou(logits[..., :rows, :columns] > 0, masks))
        gaps.append(np.abs(found - quality))
    return float(np.mean(ious)), float(np.max(gaps))
