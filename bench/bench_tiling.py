"""Area-resampled tiles beside Pillow's box filter, tile by tile."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import tiles

EDGES = np.arange(0, 1201, 40, dtype=np.int64)
SIZE = 32

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def image() -> Bytes:
    return np.random.default_rng(3).integers(0, 256, (1200, 1200, 3), np.uint8)


def pillow_tiles(image: Bytes) -> Bytes:
    picture = Image.fromarray(image)
    return np.stack(
        [
            np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX, box=(x, y, x + 40, y + 40)))
            for y in EDGES[:-1].tolist()
            for x in EDGES[:-1].tolist()
        ]
    )


@pytest.mark.benchmark(group="tiles")
def bench_tiles(benchmark: BenchmarkFixture, image: Bytes) -> None:
    found = benchmark(tiles, image, EDGES, EDGES, SIZE)
    # Pillow's box filter takes whole source pixels, ours integrates their parts: noise differs, the mean does not.
    assert abs(found.mean() - pillow_tiles(image).mean()) < 0.5


@pytest.mark.benchmark(group="tiles")
def bench_tiles_peer_pillow(benchmark: BenchmarkFixture, image: Bytes) -> None:
    benchmark(pillow_tiles, image)
