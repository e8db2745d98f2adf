"""The device code of the gridding, run on the host: the bits of the CPU, in any order of blocks and threads."""

from types import ModuleType
from typing import Any

import cupy_on_host
import numpy as np
import numpy.typing as npt
import pytest

from lithostream.kernels import idw
from lithostream.kernels.errors import ContractError, DeviceMismatchError
from lithostream.kernels.gridding import Grid, cuda

Floats = npt.NDArray[np.float64]
SMALL = Grid(0.5, 19.5, 1.3, -1, 15, 19)  # 1 x 2 tiles, both cut


def scattered(rng: np.random.Generator, count: int, channels: int) -> tuple[Floats, Floats]:
    """Half of the points in three clusters, and some twice."""
    tight = rng.random((3, 2))[rng.integers(0, 3, count // 2)] + rng.normal(0, 0.01, (count // 2, 2))
    points = np.concatenate([tight, rng.random((count - count // 2, 2))]) * 20
    points[: count // 10] = points[count // 10 : 2 * (count // 10)]
    return rng.permutation(points), rng.normal(size=(count, channels)) * 10


def on_device(cupy: ModuleType, points: Floats, values: Floats, grid: Grid, **options: Any) -> Any:
    found = idw(cupy.asarray(points), cupy.asarray(values), grid, **options)
    assert isinstance(found, cupy.ndarray)
    return found


def same(cupy: ModuleType, points: Floats, values: Floats, grid: Grid, **options: Any) -> None:
    """Assert that the device gives the CPU's bits; the emulator even has its `pow`."""
    got = on_device(cupy, points, values, grid, **options).get()
    want = idw(points, values, grid, **options)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("k", [1, 5, 12, 13, 32, 40, 10**20, None])
@pytest.mark.parametrize("radius", [None, 2.5])
def test_equals_the_cpu(
    cupy: ModuleType, rng: np.random.Generator, k: int | None, radius: float | None
) -> None:
    points, values = scattered(rng, 90, 2)
    same(cupy, points, values, SMALL, k=k, radius=radius)


@pytest.mark.parametrize("channels", [1, 16, 19])
@pytest.mark.parametrize("power", [0.5, 2.0, 300.0])
def test_channels_and_powers(cupy: ModuleType, rng: np.random.Generator, channels: int, power: float) -> None:
    points, values = scattered(rng, 60, channels)
    same(cupy, points, values, Grid(3, 2, 1, 1, 9, 7), power=power)


@pytest.mark.parametrize("k", [1, 3, 12, 14, 36, 50])
@pytest.mark.parametrize("radius", [None, 2.0, 5.0])
def test_ties_and_cells_on_points(
    cupy: ModuleType, rng: np.random.Generator, k: int, radius: float | None
) -> None:
    points = rng.integers(0, 9, (90, 2)).astype(np.float64)
    same(cupy, points, rng.normal(size=(90, 2)), Grid(0, 0, 0.5, 1, 9, 5), k=k, radius=radius)


def test_distances_that_only_their_last_bits_tell_apart(cupy: ModuleType) -> None:
    points = np.array([[1.0 + 1e-12, 0], [-1.0, 0], [0, 1.0 + 2e-12], [0, -1]])
    values = np.array([[1.0], [2], [4], [8]])
    for k, want in ((1, 2.0), (2, 5.0), (3, 11 / 3)):
        found = on_device(cupy, points, values, Grid(0, 0, 1, 1, 2, 1), k=k)
        assert found.get()[0, 0, 0] == np.float32(want)


def test_distances_a_millionth_apart(cupy: ModuleType) -> None:
    points, values = np.array([[1 + 2.0**-21, 0], [-1.0, 0]]), np.array([[1.0], [2]])
    found = on_device(cupy, points, values, Grid(0, 0, 1, 1, 2, 1), k=1)  # two cells: both are candidates
    assert found.get().tolist() == [[[2, 1]]]


@pytest.mark.parametrize("k", [4, 40])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_values_that_are_missing(cupy: ModuleType, rng: np.random.Generator, k: int, share: float) -> None:
    points, values = scattered(rng, 80, 3)
    values[rng.random(values.shape) < share] = np.nan
    values[:, 2] = np.nan
    same(cupy, points, values, Grid(0, 0, 2, 2, 8, 9), k=k, radius=6.0)
    same(cupy, points, values, Grid(0, 0, 2, 2, 3, 3), k=k, power=1.0)


@pytest.mark.parametrize("scale", [1e-60, 1e12, 1e100])
def test_any_unit_of_length(cupy: ModuleType, rng: np.random.Generator, scale: float) -> None:
    points, values = scattered(rng, 60, 1)
    same(cupy, points * scale, values, Grid(0, 0, 2 * scale, 2 * scale, 8, 8), k=7)


@pytest.mark.parametrize("k", [2, 600, None])
def test_more_candidates_than_a_tile_has_room_for(
    cupy: ModuleType, rng: np.random.Generator, k: int | None
) -> None:
    points = np.array([5.0, 5.0]) + rng.normal(0, 1e-3, (700, 2))  # all within the bounds of a far tile
    same(cupy, points, rng.normal(size=(700, 1)), Grid(0, 0, 1e-4, 1e-4, 3, 2), k=k)


@pytest.mark.parametrize("room", [20, 8192])
def test_areas_and_their_room(
    cupy: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    points, values = scattered(rng, 150, 1)
    monkeypatch.setattr(cuda, "AREA", 16)
    monkeypatch.setattr(cuda, "ROOM", room)  # some areas fit into 20, others do not
    same(cupy, points, values, Grid(0, 0, 0.5, 0.5, 37, 34), k=3)


def test_two_areas_as_they_are(cupy: ModuleType, rng: np.random.Generator) -> None:
    points, values = scattered(rng, 150, 1)
    same(cupy, points, values, Grid(0, 0, 0.2, 1, 133, 1))


def test_one_point_and_none(cupy: ModuleType) -> None:
    grid = Grid(-3, 9, 1.5, -2, 5, 4)
    same(cupy, np.array([[0.0, 0.0]]), np.array([[7.0, -1.0]]), grid)
    same(cupy, np.empty((0, 2)), np.empty((0, 3)), grid)
    same(cupy, np.zeros((2, 2)), np.full((2, 1), np.nan), grid)
    same(cupy, np.zeros((1, 2)), np.empty((1, 0)), grid)
    same(cupy, np.zeros((1, 2)), np.array([[3e38]]), Grid(1, 1, 1, 1, 1, 1))


def test_the_order_of_the_threads_does_not_matter(cupy: ModuleType, rng: np.random.Generator) -> None:
    points, values = scattered(rng, 700, 2)
    found = set()
    for how in (0, 1, 5):
        with cupy_on_host.ordered(how):
            found.add(on_device(cupy, points, values, SMALL).get().tobytes())
    assert len(found) == 1


def test_own_output_views_and_stream(cupy: ModuleType, rng: np.random.Generator) -> None:
    points, values = scattered(rng, 60, 4)
    out, stream = cupy.empty((2, 19, 15), np.float32), cupy.cuda.Stream()
    given = cupy.asarray(points)[::2, ::-1], cupy.asarray(values)[::2, ::2]
    found: Any = idw(*given, SMALL, out=out, stream=stream)
    assert found is out
    assert stream.entered == 1
    np.testing.assert_array_equal(out.get(), idw(points[::2, ::-1], values[::2, ::2], SMALL))


@pytest.mark.parametrize("missing", ["points", "values", "out"])
def test_arrays_on_two_devices(cupy: ModuleType, missing: str) -> None:
    arrays: dict[str, Any] = {
        "points": np.zeros((4, 2)),
        "values": np.zeros((4, 1)),
        "out": np.zeros((1, 19, 15), np.float32),
    }
    mixed = {name: array if name == missing else cupy.asarray(array) for name, array in arrays.items()}
    with pytest.raises(DeviceMismatchError, match=f"{missing} on host"):
        idw(grid=SMALL, **mixed)
    with pytest.raises(ContractError, match="stream: expected None for NumPy arrays"):
        idw(arrays["points"], arrays["values"], SMALL, stream=cupy.cuda.Stream())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((4, 2), np.float32)}, r"points: expected float64 \[\*, 2\], got float32"),
        ({"points": np.full((4, 2), np.nan)}, r"points: expected finite coordinates .*, got nan at \[0, 0\]"),
        ({"points": np.full((4, 2), -1e200)}, "points: expected finite coordinates within 1e150 of 0"),
        ({"values": np.zeros((3, 1))}, r"values: expected float64 \[4, \*\], got float64 \[3, 1\]"),
        ({"values": np.array([[0], [np.nan], [0], [-np.inf]])}, r"values: .*, got -inf at \[3, 0\]"),
        ({"values": np.full((4, 1), 1e39)}, r"values: expected NaN or values that float32 holds, got 1e\+39"),
        ({"out": np.zeros((1, 19, 14), np.float32)}, r"out: expected float32 \[1, 19, 15\]"),
    ],
)
def test_contract(cupy: ModuleType, change: dict[str, Any], message: str) -> None:
    arguments = {"points": np.zeros((4, 2)), "values": np.zeros((4, 1))} | change
    with pytest.raises(ContractError, match=message):
        idw(grid=SMALL, **{name: cupy.asarray(array) for name, array in arguments.items()})
