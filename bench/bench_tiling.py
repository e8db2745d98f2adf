"""Tiles beside Pillow's box filter, tile by tile, and beside what PyTorch does to cut and normalise a batch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.kernels import tiles

RESAMPLED = [(40, 32), (79, 64), (200, 64), (20, 64), (303, 224)]
"""Edge of a cell, edge of a tile; of 303 px to 224 the sums are too large for the narrow way."""
SIZE = 200
ROWS = np.arange(400, 400 + 95 * SIZE + 1, SIZE, dtype=np.int64)
COLUMNS = np.arange(300, 300 + 6 * SIZE + 1, SIZE, dtype=np.int64)
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH = "peer: pip install 'lithostream[train]'"

Bytes = npt.NDArray[np.uint8]
Edges = npt.NDArray[np.int64]


def noise(height: int, width: int) -> Bytes:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def core() -> Bytes:
    return noise(20_000, 2_000)


def square_grid(cell: int) -> tuple[Bytes, Edges]:
    edges = np.arange(0, 1201, cell, dtype=np.int64)
    return noise(1200, 1200), edges


def pillow_tiles(image: Bytes, edges: Edges, size: int) -> Bytes:
    picture, cell, corners = Image.fromarray(image), int(edges[1]), edges[:-1].tolist()
    return np.stack(
        [
            np.asarray(picture.resize((size, size), Image.Resampling.BOX, box=(x, y, x + cell, y + cell)))
            for y in corners
            for x in corners
        ]
    )


@pytest.mark.parametrize(("cell", "size"), RESAMPLED)
@pytest.mark.benchmark(group="tiles")
def bench_tiles(benchmark: BenchmarkFixture, cell: int, size: int) -> None:
    image, edges = square_grid(cell)
    found = benchmark(tiles, image, edges, edges, size)
    benchmark.extra_info["bytes"] = 3 * int(edges[-1]) ** 2 + found.nbytes
    # Pillow's box filter takes whole source pixels, ours integrates their parts: noise differs, the mean does not.
    assert abs(found.mean() - pillow_tiles(image, edges, size).mean()) < 0.5


@pytest.mark.parametrize(("cell", "size"), RESAMPLED)
@pytest.mark.benchmark(group="tiles")
def bench_tiles_peer_pillow(benchmark: BenchmarkFixture, cell: int, size: int) -> None:
    image, edges = square_grid(cell)
    benchmark(pillow_tiles, image, edges, size)


def torch_tiles(torch: Any, image: Bytes) -> Any:
    """Cut and normalise, float32 [N, 3, SIZE, SIZE]: what a network without normalisation inside is fed with."""
    mean = 255 * torch.tensor(MEAN)[None, :, None, None]
    spread = 255 * torch.tensor(SPREAD)[None, :, None, None]
    part = torch.from_numpy(image)[ROWS[0] : ROWS[-1], COLUMNS[0] : COLUMNS[-1]]
    cut = part.unfold(0, SIZE, SIZE).unfold(1, SIZE, SIZE).reshape(-1, 3, SIZE, SIZE)
    return (cut.float() - mean) * (1 / spread)


def check_against_torch(found: Bytes, image: Bytes) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    want = torch_tiles(torch, image).numpy()
    mean, spread = 255 * np.array(MEAN, np.float32), 255 * np.array(SPREAD, np.float32)
    for ours, theirs in zip(found.reshape(-1, SIZE, SIZE, 3)[::19], want[::19], strict=True):
        assert np.allclose((ours - mean) / spread, theirs.transpose(1, 2, 0), atol=1e-5)


@pytest.mark.benchmark(group="tiles_gather")
def bench_tiles_gather(benchmark: BenchmarkFixture, core: Bytes) -> None:
    out = np.zeros((95, 6, SIZE, SIZE, 3), np.uint8)
    found = benchmark(tiles, core, ROWS, COLUMNS, SIZE, out=out)
    benchmark.extra_info["bytes"] = 2 * out.nbytes
    assert found is out
    check_against_torch(found, core)


@pytest.mark.benchmark(group="tiles_gather")
def bench_tiles_gather_peer_torch(benchmark: BenchmarkFixture, core: Bytes) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    benchmark(torch_tiles, torch, core)


@pytest.mark.benchmark(group="tiles_view")
def bench_tiles_view(benchmark: BenchmarkFixture, core: Bytes) -> None:
    found = benchmark(tiles, core, ROWS, COLUMNS, SIZE)
    benchmark.extra_info["bytes"] = 0
    assert np.shares_memory(found, core)
    check_against_torch(found, core)


@pytest.mark.benchmark(group="tiles_view")
def bench_tiles_view_peer_torch(benchmark: BenchmarkFixture, core: Bytes) -> None:
    torch = pytest.importorskip("torch", reason=TORCH)
    benchmark(torch_tiles, torch, core)
