"""SLIC beside skimage and fast-slic: smooth regions and one window of a generated core."""

import os

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import ndimage

from lithostream.engine.core.synthetic import generate
from lithostream.kernels import slic
from lithostream.kernels.superpixels import PIXELS_PER_THREAD

SEGMENTS = 400
IMAGES = ("core", "smooth")

Image = npt.NDArray[np.uint8]


def core() -> Image:
    return generate(1, length_cm=60, width_cm=8, px_per_cm=60).image[600:1560].copy()


def smooth() -> Image:
    """Blobs of eight colours and of sizes from 6 to 40 px, under weak noise."""
    rng = np.random.default_rng(0)
    shape = (960, 480)
    fields = [
        ndimage.gaussian_filter(rng.normal(size=shape), size) for size in (6, 9, 12, 16, 20, 26, 32, 40)
    ]
    region = np.argmax([field / field.std() for field in fields], axis=0)
    grain = 20 * ndimage.gaussian_filter(rng.normal(size=(*shape, 3)), (1.2, 1.2, 0)) + rng.normal(
        0, 3, (*shape, 3)
    )
    image: Image = np.clip(rng.uniform(40, 220, (8, 3))[region] + grain, 0, 255).astype(np.uint8)
    return image


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    return {"core": core(), "smooth": smooth()}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.benchmark(group="slic")
def bench_slic(benchmark: BenchmarkFixture, images: dict[str, Image], name: str) -> None:
    image = images[name]
    labels = benchmark(slic, image, n_segments=SEGMENTS, compactness=10.0)
    assert labels.min() == 1
    assert 0.5 * SEGMENTS < labels.max() < 2 * SEGMENTS
    benchmark.extra_info["bytes"] = image.nbytes + labels.nbytes
    benchmark.extra_info["operations"] = labels.size * 480


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.benchmark(group="slic")
def bench_slic_peer_skimage(benchmark: BenchmarkFixture, images: dict[str, Image], name: str) -> None:
    segmentation = pytest.importorskip("skimage.segmentation", reason="peer: pip install 'lithostream[dev]'")
    benchmark(segmentation.slic, images[name], n_segments=SEGMENTS, compactness=10.0, start_label=1)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.benchmark(group="slic")
def bench_slic_peer_fast_slic(benchmark: BenchmarkFixture, images: dict[str, Image], name: str) -> None:
    # No extra names it: its source package builds only where NumPy is installed first, and for AVX2 only when asked.
    avx2 = pytest.importorskip(
        "fast_slic.avx2",
        reason="peer: USE_AVX2=1 pip install --no-build-isolation fast-slic (after pip install numpy cython)",
        exc_type=ImportError,
    )
    threads = min(os.cpu_count() or 1, 1 + images[name][..., 0].size // PIXELS_PER_THREAD)

    def run() -> npt.NDArray[np.int16]:
        peer = avx2.SlicAvx2(num_components=SEGMENTS, compactness=10, num_threads=threads)
        labels: npt.NDArray[np.int16] = peer.iterate(images[name], 10)
        return labels

    labels = benchmark(run)
    assert 0.5 * SEGMENTS < len(np.unique(labels)) < 2 * SEGMENTS
