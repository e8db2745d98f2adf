from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lithostream.engine.core.join import join
from lithostream.engine.errors import LogError
from lithostream.engine.io.mscl import DepthKind, SensorLog, read_log

Floats = npt.NDArray[np.float64]

depths = st.lists(st.floats(-50, 200), min_size=1, max_size=40).map(sorted)
edges = st.lists(st.integers(-500, 2000), min_size=2, max_size=30, unique=True).map(
    lambda tenths: np.array(sorted(tenths)) / 10
)
footprints = st.sampled_from([0.5, 1.0, 2.0, 6.0])


def make(
    depth: npt.ArrayLike,
    value: npt.ArrayLike,
    footprint_cm: float = 1.0,
    kind: DepthKind = "core",
    section: npt.NDArray[np.int64] | None = None,
) -> SensorLog:
    depth_cm = np.asarray(depth, np.float64)
    near = np.zeros(len(depth_cm), np.bool_)
    near[0] = True
    values = {"density": np.asarray(value, np.float64)}
    return SensorLog(Path("x.csv"), depth_cm, kind, section, values, {"density": footprint_cm}, near, (), {})


def brute(log: SensorLog, top: float, base: float) -> tuple[float, float]:
    half, value = log.footprint_cm["density"] / 2, log.values["density"]
    shared = [max(0.0, min(base, d + half) - max(top, d - half)) for d in log.depth_cm]
    kept = [(s, v) for s, v in zip(shared, value, strict=True) if s > 1e-9 and np.isfinite(v)]
    total = sum(s for s, _ in kept)
    return (sum(s * v for s, v in kept) / total if kept else np.nan, min(1.0, total / (base - top)))


def test_overlap_weights() -> None:
    log = make([0.5, 1.5, 2.5], [1.0, 2.0, 3.0])
    joined = join(log, "density", np.array([0.0, 0.0, 0.5, 2.8, 3.0]), np.array([1.0, 3.0, 1.75, 3.2, 4.0]))
    np.testing.assert_allclose(joined.value, [1.0, 2.0, (0.5 + 0.75 * 2) / 1.25, 3.0, np.nan])
    np.testing.assert_allclose(joined.weight, [1.0, 1.0, 1.0, 0.5, 0.0])
    assert joined.section_end.tolist() == [True, True, True, False, False]


