"""The segmenter's two graphs on ONNX Runtime's CPU provider, and what a session on a GPU shares with it."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle, SegmenterGraphs
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.graph_segmenter import IMAGE_SIDE
from lithostream.engine.inference.onnxruntime import missing, open_graph, runtime_errors, session_name
from lithostream.engine.segmenter_golden import SegmenterGolden, mask_iou
from lithostream.kernels.arrays import to_host

PROMPTS = 16
"""Prompts a call: fixed, so that results do not depend on how many there are; more do not fit the cache."""

Floats = npt.NDArray[np.float32]


class SegmenterSession:
    """Encodes a view once and decodes prompts on it, always `prompts` a call. Serves one thread.

    It has met the bundle's golden cases once it is open.

    Parameters
    ----------
    bundle : Bundle
        Verified bundle that holds a segmenter.
    threads : int
        Intra-op threads.

    Attributes
    ----------
    backend : str
        Runtime, version and provider.
    prompts : int
        Most prompts of a call.
    on_gpu : bool
        Whether masks are CuPy's.

    Raises
    ------
    BundleError
        The bundle holds no segmenter, or the golden cases are missed.
    BackendError
        ONNX Runtime is not installed, or refuses a graph.
    """

    backend: str
    prompts = PROMPTS
    on_gpu = False

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        stated, golden = bundle.manifest.segmenter, bundle.segmenter_golden
        if bundle.segmenter is None or stated is None or golden is None:
            raise BundleError(
                "holds no segmenter", file=bundle.path, fix="export the bundle with a segmenter's checkpoint"
            )
        reason = self._missing()
        if reason is not None:
            raise BackendError("the segmenter runs on ONNX Runtime", fix=reason)
        self._points = np.zeros((self.prompts, 2), np.float32)
        self._boxes = np.zeros((self.prompts, 4), np.float32)
        self._open(bundle.segmenter, stated.view_px, threads)
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
        """Give masks of up to `prompts` prompts on the view taken last.

        Parameters
        ----------
        points : float32 [P, 2]
        boxes : float32 [P, 4], optional
            No box where the second corner is not to the right of the first.

        Returns
        -------
        logits : float32 [P, 3, S / 4, S / 4]
        quality : float32 [P, 3]
            Both may be the session's own memory, which the next call writes over: copy what is to stay.
        """
        count = len(points)
        self._points[:count], self._points[count:] = points, 0
        self._boxes[:] = 0
        if boxes is not None:
            self._boxes[:count] = boxes
        logits, quality = self._decoded()
        return logits[:count], quality[:count]

    def _missing(self) -> str | None:
        return missing()

    def _open(self, graphs: SegmenterGraphs, _view_px: int, threads: int) -> None:
        self._encoder, self._decoder = (open_graph(one, threads) for one in (graphs.encoder, graphs.decoder))
        self.backend = session_name(self._encoder)

    def _decoded(self) -> tuple[Floats, Floats]:
        """Masks of the prompts in `_points` and `_boxes`."""
        given = {**self._image, "points": self._points, "boxes": self._boxes}
        with runtime_errors():
            logits, quality = self._decoder.run(("logits", "quality"), given)
        return logits, quality


def golden_deviation(session: SegmenterSession, golden: SegmenterGolden, view_px: int) -> tuple[float, float]:
    """Mean IoU of a session's masks with the golden ones, and the largest deviation of their quality."""
    ious, gaps = [], []
    rows, columns = golden.masks.shape[-2:]
    for window, points, boxes, masks, quality in zip(*golden, strict=True):
        view = np.zeros((view_px, view_px, 3), np.uint8)
        view[: window.shape[0], : window.shape[1]] = window
        session.encode(view, window.shape[:2])
        logits, found = session.decode(points, boxes)
        ious.append(mask_iou(to_host(logits[..., :rows, :columns] > 0), masks))
        gaps.append(np.abs(to_host(found) - quality))
    return float(np.mean(ious)), float(np.max(gaps))
