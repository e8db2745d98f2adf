"""Tiles: against the oracle and Pillow's box filter, and what area resampling must preserve."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from time import perf_counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lithostream.kernels import _native
from lithostream.kernels.errors import ContractError
from lithostream.kernels.tiling import reference, tiles

Bytes = npt.NDArray[np.uint8]
Edges = npt.NDArray[np.int64]


@st.composite
def grids(draw: st.DrawFn) -> tuple[Bytes, Edges, Edges]:
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    image = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 256, (*shape, 3), np.uint8)
    edges = [
        np.array(sorted(draw(st.sets(st.integers(0, n), min_size=1, max_size=6))), np.int64) for n in shape
    ]
    return image, edges[0], edges[1]


def whole(image: Bytes, size_px: int) -> Bytes:
    height, width, _ = image.shape
    tile: Bytes = tiles(image, np.array([0, height]), np.array([0, width]), size_px)[0, 0]
    return tile


@settings(max_examples=150, deadline=None)
@given(grids(), st.integers(1, 17))
def test_equals_the_reference(grid: tuple[Bytes, Edges, Edges], size_px: int) -> None:
    image, rows, cols = grid
    got = tiles(image, rows, cols, size_px)
    assert got.shape == (len(rows) - 1, len(cols) - 1, size_px, size_px, 3)
    assert np.array_equal(got, reference.tiles(image, rows, cols, size_px))


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(1, 17))
def test_mean_is_preserved_within_rounding(grid: tuple[Bytes, Edges, Edges], size_px: int) -> None:
    image = grid[0]
    error = whole(image, size_px).mean((0, 1)) - image.mean((0, 1))
    assert np.abs(error).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_constants_are_preserved(level: int) -> None:
    image = np.full((37, 23, 3), level, np.uint8)
    rows, cols = np.array([0, 1, 18, 37]), np.array([0, 5, 6, 23])
    for size_px in (1, 7, 18, 64):
        assert (tiles(image, rows, cols, size_px) == level).all()


def test_cells_run_row_by_row() -> None:
    image = np.arange(6, dtype=np.uint8).repeat(3).reshape(2, 3, 3)
    got = tiles(image, np.arange(3), np.arange(4), 2)
    assert got[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_exact_values() -> None:
    image = np.array([[[0, 0, 10], [255, 1, 20], [255, 1, 40]]], np.uint8)
    # 3 px to 2: (1 * a + 0.5 * b) / 1.5, halves up
    assert whole(image, 2)[0].tolist() == [[85, 0, 13], [255, 1, 33]]
    assert whole(image[:, :2], 1)[0, 0].tolist() == [128, 1, 15]


@pytest.mark.parametrize("transposed", [False, True])
def test_cells_of_the_right_size_are_a_view(rng: np.random.Generator, transposed: bool) -> None:
    image = rng.integers(0, 256, (25, 30, 3), dtype=np.uint8)
    given = image.transpose(1, 0, 2)[::-1] if transposed else image
    rows, cols = np.array([2, 12, 22]), np.array([5, 15, 25])
    got = tiles(given, rows, cols, 10)
    assert got.shape == (2, 2, 10, 10, 3) and np.shares_memory(got, image)
    assert np.array_equal(got, reference.tiles(given, rows, cols, 10))
    assert not got.flags.writeable and image.flags.writeable
    given[2, 5] = ~given[2, 5]
    assert np.array_equal(got[0, 0, 0, 0], given[2, 5])


@pytest.mark.parametrize("width", [20, 21])
def test_out_and_resampling_leave_the_image_alone(rng: np.random.Generator, width: int) -> None:
    image = rng.integers(0, 256, (20, width, 3), dtype=np.uint8)
    rows, cols = np.array([0, 10, 20]), np.array([0, 10, width])
    out = np.zeros((2, 2, 10, 10, 3), np.uint8) if width == 20 else None
    got = tiles(image, rows, cols, 10, out=out)
    assert got.flags.writeable and got.flags.c_contiguous and not np.shares_memory(got, image)
    assert np.array_equal(got[1, 0], image[10:, :10])
    assert np.array_equal(got, reference.tiles(image, rows, cols, 10))


def test_agrees_with_pillow_box_filter(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (96, 48, 3), dtype=np.uint8)  # whole ratios: else Pillow splits no pixel
    want = np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BOX)).astype(int)
    assert np.abs(whole(image, 24).astype(int) - want).max() <= 1


@pytest.mark.parametrize("size_px", [1, 10, 31, 32, 100])
def test_agrees_with_the_integral_of_the_image(rng: np.random.Generator, size_px: int) -> None:
    image = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8)
    mean = box_means(box_means(image.astype(float), size_px).swapaxes(0, 1), size_px).swapaxes(0, 1)
    assert np.abs(whole(image, size_px) - mean).max() <= 0.5 + 1e-9


def box_means(samples: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Means over `count` equal parts of the first axis, from the integral of the step function."""
    length, lines, channels = samples.shape
    integral = np.concatenate([np.zeros((1, lines, channels)), samples.cumsum(axis=0)])
    at = np.linspace(0, length, count + 1)
    below = np.minimum(at.astype(int), length - 1)
    values = integral[below] + (at - below)[:, None, None] * samples[below]
    means: npt.NDArray[np.float64] = np.diff(values, axis=0) * count / length
    return means


