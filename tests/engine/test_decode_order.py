"""TIFFs decoded by several threads: the same pixels and errors for any number of them, and little read ahead."""

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from lithostream.engine.errors import DecodeError
from lithostream.engine.io import tiff_bands, tiff_strips
from lithostream.engine.io.images import open_image, read_image

Array = npt.NDArray[np.generic]
Bytes = npt.NDArray[np.uint8]
LAYOUTS: dict[str, dict[str, Any]] = {
    "none": {"rowsperstrip": 7},
    "lzw": {"rowsperstrip": 1, "compression": "lzw"},
    "lzw, predictor": {"rowsperstrip": 13, "compression": "lzw", "predictor": True},
    "deflate": {"rowsperstrip": 64, "compression": "zlib"},
    "deflate, predictor": {"rowsperstrip": 5, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (32, 48)},
    "deflate, tiles, predictor": {"tile": (32, 48), "compression": "zlib", "predictor": True},
    "jpeg": {"rowsperstrip": 16, "compression": "jpeg"},
}


@pytest.fixture
def noise(rng: np.random.Generator) -> Bytes:
    return rng.integers(0, 256, (301, 90, 3), dtype=np.uint8)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, memoryview]]:
    """Places and memory of all reads of strips and tiles."""
    found: list[tuple[int, memoryview]] = []
    read = os.preadv

    def noted(fd: int, buffers: list[memoryview], place: int) -> int:
        found.append((place, buffers[0]))
        return read(fd, buffers, place)

    monkeypatch.setattr(os, "preadv", noted)
    return found


def write(path: Path, pixels: Array, **options: Any) -> Path:
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **options)
    return path


def strips(path: Path) -> tuple[list[int], list[int]]:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        return list(page.dataoffsets), list(page.databytecounts)


