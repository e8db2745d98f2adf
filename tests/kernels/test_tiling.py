"""Tiles: against the oracle and Pillow's box filter, and what area resampling must preserve."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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
    tile: Bytes = tiles(image, np.array([0, height]), np.array([0, width]), size_px)[0]
    return tile


@settings(max_examples=150, deadline=None)
@given(grids(), st.integers(1, 17))
def test_equals_the_reference(grid: tuple[Bytes, Edges, Edges], size_px: int) -> None:
    image, rows, cols = grid
    got = tiles(image, rows, cols, size_px)
    assert got.shape == ((len(rows) - 1) * (len(cols) - 1), size_px, size_px, 3)
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
    assert [int(tile[0, 0, 0]) for tile in got] == [0, 1, 2, 3, 4, 5]


def test_exact_values() -> None:
    image = np.array([[[0, 0, 10], [255, 1, 20], [255, 1, 40]]], np.uint8)
    # 3 px to 2: (1 * a + 0.5 * b) / 1.5, halves up
    assert whole(image, 2)[0].tolist() == [[85, 0, 13], [255, 1, 33]]
    assert whole(image[:, :2], 1)[0, 0].tolist() == [128, 1, 15]


def test_a_cell_of_the_right_size_is_a_copy(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    got = tiles(image, np.array([0, 10, 20]), np.array([5, 15, 25]), 10)
    assert np.array_equal(got[3], image[10:20, 15:25])


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
    assert got.shape == (0, 4, 4, 3)


def test_out_is_filled_and_returned(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    edges = np.array([0, 7, 20])
    out = np.zeros((4, 8, 8, 3), np.uint8)
    assert tiles(image, edges, edges, 8, out=out) is out
    assert np.array_equal(out, tiles(image, edges, edges, 8))


FROZEN = np.zeros((1, 2, 2, 3), np.uint8)
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
        ({"out": np.zeros((2, 2, 2, 3), np.uint8)}, "out"),
        ({"out": np.zeros((1, 2, 2, 3), np.int8)}, "out"),
        ({"out": np.zeros((1, 2, 2, 6), np.uint8)[..., ::2]}, "out"),
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
