import sqlite3
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.kernels import idw
from lithostream.kernels.errors import ContractError
from lithostream.kernels.gridding import Grid, reference

Floats = npt.NDArray[np.float64]
FOLDER = "interpolating"


def scattered(count: int, channels: int = 1, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    centres = rng.random((5, 2))
    clustered = centres[rng.integers(0, 5, count // 2)] + rng.normal(0, 0.02, (count // 2, 2))
    points = np.concatenate([clustered, rng.random((count - count // 2, 2))])
    return points * 100, rng.normal(size=(count, channels)) * 10


def centres(grid: Grid) -> Floats:
    x, y = np.meshgrid(grid.x0 + grid.dx * np.arange(grid.width), grid.y0 + grid.dy * np.arange(grid.height))
    return np.stack([x.ravel(), y.ravel()], axis=1)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Floats, Floats, Grid, dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, channels = draw(st.integers(0, 60)), draw(st.integers(1, 10))
    points = rng.normal(size=(count, 2)) * 5
    if draw(st.booleans()):
        points = np.round(points)  # many points at one place, at one distance and on cells
    values = rng.normal(size=(count, channels))
    values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.1, 0.7]))] = np.nan
    steps = st.sampled_from([0.25, 0.5, 1.0, -1.0, 7.0])
    size = st.integers(1, 20)
    grid = Grid(float(rng.integers(-9, 9)), 3.0, draw(steps), draw(steps), draw(size), draw(size))
    options = {
        "k": draw(st.sampled_from([None, 1, 2, 5, 12, 40, 2**70])),
        "power": draw(st.sampled_from([0.5, 1.0, 2.0, 3.0, 300.0])),
        "radius": draw(st.sampled_from([None, 0.5, 2.0, 5.0, 100.0])),
    }
    return points, values, grid, options


@settings(deadline=None, max_examples=150)
@given(problems())
def test_agrees_with_reference(problem: tuple[Floats, Floats, Grid, dict[str, Any]]) -> None:
    points, values, grid, options = problem
    got = idw(points, values, grid, **options)
    want = reference.idw(points, values, grid, **options)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("k", "power"), [(1, 2.0), (12, 2.0), (12, 1.5), (50, 3.0)])
def test_agrees_with_scipy_outside_ties(k: int, power: float) -> None:
    spatial = pytest.importorskip("scipy.spatial", reason="peer: pip install 'lithostream[dev]'")
    points, values = scattered(900, 3)
    points += np.array([4.5e5, 7.4e6])  # metres of a map projection
    grid = Grid(4.5e5 - 5, 7.4e6 + 105, 0.55, -0.6, 200, 190)
    distance, index = spatial.cKDTree(points).query(centres(grid), k=np.arange(1, k + 2))
    clear = distance[:, k] - distance[:, k - 1] > 1e-8
    weight = distance[:, :k] ** -power
    want = np.einsum("nk,nkc->cn", weight / weight.sum(axis=1, keepdims=True), values[index[:, :k]])
    got = idw(points, values, grid, k=k, power=power).reshape(3, -1)
    assert clear.mean() > 0.999
    assert np.abs(got - want)[:, clear].max() < 1e-4


def read_points(path: Path) -> tuple[Floats, Floats]:
    # A GeoPackage point: a header whose length the flags give, then WKB (byte order, type, x, y).
    rows = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True).execute(
        "SELECT geom, value FROM interpolation_test_data_small ORDER BY fid"
    )
    points, values = [], []
    for blob, value in rows:
        envelope = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}[blob[3] >> 1 & 7]
        order, kind, x, y = struct.unpack_from("<BIdd", blob, 8 + envelope)
        assert (order, kind) == (1, 1)
        points.append((x, y))
        values.append((value,))
    return np.array(points), np.array(values)


def read_raster(path: Path) -> tuple[npt.NDArray[np.float64], Grid]:
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        (dx, dy, _), tie = page.tags["ModelPixelScaleTag"].value, page.tags["ModelTiepointTag"].value
        raster = page.asarray()
    assert tie[:3] == (0, 0, 0)  # the outer corner of the first cell
    height, width = raster.shape
    return raster, Grid(tie[3] + dx / 2, tie[4] - dy / 2, dx, -dy, width, height)


@pytest.mark.realdata
def test_equals_the_raster_of_qgis(data_dir: Callable[[str], Path]) -> None:
    folder = data_dir("gtk-eis") / FOLDER
    points, values = read_points(folder / "interpolation_test_data_small.gpkg")
    raster, grid = read_raster(folder / "idw_result_qgis.tif")
    assert len(points) == 36 and raster.shape == (56, 46)
    got = idw(points, values, grid, k=None, power=2.0)[0]
    np.testing.assert_allclose(got, raster, rtol=2e-7)  # the file holds eight digits


