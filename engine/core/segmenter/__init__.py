"""From a view of the core and prompts on it to masks of its objects."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.segmenter.masks import Limits, MaskSet, accept, joined, no_masks, suppress
from lithostream.engine.inference.segmenter import SegmenterSession
from lithostream.engine.inference.segmenter_cuda import SegmenterCudaSession
from lithostream.kernels.arrays import check_array, to_host
from lithostream.kernels.errors import ContractError

__all__ = ["MaskSet", "Segmenter"]

HELD = 2048  # masks of 64 kB that wait for the suppression

Floats = npt.NDArray[np.float32]


class Segmenter:
    """The segmenter of a bundle. Serves one thread.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        Of the host; never changes a result.
    gpu : bool
        Whether the networks run on the current GPU.

    Raises
    ------
    BundleError
        The bundle holds no segmenter.
    BackendError
        ONNX Runtime is not installed, cannot use a GPU here, or refuses a graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1, gpu: bool = False) -> None:
        kind = SegmenterCudaSession if gpu else SegmenterSession
        self._session = kind(bundle, threads=threads)
        stated = bundle.manifest.segmenter
        assert stated is not None  # as the session holds
        self.view_px = stated.view_px
        self.limits = Limits(stated.min_quality, stated.min_stability)

    @property
    def on_gpu(self) -> bool:
        """Whether views are best given where they lie on the GPU."""
        return self._session.on_gpu

    @property
    def backend(self) -> str:
        """Inference runtime, its version and provider."""
        return self._session.backend

    def masks(
        self,
        view: npt.NDArray[np.uint8],
        points: Floats,
        boxes: Floats | None = None,
        *,
        valid: tuple[int, int] | None = None,
    ) -> MaskSet:
        """Find the objects that prompts point at.

        Parameters
        ----------
        view : uint8 [S, S, 3]
            sRGB; S is `view_px`. On the host or on the GPU; copied once where the networks run on the other.
        points : float32 [P, 2]
            x, y in px of the view. Any P; 0 gives the empty set.
        boxes : float32 [P, 4], optional
            x, y of two corners; zeros where a point stands alone.
        valid : (int, int), optional
            Rows and columns of the view that are image, at its top left; all where absent. What lies beyond is never seen.

        Returns
        -------
        MaskSet
            On the host. Of the three masks of each prompt those of enough quality and stability, without repetition, best first.
            Past `HELD` candidates those found so far are thinned before more are taken, so that memory is bounded.

        Raises
        ------
        ContractError
            An array of another shape or dtype, or `valid` outside the view.
        BackendError
            The runtime failed.
        """
        side = self.view_px
        valid = (side, side) if valid is None else valid
        check_array("view", view, dtype=np.uint8, shape=(side, side, 3))
        check_array("points", points, dtype=np.float32, shape=(None, 2))
        if boxes is not None:
            check_array("boxes", boxes, dtype=np.float32, shape=(len(points), 4))
        if not all(0 < edge <= side for edge in valid):
            raise ContractError(f"valid: expected 1 to {side} rows and columns, got {valid}")
        found = [no_masks(side // 4)]
        if len(points):
            self._session.encode(view if self.on_gpu else to_host(view), valid)
        inside = (-(-valid[0] // 4), -(-valid[1] // 4))
        for start in range(0, len(points), self._session.prompts):
            part = slice(start, start + self._session.prompts)
            logits, quality = self._session.decode(points[part], None if boxes is None else boxes[part])
            found.append(accept(logits, quality, points[part], start, inside, self.limits))
            if sum(len(one.quality) for one in found) > HELD:
                found = [suppress(joined(found), self.limits)]
        return suppress(joined(found), self.limits)
