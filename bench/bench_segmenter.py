"""The segmenter beside `SamAutomaticMaskGenerator` with its defaults: one view of 512 px of a generated core.

The network is the small Segment Anything that ships, here with random weights: times depend on its shape alone, but
for what is done with the masks that are found, which both do little of here.
"""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.engine.bundle import Bundle, SegmenterGraphs
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.prompts import prompts
from lithostream.engine.segmenter_golden import SegmenterGolden
from lithostream.kernels import slic

torch = pytest.importorskip("torch", reason="weights and peer: pip install 'lithostream[train]'")
segment_anything = pytest.importorskip("segment_anything", reason="peer: pip install 'lithostream[train]'")

REGIONS, VIEW_PX = 200, 512

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def sam() -> Any:
    from lithostream.training.models.small_sam import small_sam

    torch.manual_seed(0)
    torch.set_num_threads(1)
    return small_sam().eval()


@pytest.fixture(scope="module")
def segmenter(sam: Any) -> Segmenter:
    from lithostream.export.segmenter import export_segmenter, stated_segmenter

    made = export_segmenter(sam)
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(segmenter=stated_segmenter(sam)),
        segmenter=SegmenterGraphs(made.encoder, made.decoder),
        segmenter_golden=SegmenterGolden.from_bytes(made.golden, VIEW_PX),
    )
    return Segmenter(cast(Bundle, bundle), threads=1)


@pytest.fixture(scope="module")
def view() -> Image:
    from lithostream.export.segmenter_masks import gate_views

    found: Image = gate_views(VIEW_PX)[0]
    return found


@pytest.mark.benchmark(group="segmenter")
def bench_segmenter(benchmark: BenchmarkFixture, segmenter: Segmenter, view: Image) -> None:
    def run() -> int:
        points = prompts(slic(view, n_segments=REGIONS, compactness=10.0))
        segmenter.masks(view, points)
        return len(points)

    assert 0.5 * REGIONS < benchmark(run) < 2 * REGIONS


@pytest.mark.benchmark(group="segmenter")
def bench_segmenter_peer_generator(benchmark: BenchmarkFixture, sam: Any, view: Image) -> None:
    generator = segment_anything.SamAutomaticMaskGenerator(sam)
    benchmark(generator.generate, view)
