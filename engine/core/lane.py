"""What one lane does to one window: every stage from pixels to what the tables need of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lithostream.engine.config import RunSettings
from lithostream.engine.core.calibration import Calibration
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.pooling import WindowSegments, pool, superpixels
from lithostream.engine.core.rows import tile_colour
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.join import Seam
from lithostream.engine.core.segmenter.stage import segment
from lithostream.engine.core.windows import Block, count_uncovered, find_core, window_tiles
from lithostream.engine.inference import Predictor
from lithostream.engine.io.planes import PlaneImage
from lithostream.engine.manifest import Manifest

PREVIEW_PX_PER_CM = 20.0  # enough for a 2x figure of a metre of core

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SectionPlan:
    """What every window of a section shares.

    Attributes
    ----------
    grid : Grid
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
    def window_px(self) -> int:
        """Rows of the largest window."""
        return int(np.diff(self.grid.window_rows).max())

    @property
    def preview_step(self) -> int:
        """Pixels of the image between those of the preview."""
        return max(1, round(self.grid.px_per_cm / PREVIEW_PX_PER_CM))


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What a window leaves behind: numbers and a preview, never pixels at full scale.

    Attributes
    ----------
    row, col : int64 [N]
        Place of its tiles on the section's grid.
    core_fraction, distance : float64 [N]
    properties : float64 [N, T]
    outside : bool [N]
    colour : float64 [N, C]
        Means of the tiles' channels.
    uncovered : int
        Tiles with enough core that a plane does not cover.
    labels : int32 [h, W]
        Segments of the window, from 1.
    segments : WindowSegments
    seams : (Seam, Seam), optional
        What the segmenter saw at the window's first row and after its last.
    core_px : int64 [h]
        Core pixels of each row.
    preview : uint8 [p, w, 3]
    preview_mask : bool [p, w]
    """

    row: Ints
    col: Ints
    core_fraction: Floats
    distance: Floats
    properties: Floats
    outside: Bools
    colour: Floats
    uncovered: int
    labels: npt.NDArray[np.int32]
    segments: WindowSegments
    seams: tuple[Seam, Seam] | None
    core_px: Ints
    preview: npt.NDArray[np.uint8]
    preview_mask: Bools


Serving_co = TypeVar("Serving_co", bound=Predictor, covariant=True)


@dataclass(frozen=True, slots=True)
class Tools(Generic[Serving_co]):
    """What a lane has for itself.

    Attributes
    ----------
    session : Predictor
    segmenter : Segmenter, optional
    """

    session: Serving_co
    segmenter: Segmenter | None


class Lanes(Protocol):
    """Threads that do windows side by side."""

    def map(
        self, work: Callable[[Block, Tools[Predictor]], WindowResult], items: Iterable[Block]
    ) -> Iterator[WindowResult]:
        """Yield what becomes of each block, in their order."""
        ...


def process_window(block: Block, plan: SectionPlan, tools: Tools[Predictor]) -> WindowResult:
    """Run every stage over one window; depends on nothing but its pixels and the plan."""
    grid, manifest, settings = plan.grid, plan.manifest, plan.settings
    window = find_core(block, grid, settings, plan.core_cm)
    found = window_tiles(window, grid, manifest.input, settings, plan.planes)
    properties, distance = tools.session.infer(found.pixels)
    outside = (distance > manifest.domain.distance_limit) | (not plan.known_instrument)
    labels, parent, seams = superpixels(window, grid, settings), None, None
    if tools.segmenter is not None:
        seen = segment(block, window, labels, tools.segmenter, plan.window_px, grid.height_px)
        labels, parent, seams = seen.refined.labels, seen.refined.parent, (seen.above, seen.below)
    values = np.concatenate([properties, outside[:, None].astype(np.float32)], axis=1)
    step = plan.preview_step
    first = -window.row_px % step
    return WindowResult(
        row=found.row,
        col=found.col,
        core_fraction=found.core_fraction,
        distance=distance.astype(np.float64),
        properties=properties.astype(np.float64),
        outside=outside,
        colour=tile_colour(found.pixels),
        uncovered=count_uncovered(window, grid, settings, found),
        labels=labels,
        segments=pool(window, grid, labels, parent, found, values, plan.calibration),
        seams=seams,
        core_px=np.count_nonzero(window.mask, axis=1),
        preview=window.rgb[first::step, ::step].copy(),
        preview_mask=window.mask[first::step, ::step].copy(),
    )
