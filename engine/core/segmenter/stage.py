"""Segments of one window: superpixels, refined by the masks of a segmenter."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.join import Seam, seam
from lithostream.engine.core.segmenter.masks import MaskSet
from lithostream.engine.core.segmenter.merge import merge
from lithostream.engine.core.segmenter.objects import find_objects
from lithostream.engine.core.segmenter.prompts import prompts
from lithostream.engine.core.segmenter.refine import Refined, refine
from lithostream.engine.core.segmenter.view import View, halo_rows, view_of
from lithostream.engine.core.windows import Block, Window
from lithostream.kernels import segment_stats, slic
from lithostream.kernels.arrays import array_module, to_host
from lithostream.kernels.segments import SegmentStats

VIEW_SUPERPIXELS = 1000  # of a view, merged before they are asked for
ASKED = 4.0  # colour difference of those that are asked for as one: 96 % of what a grid of 1,024 points hits is hit
COMPACTNESS = 10.0  # of those

Labels = npt.NDArray[np.int32]


class Segmented(NamedTuple):
    """Segments of a window, and what joins them to those of its neighbours; on the host.

    Attributes
    ----------
    refined : Refined
    above, below : Seam
        At the window's first row and after its last.
    """

    refined: Refined
    above: Seam
    below: Seam


def segment(
    block: Block, window: Window, superpixels: Labels, segmenter: Segmenter, window_px: int, height_px: int
) -> Segmented:
    """Refine the superpixels of a window, on the device where its pixels lie as far as pixels are read.

    Parameters
    ----------
    block : Block
        The window with its halo.
    window : Window
    superpixels : int32 [H, W]
        Of the window, where it lies.
    segmenter : Segmenter
    window_px : int
        Rows of the section's largest window: one scale for all views.
    height_px : int
        Rows of the section.
    """
    view = view_of(block, window_px, segmenter.view_px)
    objects = find_objects(view_masks(view, segmenter), view)
    stats = _stats(superpixels, window.rgb)
    refined = refine(to_host(superpixels), stats, objects, view, window.row_px)
    halo = halo_rows(window_px)
    edges = (window.row_px, window.row_px + len(window.rgb))
    above, below = (seam(objects, refined, view, edge, halo, height_px) for edge in edges)
    return Segmented(refined, above, below)


def view_masks(view: View, segmenter: Segmenter) -> MaskSet:
    """Ask for the object at the middle of every region of a view."""
    shown = array_module(view.rgb).ascontiguousarray(view.rgb[: view.valid[0], : view.valid[1]])
    superpixels = slic(shown, n_segments=VIEW_SUPERPIXELS, compactness=COMPACTNESS)
    labels = to_host(superpixels)
    regions = merge(labels, _stats(superpixels, shown), threshold=ASKED)
    asked = np.concatenate([[0], regions]).astype(np.int32)[labels]
    return segmenter.masks(view.rgb, prompts(asked), valid=view.valid)


def _stats(superpixels: Labels, rgb: npt.NDArray[np.uint8]) -> SegmentStats:
    """Colours of superpixels, pooled where they lie, on the host."""
    return SegmentStats(*(to_host(part) for part in segment_stats(superpixels, rgb)))
