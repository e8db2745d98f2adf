"""Array in, array out: the operations, and nothing about cores, depths or files."""

from lithostream.kernels.gridding import idw
from lithostream.kernels.roi import core_boxes, core_roi
from lithostream.kernels.segments import segment_stats
from lithostream.kernels.superpixels import slic
from lithostream.kernels.tiling import tiles
from lithostream.kernels.unmixing import nnls

__all__ = ["core_boxes", "core_roi", "idw", "nnls", "segment_stats", "slic", "tiles"]