@pytest.mark.realdata
def test_equals_the_raster_of_eis_toolkit(data_dir: Callable[[str], Path]) -> None:
    raster, cells = read_raster(data_dir("gtk-eis") / FOLDER / "idw_test_data.tif")
    # From the tests of the toolkit: the four points, and nodes from corner to corner of the outer cells.
    points = np.array([[24.945831, 60.192059], [24.6559, 60.2055], [25.0378, 60.2934], [24.7284, 60.2124]])
    height, width = raster.shape
    x0, y0 = cells.x0 - cells.dx / 2, cells.y0 - cells.dy / 2
    nodes = Grid(x0, y0, cells.dx * width / (width - 1), cells.dy * height / (height - 1), width, height)
    got = idw(points, np.array([[124.0], [248.0], [496.0], [992.0]]), nodes)[0]
    np.testing.assert_allclose(got, raster, rtol=2e-7)


def test_values_by_hand() -> None:
    points, values = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[1.0], [4.0]])
    row = idw(points, values, Grid(0, 0, 1, 1, 4, 1))[0, 0]
    np.testing.assert_allclose(row, [1, (1 + 4 / 4) / 1.25, (1 / 4 + 4) / 1.25, 4], rtol=1e-7)
    assert idw(points, values, Grid(1, 0, 1, 1, 1, 1), power=1.0)[0, 0, 0] == 2
    assert idw(points, values, Grid(1, 0, 1, 1, 1, 1), k=1)[0, 0, 0] == 1


def test_one_point_and_none() -> None:
    grid = Grid(-3, 9, 1.5, -2, 5, 4)
    assert (idw(np.array([[0.0, 0.0]]), np.array([[7.0, -1.0]]), grid) == [[[7]], [[-1]]]).all()
    assert np.isnan(idw(np.empty((0, 2)), np.empty((0, 3)), grid)).all()
    assert idw(np.zeros((1, 2)), np.empty((1, 0)), grid).shape == (0, 4, 5)


def test_a_cell_on_points_takes_their_mean() -> None:
    points = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    got = idw(points, np.array([[2.0, np.nan], [5.0, np.nan], [9.0, 6.0]]), Grid(1, 1, 1, 1, 2, 1))
    assert got[0].tolist() == [[3.5, 9.0]]
    assert got[1].tolist() == [[6.0, 6.0]]


def test_ties_go_to_the_first_point() -> None:
    around = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    values = np.array([[1.0], [2], [4], [8]])
    grid = Grid(0, 0, 1, 1, 1, 1)
    for k, want in ((1, 1), (2, 1.5), (3, 7 / 3), (4, 15 / 4)):
        assert idw(around, values, grid, k=k)[0, 0, 0] == np.float32(want)
    assert idw(around[::-1].copy(), values[::-1].copy(), grid, k=2)[0, 0, 0] == 6


def test_distances_that_only_double_tells_apart() -> None:
    points = np.array([[1.0 + 1e-12, 0], [-1.0, 0], [0, 1.0 + 2e-12]])
    values = np.array([[1.0], [2], [4]])
    assert idw(points, values, Grid(0, 0, 1, 1, 1, 1), k=1)[0, 0, 0] == 2
    assert idw(points, values, Grid(0, 0, 1, 1, 1, 1), k=2)[0, 0, 0] == 1.5


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e60])
def test_the_unit_of_length_does_not_matter(scale: float) -> None:
    points, values = scattered(300)
    want = idw(points, values, Grid(0, 0, 3, 3, 33, 33))
    got = idw(points * scale, values, Grid(0, 0, 3 * scale, 3 * scale, 33, 33))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_radius_includes_its_end_and_leaves_the_rest_empty() -> None:
    points, values = np.array([[0.0, 0.0], [4.0, 0.0]]), np.array([[1.0], [3.0]])
    row = idw(points, values, Grid(-3, 0, 1, 1, 11, 1), k=None, radius=2.0)[0, 0]
    assert np.isnan(row).tolist() == [True] + [False] * 9 + [True]
    assert row[1:-1].tolist() == [1, 1, 1, 1, 2, 3, 3, 3, 3]


def test_large_grid_equals_its_parts() -> None:
    points, values = scattered(400, 2)
    whole = idw(points, values, Grid(0, 0, 0.5, 0.7, 201, 150))
    for i, j in ((0, 0), (77, 101), (149, 200), (63, 64)):
        one = idw(points, values, Grid(0.5 * j, 0.7 * i, 1, 1, 1, 1))
        assert np.array_equal(one[:, 0, 0], whole[:, i, j])