def test_missing_readings_do_not_count() -> None:
    joined = join(make([0.5, 1.5], [np.nan, 2.0]), "density", np.array([0.0, 0.0]), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(joined.value, [np.nan, 2.0])
    np.testing.assert_array_equal(joined.weight, [0.0, 0.5])
    assert joined.section_end.tolist() == [False, False]


def test_row_numbers_do_not_matter() -> None:
    dense = join(make([0.5, 0.5, 0.5, 9.5], [1, 1, 1, 5]), "density", np.array([9.0]), np.array([10.0]))
    assert dense.value.tolist() == [5.0]


@given(depths, edges, footprints)
def test_against_brute_force(depth: list[float], edge: Floats, footprint: float) -> None:
    log = make(depth, np.where(np.arange(len(depth)) % 5 == 3, np.nan, np.arange(len(depth))), footprint)
    joined = join(log, "density", edge[:-1], edge[1:])
    expected = [brute(log, *pair) for pair in pairwise(edge)]
    np.testing.assert_allclose(joined.value, [value for value, _ in expected], atol=1e-6)
    np.testing.assert_allclose(joined.weight, [weight for _, weight in expected], atol=1e-9)


@given(depths, edges, footprints, st.floats(-10, 6e5))
def test_a_constant_log_stays_constant(
    depth: list[float], edge: Floats, footprint: float, value: float
) -> None:
    joined = join(make(depth, [value] * len(depth), footprint), "density", edge[:-1], edge[1:])
    known = np.isfinite(joined.value)
    np.testing.assert_allclose(joined.value[known], value, rtol=1e-12, atol=1e-12)
    assert np.array_equal(known, joined.weight > 0)


@given(depths, edges, footprints, st.integers(-1000, 1000))
def test_shifting_log_and_intervals_together_changes_nothing(
    depth: list[float], edge: Floats, footprint: float, shift: int
) -> None:
    tenths = np.unique(np.round(np.array(depth) * 10)) / 10
    value = np.arange(len(tenths))
    here = join(make(tenths, value, footprint), "density", edge[:-1], edge[1:])
    there = join(make(tenths + shift, value, footprint), "density", edge[:-1] + shift, edge[1:] + shift)
    np.testing.assert_allclose(there.value, here.value, atol=1e-6)
    np.testing.assert_allclose(there.weight, here.weight, atol=1e-6)
    np.testing.assert_array_equal(there.section_end, here.section_end)


@given(depths, edges, footprints, st.data())
def test_a_reading_acts_only_within_half_its_footprint(
    depth: list[float], edge: Floats, footprint: float, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(depth) - 1))
    value = np.ones(len(depth))
    before = join(make(depth, value, footprint), "density", edge[:-1], edge[1:])
    value[changed] = 2.0
    after = join(make(depth, value, footprint), "density", edge[:-1], edge[1:])
    reach = footprint / 2
    far = (edge[1:] <= depth[changed] - reach) | (edge[:-1] >= depth[changed] + reach)
    np.testing.assert_array_equal(after.value[far], before.value[far])
    well_inside = (edge[1:] > depth[changed] - reach + 0.01) & (edge[:-1] < depth[changed] + reach - 0.01)
    assert np.all(after.value[well_inside] > before.value[well_inside])


def test_offsets_of_several_sections_are_refused() -> None:
    log = make([1.0, 2.0, 1.0], [1, 2, 3], kind="section", section=np.array([1, 1, 2]))
    with pytest.raises(LogError, match="restart"):
        join(log, "density", np.array([0.0]), np.array([1.0]))


def test_an_unknown_column_and_an_empty_interval_are_refused() -> None:
    with pytest.raises(LogError, match="no usable column for p_wave_velocity"):
        join(make([1.0], [1.0]), "p_wave_velocity", np.array([0.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="base_cm > top_cm"):
        join(make([1.0], [1.0]), "density", np.array([1.0]), np.array([1.0]))


@pytest.mark.realdata
def test_m9907_on_its_own_step_is_itself(data_dir: Callable[[str], Path]) -> None:
    log = read_log(data_dir("m9907-cascadia") / "M9907-11PC_MST.csv")
    joined = join(log, "density", log.depth_cm - 0.5, log.depth_cm + 0.5)
    alone = np.diff(log.depth_cm, prepend=-9.0) >= 1.0
    alone &= np.diff(log.depth_cm, append=1e9) >= 1.0
    assert alone.sum() > 200
    np.testing.assert_allclose(joined.value[alone], log.values["density"][alone])
    np.testing.assert_allclose(joined.weight[np.isfinite(joined.value)], 1.0)


@pytest.mark.realdata
@pytest.mark.parametrize("core", ["11PC", "23PC", "25PC"])
def test_a_point_log_joined_over_the_loops_footprint_follows_the_loop(
    data_dir: Callable[[str], Path], core: str
) -> None:
    loop, point = (
        read_log(data_dir("m9907-cascadia") / f"M9907-{core}_{kind}.csv") for kind in ("MST", "ptMS")
    )
    target = "magnetic_susceptibility"

    def agreement(width_cm: float) -> float:
        joined = join(point, target, loop.depth_cm - width_cm / 2, loop.depth_cm + width_cm / 2)
        known = np.isfinite(joined.value) & np.isfinite(loop.values[target]) & ~loop.near_section_end
        return float(np.corrcoef(joined.value[known], loop.values[target][known])[0, 1])

    assert agreement(loop.footprint_cm[target]) > agreement(1.0) + 0.05
