"""What one lane does to one window: every stage from pixels to what the tables need of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lithostream.engine.config import RunSettings
from lithostream.engine.core.calibration import Calibration
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.pooling import WindowSegments, no_segments, pool, superpixels
from lithostream.engine.core.results import TileResult
from lithostream.engine.core.rows import tile_colour
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.join import Seam
from lithostream.engine.core.segmenter.stage import segment
from lithostream.engine.core.windows import Block, Window, find_core, window_tiles
from lithostream.engine.device import HOST, Device, uploaded
from lithostream.engine.inference import Predictor
from lithostream.engine.io.planes import PlaneImage
from lithostream.engine.manifest import Manifest
from lithostream.kernels.arrays import array_module, to_host

PREVIEW_PX_PER_CM = 20.0  # enough for a 2x figure of a metre of core

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SectionPlan:
    """What every window of a section shares.

    Attributes
    ----------
    grid : Grid
        As high as the section may become; a block knows better.
    manifest : Manifest
    settings : RunSettings
    planes : sequence of PlaneImage
    core_cm : (float, float), optional
        Where the instrument knows core to lie.
    known_instrument : bool
        The model was trained on such images.
    calibration : Calibration, optional
        How its colours become reflectance.
    """

    grid: Grid
    manifest: Manifest
    settings: RunSettings
    planes: Sequence[PlaneImage]
    core_cm: tuple[float, float] | None
    known_instrument: bool
    calibration: Calibration | None

    @property
    def preview_step(self) -> int:
        """Pixels of the image between those of the preview."""
        return max(1, round(self.grid.px_per_cm / PREVIEW_PX_PER_CM))


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What a window leaves behind: numbers and a preview, never pixels at full scale.

    Attributes
    ----------
    tiles : TileResult
    uncovered : int
        Tiles with enough core that a plane does not cover.
    labels : int32 [h, W]
        Segments of the window, from 1.
    segments : WindowSegments
    superpixels : WindowSegments, optional
        Where masks refined them into the segments: what lies in each of them.
    seams : (Seam, Seam), optional
        What the segmenter saw at the window's first row and after its last.
    core_px : int64 [h]
        Core pixels of each row.
    preview : uint8 [p, w, 3]
    preview_mask : bool [p, w]
    lost : bool [h], optional
        Rows that never arrived.
    """

    tiles: TileResult
    uncovered: int
    labels: npt.NDArray[np.int32]
    segments: WindowSegments
    superpixels: WindowSegments | None
    seams: tuple[Seam, Seam] | None
    core_px: Ints
    preview: npt.NDArray[np.uint8]
    preview_mask: Bools
    lost: Bools | None


Serving_co = TypeVar("Serving_co", bound=Predictor, covariant=True)


@dataclass(frozen=True, slots=True)
class Tools(Generic[Serving_co]):
    """What a lane has for itself.

    Attributes
    ----------
    session : Predictor
    segmenter : Segmenter, optional
    device : Device
        Where the pixels of a window lie: on a GPU where the session takes tiles there.
    """

    session: Serving_co
    segmenter: Segmenter | None
    device: Device = HOST


class Lanes(Protocol):
    """Threads that do windows side by side."""

    def map(
        self, work: Callable[[Block, Tools[Predictor]], WindowResult], items: Iterable[Block]
    ) -> Iterator[WindowResult]:
        """Yield what becomes of each block, in their order."""
        ...


def process_window(block: Block, plan: SectionPlan, tools: Tools[Predictor]) -> WindowResult:
    """Run every stage over one window; depends on nothing but its pixels and the plan.

    The window's bytes go to the lane's device once, and only what `WindowResult` holds comes back.

    Raises
    ------
    BackendMemoryError, BackendError
        The session, or its device, ran out of memory or failed.
    """
    with tools.device.current():
        return _processed(replace(block, slab=uploaded(block.slab, tools.device)), plan, tools)


def _processed(block: Block, plan: SectionPlan, tools: Tools[Predictor]) -> WindowResult:
    grid, manifest, settings = block.grid, plan.manifest, plan.settings
    window = find_core(block, grid, settings, plan.core_cm)
    found = window_tiles(window, grid, manifest.input, settings, plan.planes)
    properties, distance = (to_host(part) for part in tools.session.infer(found.pixels))
    outside = (distance > manifest.domain.distance_limit) | (not plan.known_instrument)
    segments = _segments(block, window, plan, tools)
    values = np.concatenate([properties, outside[:, None].astype(np.float32)], axis=1)
    pooled = partial(pool, window, grid, found=found, values=values, calibration=plan.calibration)
    step = plan.preview_step
    first = -window.row_px % step
    return WindowResult(
        tiles=TileResult(
            found.row,
            found.col,
            found.core_fraction,
            properties.astype(np.float64),
            distance.astype(np.float64),
            outside,
            tile_colour(found.pixels),
        ),
        uncovered=found.uncovered,
        labels=segments.labels,
        segments=no_segments(values.shape[1])
        if segments.placed is None
        else pooled(segments.placed, segments.parent),
        superpixels=None if segments.superpixels is None else pooled(segments.superpixels, None),
        seams=segments.seams,
        core_px=to_host(array_module(window.mask).count_nonzero(window.mask, axis=1)),
        preview=to_host(window.rgb[first::step, ::step].copy()),
        preview_mask=to_host(window.mask[first::step, ::step].copy()),
        lost=None if block.slab.lost is None else block.slab.lost[block.halo_px :][: block.height_px],
    )


class _Segments(NamedTuple):
    """Segments of a window: `labels` on the host, `placed` the same where the window lies, as the refined superpixels."""

    labels: npt.NDArray[np.int32]
    placed: npt.NDArray[np.int32] | None
    superpixels: npt.NDArray[np.int32] | None
    parent: Ints | None
    seams: tuple[Seam, Seam] | None


def _segments(block: Block, window: Window, plan: SectionPlan, tools: Tools[Predictor]) -> _Segments:
    grid, settings = block.grid, plan.settings
    if not settings.segments:
        return _Segments(np.zeros(window.mask.shape, np.int32), None, None, None, None)
    labels = superpixels(window, grid, settings)
    if tools.segmenter is None:
        return _Segments(tools.device.download(labels), labels, None, None, None)
    seen = segment(block, window, labels, tools.segmenter, grid.window_px, grid.height_px)
    refined = seen.refined
    placed = tools.device.upload(refined.labels)
    return _Segments(refined.labels, placed, labels, refined.parent, (seen.above, seen.below))