def damage(path: Path, *numbers: int) -> None:
    data = bytearray(path.read_bytes())
    offsets, counts = strips(path)
    for number in numbers:
        data[offsets[number] : offsets[number] + counts[number]] = bytes(counts[number])
    path.write_bytes(data)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 50, 301])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_pixels_do_not_depend_on_the_threads(
    tmp_path: Path, noise: Bytes, monkeypatch: pytest.MonkeyPatch, layout: str, rows: int, workers: int
) -> None:
    monkeypatch.setattr(tiff_bands, "WORKERS", workers)
    monkeypatch.setattr(tiff_strips, "PIECE_BYTES", 6000)  # 22 rows
    path = write(tmp_path / "a.tif", noise, **LAYOUTS[layout])
    slabs = list(open_image(path).slabs(rows))
    assert [slab.row_px for slab in slabs] == list(range(0, 301, rows))
    expected = tifffile.imread(path) if layout == "jpeg" else noise
    np.testing.assert_array_equal(np.concatenate([slab.rgb for slab in slabs]), expected)
    assert all(slab.rgb.flags.writeable and slab.rgb.flags.c_contiguous for slab in slabs)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_deep_samples_and_alpha_across_slabs(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, workers: int, byteorder: Any
) -> None:
    monkeypatch.setattr(tiff_bands, "WORKERS", workers)
    monkeypatch.setattr(tiff_strips, "PIECE_BYTES", 6000)
    deep = rng.integers(0, 65536, (301, 40, 4), dtype=np.uint16)
    for number, options in enumerate(LAYOUTS.values()):
        if options.get("compression") != "jpeg":
            path = tmp_path / f"{number}.tif"
            write(path, deep, byteorder=byteorder, extrasamples=["unassalpha"], **options)
            slabs = list(open_image(path).slabs(50))
            rgb = np.concatenate([slab.rgb for slab in slabs])
            np.testing.assert_array_equal(rgb, np.floor(deep[..., :3] / 257 + 0.5))
            alpha = np.concatenate([slab.alpha for slab in slabs if slab.alpha is not None])
            np.testing.assert_array_equal(alpha, np.floor(deep[..., 3] / 257 + 0.5) >= 128)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_errors_come_in_their_turn(
    tmp_path: Path, noise: Bytes, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(tiff_bands, "WORKERS", workers)
    monkeypatch.setattr(tiff_strips, "PIECE_BYTES", 1)
    began, decode = threading.Event(), tiff_strips.decode_rows

    def upper_last(fd: int, layout: Any, top: int, base: int, out: Any = None) -> Any:
        if top == 120 and workers > 1:  # strip 12 waits until strip 13 has failed
            assert began.wait(10)
        try:
            return decode(fd, layout, top, base, out)
        finally:
            if top == 130:
                began.set()

    monkeypatch.setattr(tiff_bands, "decode_rows", upper_last)
    path = write(tmp_path / "a.tif", noise, rowsperstrip=10, compression="zlib")
    damage(path, 12, 13, 20)
    served: list[int] = []
    with pytest.raises(DecodeError) as caught:
        served.extend(slab.row_px for slab in open_image(path).slabs(50))
    assert served == [0, 50]
    assert caught.value.place == "strip 12, rows 120 to 129"


def test_brightness_is_refused_by_its_strip_within_a_piece(tmp_path: Path, noise: Bytes) -> None:
    deep = noise.astype(np.uint16)
    deep[177, 5, 1] = 1024
    for compression in (None, "lzw"):
        path = write(tmp_path / "a.tif", deep, rowsperstrip=10, compression=compression)
        with pytest.raises(DecodeError, match="1024, above the declared white level 1023") as caught:
            list(open_image(path, white_level=1023).slabs(301))
        assert caught.value.place == "strip 17, rows 170 to 179"


LONG_PX = (20_000, 600)  # 1.5 m at 133 px/cm
LONG: dict[str, dict[str, Any]] = {
    "one strip": {},
    "deflate": {"rowsperstrip": 64, "compression": "zlib"},
    "lzw, predictor": {"rowsperstrip": 1, "compression": "lzw", "predictor": True},
    "tiles": {"tile": (128, 128)},
}


@pytest.mark.parametrize("layout", list(LONG))
def test_the_first_slab_is_out_before_a_twentieth_is_read(
    tmp_path: Path,
    rng: np.random.Generator,
    reads: list[tuple[int, memoryview]],
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
) -> None:
    monkeypatch.setattr(tiff_bands, "WORKERS", 2)
    block = rng.integers(0, 256, (500, LONG_PX[1], 3), dtype=np.uint8)
    path = write(tmp_path / "a.tif", np.tile(block, (LONG_PX[0] // 500, 1, 1)), **LONG[layout])
    slabs = open_image(path).slabs(512)
    next(slabs)
    slabs.close()  # type: ignore[attr-defined]
    taken = sum(memory.nbytes for _, memory in reads)
    assert 0.9 * 512 / LONG_PX[0] < taken / sum(strips(path)[1]) < 0.05
    if layout == "one strip":
        assert taken == 512 * LONG_PX[1] * 3


def test_no_more_pieces_are_begun_than_there_are_threads(
    tmp_path: Path, noise: Bytes, reads: list[tuple[int, memoryview]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_bands, "WORKERS", 3)
    monkeypatch.setattr(tiff_strips, "PIECE_BYTES", 1)
    path = write(tmp_path / "a.tif", noise, rowsperstrip=10, compression="zlib")
    read: list[int] = []
    for _ in open_image(path).slabs(50):
        assert sum(thread.name.startswith("decode") for thread in threading.enumerate()) <= 3
        read.append(len(reads))
    assert all(count <= 5 * number + 3 for number, count in enumerate(read, 1))
    assert read[-1] == 31


def test_a_strip_that_is_large_is_decoded_alone(
    tmp_path: Path, noise: Bytes, reads: list[tuple[int, memoryview]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_bands, "AHEAD_BYTES", 90 * 90 * 3)
    path = write(tmp_path / "a.tif", noise, rowsperstrip=100, compression="zlib")
    counts = [len(reads) for slab in open_image(path).slabs(100) if slab.rgb.size]
    assert counts == [1, 2, 3, 4]
    np.testing.assert_array_equal(read_image(path)[0], noise)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_reader_that_leaves_ends_the_threads_and_closes_the_file(
    tmp_path: Path, noise: Bytes, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    monkeypatch.setattr(tiff_strips, "PIECE_BYTES", 1)
    path = write(tmp_path / "a.tif", noise, rowsperstrip=3, compression=compression)
    before, files = threading.active_count(), open_files()
    slabs = open_image(path).slabs(20)
    next(slabs)
    del slabs
    assert (threading.active_count(), open_files()) == (before, files)


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_strips_back_to_back_are_read_at_once_into_what_is_handed_out(
    tmp_path: Path, noise: Bytes, reads: list[tuple[int, memoryview]]
) -> None:
    path = write(tmp_path / "a.tif", noise, rowsperstrip=3)
    slabs = list(open_image(path).slabs(100))
    assert [memory.nbytes for _, memory in reads] == [slab.rgb.nbytes for slab in slabs]
    for (_, memory), slab in zip(reads, slabs, strict=True):
        assert np.shares_memory(np.frombuffer(memory, np.uint8), slab.rgb)


Move = Callable[[list[bytes]], tuple[list[int], bytes]]


def backwards(found: list[bytes]) -> tuple[list[int], bytes]:
    ends = np.cumsum([0] + [len(strip) for strip in reversed(found)])
    return ends[:-1][::-1].tolist(), b"".join(reversed(found))


def apart(found: list[bytes]) -> tuple[list[int], bytes]:
    starts = np.cumsum([0] + [len(strip) + 1 for strip in found])
    return starts[:-1].tolist(), b"-".join(found)


@pytest.mark.parametrize("move", [backwards, apart])
@pytest.mark.parametrize("rows", [20, 301])
def test_strips_in_any_order_and_with_gaps(tmp_path: Path, noise: Bytes, move: Move, rows: int) -> None:
    path = write(tmp_path / "a.tif", noise, rowsperstrip=7)
    offsets, counts = strips(path)
    data = path.read_bytes()
    starts, moved = move([data[at : at + count] for at, count in zip(offsets, counts, strict=True)])
    path.write_bytes(data + moved)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["StripOffsets"].overwrite([len(data) + start for start in starts])
    assert any(
        after != start + count for (start, after), count in zip(pairwise(starts), counts, strict=False)
    )
    rgb = np.concatenate([slab.rgb for slab in open_image(path).slabs(rows)])
    np.testing.assert_array_equal(rgb, noise)


@pytest.mark.parametrize("depth", [8, 16])
def test_the_strip_in_which_a_file_ends_is_named(tmp_path: Path, noise: Bytes, depth: int) -> None:
    path = write(tmp_path / "a.tif", noise.astype(f"u{depth // 8}"), rowsperstrip=7)
    source = open_image(path)
    offsets, counts = strips(path)
    os.truncate(path, offsets[20] + 5)
    with pytest.raises(DecodeError, match=f"strip 20, rows 140 to 146: 5 bytes left of {counts[20]}"):
        list(source.slabs(301))
    os.truncate(path, offsets[3])
    with pytest.raises(DecodeError, match="strip 3, rows 21 to 27: 0 bytes left"):
        list(source.slabs(10))
