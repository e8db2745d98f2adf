"""TIFFs served in slabs: uncompressed beside a bare read of as many bytes, compressed beside tifffile."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.engine.core.synthetic import generate
from lithostream.engine.io.images import open_image

HEIGHT, WIDTH, SLAB_ROWS = 20_000, 2_000, 512
PACKED_HEIGHT = 5_000
STORED: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips of 256 rows": {"rowsperstrip": 256},
    "strips of one row": {"rowsperstrip": 1},
}
PACKED: dict[str, dict[str, Any]] = {
    "lzw": {"compression": "lzw", "predictor": True, "rowsperstrip": 64},
    "lzw, strips of one row": {"compression": "lzw", "predictor": True, "rowsperstrip": 1},
    "deflate": {"compression": "zlib", "predictor": True, "rowsperstrip": 64},
    "zstd": {"compression": "zstd", "predictor": True, "rowsperstrip": 64},
    "tiles": {"tile": (256, 256)},
}

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def core() -> Bytes:
    """Core with the noise of a sensor, which decides how well it packs."""
    image = generate(7, length_cm=PACKED_HEIGHT / 250, width_cm=WIDTH / 250, px_per_cm=250).image
    noise = np.random.default_rng(1).integers(-3, 4, image.shape, np.int8)
    return np.clip(image + noise.astype(np.int16), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def paths(core: Bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("decode")
    found: dict[str, Path] = {}
    for name, options in {**STORED, **PACKED}.items():
        found[name] = folder / f"{len(found)}.tif"
        pixels = np.tile(core, (HEIGHT // PACKED_HEIGHT, 1, 1)) if name in STORED else core
        tifffile.imwrite(found[name], pixels, photometric="rgb", metadata=None, **options)
    return found


def served(path: Path) -> int:
    return sum(len(slab.rgb) for slab in open_image(path).slabs(SLAB_ROWS))


def bare_read(path: Path, out: Bytes) -> int:
    """All bytes of the pixels in one call: these files hold little else."""
    with path.open("rb", buffering=0) as file:
        file.seek(-out.nbytes, os.SEEK_END)
        return int(file.readinto(out.data) or 0)


def same(path: Path, expected: Bytes) -> bool:
    slabs = open_image(path).slabs(SLAB_ROWS)
    return all(
        np.array_equal(slab.rgb, expected[slab.row_px : slab.row_px + len(slab.rgb)]) for slab in slabs
    )


@pytest.mark.parametrize("name", list(STORED))
@pytest.mark.benchmark(group="decode_stored")
def bench_decode_stored(benchmark: BenchmarkFixture, paths: dict[str, Path], name: str, core: Bytes) -> None:
    assert benchmark(served, paths[name]) == HEIGHT
    benchmark.extra_info["bytes"] = 2 * 3 * HEIGHT * WIDTH  # from the page cache into the slabs
    assert same(paths[name], np.tile(core, (HEIGHT // PACKED_HEIGHT, 1, 1)))


@pytest.mark.parametrize("name", list(STORED))
@pytest.mark.benchmark(group="decode_stored")
def bench_decode_stored_peer_readinto(benchmark: BenchmarkFixture, paths: dict[str, Path], name: str) -> None:
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert benchmark(bare_read, paths[name], out) == out.nbytes


@pytest.mark.parametrize("name", list(PACKED))
@pytest.mark.benchmark(group="decode")
def bench_decode(benchmark: BenchmarkFixture, paths: dict[str, Path], name: str, core: Bytes) -> None:
    assert benchmark(served, paths[name]) == PACKED_HEIGHT
    benchmark.extra_info["bytes"] = paths[name].stat().st_size + core.nbytes
    assert same(paths[name], core)


@pytest.mark.parametrize("name", list(PACKED))
@pytest.mark.benchmark(group="decode")
def bench_decode_peer_tifffile(benchmark: BenchmarkFixture, paths: dict[str, Path], name: str) -> None:
    """As it comes: one thread on two cores."""
    benchmark(tifffile.imread, paths[name])


@pytest.mark.parametrize("name", list(PACKED))
@pytest.mark.benchmark(group="decode")
def bench_decode_peer_tifffile_2(benchmark: BenchmarkFixture, paths: dict[str, Path], name: str) -> None:
    """Told to use two threads."""
    benchmark(tifffile.imread, paths[name], maxworkers=2)