def test_views_give_the_bytes_of_their_copy(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (40, 61, 3), dtype=np.uint8)
    view = image.transpose(1, 0, 2)[::-1, ::2, ::-1]
    rows, cols = np.array([0, 20, 61]), np.array([0, 7, 20])
    assert not view.flags.c_contiguous
    assert np.array_equal(tiles(view, rows, cols, 9), tiles(view.copy(), rows, cols, 9))
    frozen = view.copy()
    frozen.flags.writeable = False
    assert np.array_equal(tiles(frozen, rows, cols, 9), tiles(view, rows, cols, 9))


@pytest.mark.parametrize(("rows", "cols"), [([0], [0, 5]), ([0, 5], [3]), ([2], [2])])
def test_no_cells_no_tiles(rows: list[int], cols: list[int]) -> None:
    got = tiles(np.zeros((5, 5, 3), np.uint8), np.array(rows), np.array(cols), 4)
    assert got.shape == (len(rows) - 1, len(cols) - 1, 4, 4, 3)


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    edges = np.array([0, 7, 20])
    out = np.zeros((2, 2, 8, 8, 3), np.uint8)
    assert tiles(image, edges, edges, 8, out=out) is out
    assert np.array_equal(out, tiles(image, edges, edges, 8))


@pytest.mark.parametrize(
    ("height", "width", "size_px"),
    [(257, 3, 2), (258, 5, 7), (127, 129, 1), (128, 128, 3), (251, 261, 4), (251, 263, 4), (3, 401, 29)],
)
def test_each_width_of_sums(rng: np.random.Generator, height: int, width: int, size_px: int) -> None:
    for image in (
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        np.full((height, width, 3), 255, np.uint8),
    ):
        rows, cols = np.array([0, height]), np.array([0, width])
        assert np.array_equal(tiles(image, rows, cols, size_px), reference.tiles(image, rows, cols, size_px))