@pytest.mark.parametrize("options", [{}, {"k": None}, {"power": 3.7}, {"radius": 20.0}])
def test_constant_stays_constant_and_bounds_hold(options: dict[str, Any]) -> None:
    points, values = scattered(200)
    values = values.astype(np.float32).astype(np.float64)
    grid = Grid(-20, -20, 3.1, 2.3, 50, 60)
    constant = idw(points, np.full((200, 1), 0.3), grid, **options)
    assert (constant[np.isfinite(constant)] == np.float32(0.3)).all()
    got = idw(points, values, grid, **options)
    assert np.nanmin(got) >= values.min() and np.nanmax(got) <= values.max()
    assert np.isnan(got).any() == ("radius" in options)


def test_order_of_points_and_place_of_the_origin_do_not_matter() -> None:
    points, values = scattered(500, 2)
    points = np.round(points, 3)
    grid = Grid(0.0005, 0.0005, 1, 1, 100, 100)
    want = idw(points, values, grid)
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_allclose(idw(points[order], values[order], grid), want, rtol=1e-5, atol=1e-6)
    moved = Grid(grid.x0 + 1024, grid.y0 - 2048, 1, 1, 100, 100)
    np.testing.assert_allclose(
        idw(points + np.array([1024, -2048]), values, moved), want, rtol=1e-5, atol=1e-5
    )


def test_points_without_values_are_not_there() -> None:
    points, values = scattered(300, 2)
    values[::3] = np.nan
    grid = Grid(0, 0, 2, 2, 50, 50)
    keep = np.arange(300) % 3 > 0
    assert np.array_equal(idw(points, values, grid), idw(points[keep], values[keep], grid))
    values[:, 1] = np.nan
    got = idw(points, values, grid)
    assert np.isfinite(got[0]).all() and np.isnan(got[1]).all()


def test_fills_out_and_reads_views() -> None:
    points, values = scattered(200, 4)
    grid = Grid(0, 0, 2, 2, 30, 20)
    out = np.empty((2, 20, 30), np.float32)
    assert idw(points[::2, ::-1], values[::2, ::2], grid, out=out) is out
    assert np.array_equal(out, idw(points[::2, ::-1].copy(), values[::2, ::2].copy(), grid))


def test_eight_threads_get_the_same_bytes() -> None:
    points, values = scattered(500, 2)
    grid = Grid(0, 0, 0.5, 0.5, 200, 200)
    want = idw(points, values, grid).tobytes()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: idw(points, values, grid).tobytes(), range(16))) == {want}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((4, 2), np.float32)}, r"points: expected float64 \[\*, 2\], got float32"),
        ({"points": np.zeros((4, 3))}, r"points: expected float64 \[\*, 2\], got float64 \[4, 3\]"),
        ({"points": np.full((4, 2), np.nan)}, r"points: expected finite coordinates .*, got nan at \[0, 0\]"),
        ({"points": np.full((4, 2), 1e200)}, r"points: expected finite coordinates within 1e150 of 0"),
        ({"values": np.zeros((3, 1))}, r"values: expected float64 \[4, \*\], got float64 \[3, 1\]"),
        ({"values": np.full((4, 1), np.inf)}, r"values: expected NaN or values .*, got inf at \[0, 0\]"),
        (
            {"values": np.full((4, 1), -1e39)},
            r"values: expected NaN or values that float32 holds, got -1e\+39",
        ),
        ({"k": 0}, "k: expected a whole number from 1, or None, got 0"),
        ({"k": 2.5}, "k: expected a whole number from 1, or None, got 2.5"),
        ({"power": 0.0}, "power: expected a finite number above 0, got 0.0"),
        ({"power": float("nan")}, "power: expected a finite number above 0, got nan"),
        ({"radius": -1.0}, "radius: expected a finite number above 0, got -1.0"),
        ({"out": np.zeros((1, 3, 2), np.float32)}, r"out: expected float32 \[1, 2, 3\]"),
        ({"out": np.zeros((1, 3, 2), np.float32).transpose(0, 2, 1)}, "out: expected a writeable C-contig"),
    ],
)
def test_contract(change: dict[str, Any], message: str) -> None:
    grid = Grid(0, 0, 1, 1, 3, 2)
    arguments: dict[str, Any] = {
        "points": np.zeros((4, 2)),
        "values": np.zeros((4, 1)),
        "grid": grid,
    } | change
    with pytest.raises(ContractError, match=message):
        idw(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dx": 0.0}, "grid.dx: expected a finite step other than 0, got 0.0"),
        ({"dy": float("inf")}, "grid.dy: expected a finite step other than 0, got inf"),
        ({"width": 0}, "grid.width: expected 1 or more, got 0"),
        ({"height": -1}, "grid.height: expected 1 or more, got -1"),
        ({"x0": float("nan")}, "grid.x0: expected cells within 1e"),
        ({"y0": 1e151}, "grid.y0: expected cells within 1e"),
    ],
)
def test_grid_contract(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"x0": 0, "y0": 0, "dx": 1, "dy": 1, "width": 3, "height": 2} | change
    with pytest.raises(ContractError, match=message):
        Grid(**arguments)
