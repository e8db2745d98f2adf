"""Tiles on disk: what is kept, when it is made again, how it is read, and how much memory that takes."""

import errno
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lithostream.engine.cache import cache_folder
from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.engine.core.synthetic import generate, write
from lithostream.engine.errors import ConfigError, StoppedError
from lithostream.engine.manifest import TileInput
from lithostream.training.config import Range
from lithostream.training.data import cache as cache_module
from lithostream.training.data import tiles as tiles_module
from lithostream.training.data.tiles import TileSet, build_tiles, moments

TILE = TileInput(tile_cm=1.0, size_px=16)
TARGETS = ("density",)


@pytest.fixture(scope="module")
def short_section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    core = generate(2110, length_cm=30.0, width_cm=6.0, px_per_cm=16.0)
    image = write(core, tmp_path_factory.mktemp("short"))
    return Section(core.name, image, 16.0, "manifest", log=image.with_name(f"{core.name}_mscl.csv"))


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the sections that are cut, as it happens."""
    seen: list[str] = []
    cut = tiles_module._cut

    def counted(section: Section, *rest: object) -> object:
        seen.append(section.name)
        return cut(section, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tiles_module, "_cut", counted)
    yield seen


def build(section: Section, cache: Path, settings: RunSettings | None = None) -> TileSet:
    return build_tiles([section], TARGETS, TILE, settings or RunSettings(), {}, cache=cache)


def kept(cache: Path) -> Path:
    (folder,) = (cache / "tiles").iterdir()
    return folder


def test_tiles_lie_on_disk_and_are_shared_by_every_part(short_section: Section, tmp_path: Path) -> None:
    tiles = build(short_section, tmp_path)
    assert isinstance(tiles.pixels, np.memmap) and not tiles.pixels.flags.writeable
    assert np.array_equal(np.load(kept(tmp_path) / "pixels.npy"), tiles.pixels)
    part = tiles.of_rows(np.arange(len(tiles.labels)) % 2 == 1)
    assert part.pixels is tiles.pixels and part.moments is tiles.moments
    wanted = tiles.pixels[tiles.row % 2 == 1]
    assert np.array_equal(part.gather(np.arange(len(part.tile))), wanted)
    assert np.array_equal(np.concatenate(list(part.batches(7))), wanted)


def test_moments_are_those_of_the_pixels(short_section: Section, tmp_path: Path) -> None:
    tiles = build(short_section, tmp_path)
    pixels = np.asarray(tiles.pixels, np.float64)
    np.testing.assert_allclose(tiles.moments[:, 0], pixels.mean(axis=(1, 2)), rtol=1e-14)
    mean, std = tiles.colour_scale()
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)), rtol=1e-10)
    white = moments(np.full((2, 64, 64, 3), 255, np.uint8))
    assert np.array_equal(white, np.broadcast_to([[255.0], [65025.0]], (2, 2, 3)))


def test_a_second_start_cuts_nothing(short_section: Section, tmp_path: Path, cuts: list[str]) -> None:
    first = build(short_section, tmp_path)
    again = build(short_section, tmp_path, RunSettings(slab_rows=7, batch=3, threads=1))
    assert len(cuts) == 1
    assert np.array_equal(first.pixels, again.pixels)
    for name in ("moments", "tile", "row", "core_fraction", "labels", "interpolated", "section", "top_cm"):
        assert np.array_equal(getattr(first, name), getattr(again, name), equal_nan=name == "labels"), name


def test_whatever_decides_the_tiles_makes_them_anew(
    short_section: Section, tmp_path: Path, cuts: list[str]
) -> None:
    assert short_section.log is not None
    log = tmp_path / "other.csv"
    log.write_text(short_section.log.read_text() + "\n")
    bounds = {"density": Range(low=1.0, high=9.0)}
    build(short_section, tmp_path)
    build(replace(short_section, px_per_cm=16.5), tmp_path)
    build(replace(short_section, log=log), tmp_path)
    build(replace(short_section, sidecars=(log,)), tmp_path)
    build(short_section, tmp_path, RunSettings(min_core_fraction=0.7))
    build_tiles([short_section], TARGETS, TILE, RunSettings(), bounds, cache=tmp_path)
    build_tiles([short_section], TARGETS, TILE, RunSettings(), {}, cache=tmp_path, interpolate_cm=3.0)
    build_tiles(
        [short_section], TARGETS, TILE.model_copy(update={"size_px": 8}), RunSettings(), {}, cache=tmp_path
    )
    assert len(cuts) == len(list((tmp_path / "tiles").iterdir())) == 8


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda folder: os.truncate(folder / "pixels.npy", 1000),
    "one bit of a tile": lambda folder: flip_a_byte(folder / "pixels.npy"),
    "one bit of a label": lambda folder: flip_a_byte(folder / "arrays.safetensors"),
    "no index": lambda folder: (folder / "index.json").unlink(),
    "an index of something else": lambda folder: (folder / "index.json").write_text("[1]"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damaged_tiles_are_cut_again(
    short_section: Section, tmp_path: Path, cuts: list[str], damage: str
) -> None:
    pixels = np.array(build(short_section, tmp_path).pixels)
    DAMAGE[damage](kept(tmp_path))
    assert np.array_equal(build(short_section, tmp_path).pixels, pixels)
    assert len(cuts) == 2
    build(short_section, tmp_path)
    assert len(cuts) == 2


def test_two_at_once_get_the_same_tiles(
    short_section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, cut = threading.Barrier(2), tiles_module._cut

    def together(*arguments: object) -> object:
        both.wait(timeout=20)
        return cut(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tiles_module, "_cut", together)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: build(short_section, tmp_path), range(2))
    assert np.array_equal(one.pixels, other.pixels)
    assert len(kept(tmp_path).name) == 64  # no folder of the second one is left


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, StoppedError), (errno.EACCES, ConfigError)])
def test_a_full_or_closed_disk_is_a_typed_error_that_leaves_nothing(
    short_section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cache_module, "_write_all", fail)
    with pytest.raises(kind, match=r"LITHOSTREAM_CACHE"):
        build(short_section, tmp_path)
    assert list((tmp_path / "tiles").iterdir()) == []


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITHOSTREAM_CACHE", "/big/disk")
    assert cache_folder() == Path("/big/disk")
    monkeypatch.delenv("LITHOSTREAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/lithostream")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lithostream"


@pytest.mark.parametrize("ahead", [1, 3])
def test_batches_do_not_depend_on_when_they_are_read(core_tiles: TileSet, ahead: int) -> None:
    loader = pytest.importorskip(
        "lithostream.training.data.loader", reason="training needs the extra 'train'"
    )

    def drawn(ahead: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
        rng, found = np.random.default_rng(4), []
        for rows, pixels in loader.row_batches(core_tiles, 5, 3, rng, ahead=ahead):
            found.append((rows, pixels.numpy(), rng.random()))
        return found

    plain, read_ahead = drawn(0), drawn(ahead)
    assert np.array_equal(
        np.sort(np.concatenate([rows for rows, *_ in plain])), np.arange(len(core_tiles.labels))
    )
    for (rows, pixels, draw), (other_rows, other, other_draw) in zip(plain, read_ahead, strict=True):
        assert np.array_equal(rows, other_rows) and np.array_equal(pixels, other) and draw == other_draw
    rows, pixels, _ = plain[0]
    for row, group in zip(rows, pixels.reshape(len(rows), 3, 16, 16, 3), strict=True):
        own = core_tiles.pixels[core_tiles.row == row]
        assert all(any(np.array_equal(tile, one) for one in own) for tile in group)
    whole = np.concatenate([batch.numpy() for batch in loader.tile_batches(core_tiles, 50, ahead=ahead)])
    assert np.array_equal(whole, core_tiles.pixels)


def test_reading_ahead_stays_near_and_hands_on_errors() -> None:
    loader = pytest.importorskip(
        "lithostream.training.data.loader", reason="training needs the extra 'train'"
    )
    read: list[int] = []

    def slow(number: int) -> int:
        read.append(number)
        if number == 6:
            raise ValueError("six")
        return number

    stream = loader.prefetched(slow, itertools.count(), 2)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    assert max(read) <= 5
    assert [next(stream) for _ in range(3)] == [3, 4, 5]
    with pytest.raises(ValueError, match="six"):
        next(stream)
    abandoned = loader.prefetched(slow, iter(range(5)), 2)
    next(abandoned)
    abandoned.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tiles")]


def test_two_scales_of_one_material_give_the_same_square(tmp_path: Path) -> None:
    sections = []
    for px_per_cm in (15.0, 200.0):
        core = generate(2111, length_cm=24.0, width_cm=4.0, px_per_cm=px_per_cm)
        image = write(core, tmp_path / f"{px_per_cm:g}")
        log = image.with_name(f"{core.name}_mscl.csv")
        sections.append(Section(f"{px_per_cm:g}", image, px_per_cm, "manifest", log=log))
    tiles = build_tiles(sections, TARGETS, TILE, RunSettings(), {}, cache=tmp_path)
    coarse, fine = (tiles.of_rows(tiles.section == i) for i in (0, 1))
    shared, a, b = np.intersect1d(np.round(coarse.top_cm), np.round(fine.top_cm), return_indices=True)
    assert len(shared) > 10
    # A row edge is a whole pixel, so the two agree within half of the coarser one.
    np.testing.assert_allclose(coarse.top_cm[a], fine.top_cm[b], atol=0.5 / 15)
    np.testing.assert_allclose(coarse.labels[a], fine.labels[b], atol=0.02)
    colour, other = coarse.mean_colour()[a], fine.mean_colour()[b]
    between_rows = colour.std(axis=0).max()
    assert np.abs(colour - other).max() < 4 < between_rows


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from lithostream.engine.manifest import TileInput
from lithostream.engine.config import RunSettings
from lithostream.engine.core.section import Section
from lithostream.training.data.tiles import build_tiles
from lithostream.training.data.loader import row_batches, tile_batches

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def study(count, folder):
    image, log = Path(sys.argv[1]), Path(sys.argv[2])
    sections = [Section(f"s{i}", image, 16.0, "manifest", log=log) for i in range(count)]
    tiles = build_tiles(sections, ("density",), TileInput(tile_cm=1.0, size_px=128), RunSettings(), {}, cache=folder)
    for rows, pixels in row_batches(tiles, len(tiles.labels) // 16, 4, np.random.default_rng(0)):
        assert pixels.max() > 0
    half = tiles.of_rows(np.arange(len(tiles.labels)) % 2 == 0)
    for pixels in tile_batches(half, 64):
        assert pixels.max() > 0
    return tiles.pixels.nbytes

study(1, Path(sys.argv[3]))
before = peak()
size = study(10, Path(sys.argv[3]))
print(size, peak() - before)
"""


def test_building_and_an_epoch_take_memory_for_windows_and_batches_only(
    core_section: Section, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    arguments = [str(core_section.image), str(core_section.log), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    size, growth = map(int, done.stdout.split())
    assert size > 300 << 20
    assert growth < 60 << 20, f"{growth >> 20} MiB for {size >> 20} MiB of tiles"