@pytest.mark.parametrize(("height", "width"), [(127, 129), (128, 128), (251, 261), (251, 263), (999, 1001)])
def test_quotients_beside_whole_numbers(height: int, width: int) -> None:
    area = height * width
    for whole_part in (1, 2, 3, 127, 128, 254, 255):
        for short in (0, 1):  # the sum that just rounds up to this number, and the one that just does not
            total = whole_part * area - area // 2 - short
            pixels = np.full((area, 3), total // area, np.uint8)
            pixels[: total % area] += 1
            assert whole(pixels.reshape(height, width, 3), 1)[0, 0].tolist() == [whole_part - short] * 3


def test_columns_beyond_32_bits() -> None:
    height = 8_421_505  # 255 times that does not fit
    assert height % 2 and 255 * height > np.iinfo(np.int32).max
    assert (whole(np.full((height, 1, 3), 255, np.uint8), 2) == 255).all()


def test_the_threads_do_not_matter(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (301, 403, 3), dtype=np.uint8)
    rows, cols = np.arange(0, 302, 43), np.array([0, 16, 116, 403])
    for size_px in (16, 20):
        want = reference.tiles(image, rows, cols, size_px)
        for threads in (1, 2, 7, 64):
            out = np.zeros_like(want)
            _native.tiles(image, rows, cols, threads, out)
            assert np.array_equal(out, want)


def test_small_calls_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(_native, "tiles", lambda image, rows, cols, threads, out: asked.append(threads))
    for pixels in (40, 560, 3000):
        tiles(np.zeros((pixels, pixels, 3), np.uint8), np.array([0, pixels]), np.array([0, pixels]), 8)
    assert asked == [1, 1, 8]


def test_eight_callers_at_once(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (640, 640, 3), dtype=np.uint8)
    edges = np.arange(0, 641, 40)
    want = {size_px: tiles(image, edges, edges, size_px).copy() for size_px in (32, 40, 41)}
    with ThreadPoolExecutor(8) as pool:
        sizes = list(want) * 8
        found = list(pool.map(lambda size_px: tiles(image, edges, edges, size_px), sizes))
    assert all(np.array_equal(got, want[size_px]) for got, size_px in zip(found, sizes, strict=True))


def test_the_interpreter_runs_on_meanwhile(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    edges, stop = np.arange(0, 2001, 250), Event()
    steps: list[float] = []

    def step() -> None:
        while not stop.wait(0.001):
            steps.append(perf_counter())

    def seen_inside() -> bool:
        """Whether a step fell into the middle half of a call, far from the Python around it."""
        begun = perf_counter()
        tiles(image, edges, edges, 249)
        span = perf_counter() - begun
        return any(begun + span / 4 < at < begun + span * 3 / 4 for at in steps)

    aside = Thread(target=step)
    aside.start()
    seen = any(seen_inside() for _ in range(100))
    stop.set()
    aside.join()
    assert seen


FROZEN = np.zeros((1, 1, 2, 2, 3), np.uint8)
FROZEN.flags.writeable = False


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"image": np.zeros((8, 8, 3), np.uint16)}, "image"),
        ({"image": np.zeros((8, 8, 4), np.uint8)}, "image"),
        ({"row_edges": np.array([0, 8], np.int32)}, "row_edges"),
        ({"row_edges": np.array([[0, 8]])}, "row_edges"),
        ({"row_edges": np.array([], np.int64)}, "row_edges"),
        ({"row_edges": np.array([-1, 8])}, "row_edges"),
        ({"col_edges": np.array([0, 9])}, "col_edges"),
        ({"col_edges": np.array([0, 4, 4])}, "col_edges"),
        ({"col_edges": np.array([4, 0])}, "col_edges"),
        ({"size_px": 0}, "size_px"),
        ({"out": np.zeros((1, 2, 2, 2, 3), np.uint8)}, "out"),
        ({"out": np.zeros((1, 2, 2, 3), np.uint8)}, "out"),
        ({"out": np.zeros((1, 1, 2, 2, 3), np.int8)}, "out"),
        ({"out": np.zeros((1, 1, 2, 2, 6), np.uint8)[..., ::2]}, "out"),
        ({"row_edges": np.array([0, 2, 4]), "out": np.zeros((1, 1, 2, 2, 3), np.uint8)}, "out"),
        ({"stream": object()}, "stream"),
        ({"out": FROZEN}, "out"),
    ],
)
def test_contract(changes: dict[str, object], name: str) -> None:
    arguments: dict[str, object] = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "row_edges": np.array([0, 8]),
        "col_edges": np.array([0, 8]),
        "size_px": 2,
        **changes,
    }
    with pytest.raises(ContractError, match=f"^{name}: expected"):
        tiles(**arguments)  # type: ignore[arg-type]
