import csv
import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from lithostream.engine.core import rockphysics
from lithostream.engine.core.minerals import SEDIMENT
from lithostream.engine.core.synthetic import SENSORS, SyntheticCore, generate, sensor_log, write
from lithostream.engine.core.synthetic.layers import draw_sequence
from lithostream.engine.core.synthetic.painter import CARD_SRGB
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.geotek import read_sidecar

SIZE = {"length_cm": 60.0, "width_cm": 7.0}


def _core(seed: int, px_per_cm: float = 15.0) -> SyntheticCore:
    return generate(seed, px_per_cm=px_per_cm, **SIZE)


@pytest.fixture(scope="module")
def cores() -> list[SyntheticCore]:
    return [generate(seed, length_cm=100.0, width_cm=8.0, px_per_cm=15.0) for seed in range(40, 52)]


def _pooled(cores: list[SyntheticCore], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([getattr(core, name)[core.is_core] for core in cores])


def test_same_seed_same_bytes_other_seed_other_core() -> None:
    first, again, other = _core(7), _core(7), _core(8)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.fractions.tobytes() == again.fractions.tobytes()
    assert sensor_log(first)["density"].tobytes() == sensor_log(again)["density"].tobytes()
    assert (first.image != other.image).mean() > 0.5


def test_the_core_is_the_same_at_every_scale() -> None:
    coarse, fine = _core(3, 15.0), _core(3, 60.0)
    assert coarse.image.shape == (900, 105, 3) and fine.image.shape == (3600, 420, 3)
    assert coarse.layout == fine.layout
    np.testing.assert_array_equal(coarse.p_wave_velocity, fine.p_wave_velocity)
    shrunk = fine.image.reshape(900, 4, 105, 4, 3).mean(axis=(1, 3))
    inside = coarse.core_mask & fine.core_mask.reshape(900, 4, 105, 4).all(axis=(1, 3))
    assert np.abs(shrunk - coarse.image)[inside].mean() < 4
    for channel in range(3):
        a, b = shrunk[inside, channel], coarse.image[inside, channel]
        assert np.corrcoef(a, b)[0, 1] > 0.85


def test_truth_is_the_forward_model_of_the_fractions(cores: list[SyntheticCore]) -> None:
    for core in cores:
        fractions, table = core.fractions[core.is_core], core.endmembers
        assert table.names == SEDIMENT
        assert (fractions >= 0).all()
        np.testing.assert_allclose(fractions.sum(axis=1), 1, atol=1e-12)
        density = rockphysics.bulk_density(fractions, table.density)
        susceptibility = rockphysics.volume_susceptibility(fractions, table.susceptibility)
        np.testing.assert_allclose(core.density[core.is_core], density, rtol=1e-12)
        np.testing.assert_allclose(core.magnetic_susceptibility[core.is_core], susceptibility, rtol=1e-12)


def test_velocity_is_near_wood_but_not_wood(cores: list[SyntheticCore]) -> None:
    fractions = np.concatenate([core.fractions[core.is_core] for core in cores])
    table = cores[0].endmembers
    ratio = _pooled(cores, "p_wave_velocity") / rockphysics.wood_velocity(
        fractions, table.density, table.p_wave_velocity
    )
    assert ratio.min() > 0.98 and ratio.max() < 1.12
    assert 1.0 < ratio.mean() < 1.03
    assert ratio.std() > 0.003
    bounds = rockphysics.hashin_shtrikman(fractions, table.bulk_modulus, table.shear_modulus)
    stiff = rockphysics.modulus_velocity(
        bounds.upper_bulk + 4 / 3 * bounds.upper_shear, _pooled(cores, "density")
    )
    assert (_pooled(cores, "p_wave_velocity") < stiff).all()


def test_properties_lie_in_the_range_of_soft_sediment(cores: list[SyntheticCore]) -> None:
    for name, low, high in (
        ("density", 1.2, 2.2),
        ("p_wave_velocity", 1450, 1800),
        ("magnetic_susceptibility", 0, 300),
    ):
        values = _pooled(cores, name)
        assert low < values.min() and values.max() < high, name
        assert TARGETS[name].low <= values.min() and values.max() <= TARGETS[name].high
        # A range worth learning: the middle 90 % spans a good part of it.
        assert np.diff(np.percentile(values, [5, 95])) > 0.2 * (high - low), name
    porosity = np.concatenate([core.fractions[core.is_core, 0] for core in cores])
    assert porosity.min() > 0.35 and porosity.max() < 0.80


def test_nothing_is_known_where_there_is_no_core(cores: list[SyntheticCore]) -> None:
    assert any(core.layout.gaps_cm for core in cores)
    for core in cores:
        rows_cm = (np.arange(len(core.core_mask), dtype=np.float64) + 0.5) / core.px_per_cm
        np.testing.assert_array_equal(core.core_mask.any(axis=1), core.layout.is_core(rows_cm))
        for name in ("density", "p_wave_velocity", "magnetic_susceptibility"):
            np.testing.assert_array_equal(np.isnan(getattr(core, name)), ~core.is_core)
        # Liner: nothing within 3 mm of the sides; core across most of the rest.
        edge = round(0.3 * core.px_per_cm)
        assert not core.core_mask[:, :edge].any() and not core.core_mask[:, -edge:].any()
        across = core.core_mask.mean(axis=1)[core.core_mask.any(axis=1)]
        assert across.min() > 0.85 and across.max() < 0.92


def test_foam_is_white_and_the_card_keeps_its_colours(cores: list[SyntheticCore]) -> None:
    core = next(core for core in cores if core.layout.gaps_cm)
    px, width = core.px_per_cm, core.image.shape[1]
    top, base = core.layout.gaps_cm[0]
    middle = core.image[round((top + 0.4) * px) : round((base - 0.4) * px), width // 3 : -width // 3]
    assert middle.min() > 200
    sediment = core.image[core.core_mask]
    assert sediment.mean() < 150
    pitch, start = core.layout.card_pitch_cm, core.layout.card_top_cm
    left = 0.5 * (core.layout.width_cm - 6 * pitch)
    for index, expected in enumerate(CARD_SRGB):
        row, col = divmod(index, 6)
        y, x = round((start + (row + 0.5) * pitch) * px), round((left + (col + 0.5) * pitch) * px)
        patch = core.image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(axis=0)
        # The lamp is up to 15 % weaker at the sides.
        assert np.abs(patch - expected).max() < 24, index
    card_rows = slice(round(start * px), None)
    assert not core.core_mask[card_rows].any()


def test_layers_have_the_stated_thickness_and_are_valid() -> None:
    thickness = []
    for seed in range(20):
        sequence = draw_sequence(np.random.default_rng(seed), 100.0)
        np.testing.assert_allclose(sequence.fractions.sum(axis=1), 1, atol=1e-12)
        assert (sequence.fractions >= 0).all()
        thickness.append(np.diff(sequence.boundaries_cm))
    cm = np.concatenate(thickness)
    assert cm.min() >= 0.5 and cm.max() <= 15
    assert 2.5 < np.median(cm) < 4.0


def test_grains_of_sand_show_and_mud_is_smooth() -> None:
    core = generate(44, length_cm=100.0, width_cm=8.0, px_per_cm=40.0)
    rough, quartz = [], []
    for top in np.arange(2.0, 90.0, 0.5):
        truth = core.truth_at(top, top + 0.5)
        if truth["core_share"][0] > 0.999:
            tile = core.image[round(top * 40) : round(top * 40 + 20), 60:-60].astype(float).mean(axis=2)
            rough.append(np.median(np.abs(np.diff(tile, axis=1))))
            quartz.append(truth["quartz_volume_pct"][0])
    assert np.corrcoef(rough, quartz)[0, 1] > 0.7


def test_colour_tells_density_but_not_all_of_it(cores: list[SyntheticCore]) -> None:
    edges = np.arange(0.0, 100.0, 1.0)
    colours, densities, groups = [], [], []
    for group, core in enumerate(cores):
        truth = core.truth_at(edges, edges + 1.0)
        rows = core.image.reshape(100, 15, 120, 3)[:, :, 30:90].mean(axis=(1, 2))
        whole = truth["core_share"] > 0.999
        colours.append(np.log(rows[whole]))
        densities.append(truth["density"][whole])
        groups.append(np.full(whole.sum(), group))
    x, y, group_of = np.concatenate(colours), np.concatenate(densities), np.concatenate(groups)
    x = np.column_stack([np.ones(len(x)), x, x**2])
    predicted = np.empty(len(y))
    for group in range(len(cores)):
        out = group_of == group
        predicted[out] = x[out] @ np.linalg.lstsq(x[~out], y[~out])[0]
    r2 = 1 - ((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert 0.55 < r2 < 0.88


def test_truth_at_is_the_mean_over_the_core_of_the_interval() -> None:
    core = next(core for core in map(_core, range(20)) if core.layout.gaps_cm)
    top, base = core.layout.gaps_cm[0]
    truth = core.truth_at(np.array([5.0, top, top - 2.0]), np.array([6.0, base, top + 1.0]))
    assert truth["density"][0] == pytest.approx(core.density[50:60].mean(), rel=1e-9)
    assert truth["quartz_volume_pct"][0] == pytest.approx(100 * core.fractions[50:60, 1].mean(), rel=1e-9)
    assert truth["core_share"] == pytest.approx([1.0, 0.0, 2 / 3])
    assert np.isnan(truth["density"][1])
    first = round((top - 2.0) * 10)
    assert truth["density"][2] == pytest.approx(core.density[first : first + 20].mean(), rel=1e-9)
    half = core.truth_at(5.05, 5.15)
    assert half["density"][0] == pytest.approx(core.density[50:52].mean(), rel=1e-9)
    with pytest.raises(ConfigError, match="no height"):
        core.truth_at(3.0, 3.0)


def test_sensors_see_the_truth_through_their_footprints() -> None:
    core = next(core for core in map(_core, range(20)) if core.layout.gaps_cm)
    log = sensor_log(core)
    depth = log["sb_depth_cm"]
    np.testing.assert_array_equal(depth, np.arange(1.0, 60.0))
    top, base = core.layout.gaps_cm[0]
    for sensor, noise in zip(SENSORS, (0.010, 4.0, 2.0), strict=True):
        half = sensor.footprint_cm / 2
        truth = core.truth_at(depth - half, depth + half)
        seen = ~np.isnan(log[sensor.column])
        np.testing.assert_array_equal(seen, truth["core_share"] > 0.9999)
        assert not seen[(depth > top - half + 0.05) & (depth < base + half - 0.05)].any()
        error = (log[sensor.column] - truth[sensor.name])[seen]
        assert 0.3 * noise < error.std() < 1.7 * noise and abs(error.mean()) < noise
    smooth = [np.nanstd(np.diff(core.truth_at(depth - h, depth + h)["density"])) for h in (0.5, 3.0)]
    assert smooth[1] < smooth[0]


def test_files_hold_what_was_generated(tmp_path: Path) -> None:
    core = _core(1)
    path = write(core, tmp_path / "new")
    assert path.name == "SYN_0001_01.tif"
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        assert page.compression == 1 and page.rowsperstrip == 64 and len(page.dataoffsets) == 15
        np.testing.assert_array_equal(page.asarray(), core.image)
    sidecar = read_sidecar(path.with_suffix(".xml"))
    sidecar.check_size(*core.core_mask.shape)
    assert sidecar.statement.px_per_cm == 15.0 and sidecar.statement.top_cm == 0.0
    text = path.with_suffix(".xml").read_text(encoding="utf-8")
    assert "<scanner>lithostream synthetic</scanner>" in text and (sidecar.core, sidecar.section) == (
        "SYN_0001",
        "01",
    )

    with (path.parent / "SYN_0001_01_mscl.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["sb_depth_cm", "density", "pwave_vel", "mag_sus"]
    read = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows[1:]])
    np.testing.assert_allclose(read, np.column_stack(list(sensor_log(core).values())), atol=5.1e-5)

    table = pq.read_table(path.parent / "SYN_0001_01_truth.parquet").to_pydict()
    np.testing.assert_allclose(np.diff(table["top_cm"]), 0.5)
    expected = core.truth_at(np.array(table["top_cm"]), np.array(table["base_cm"]))
    assert set(table) == {"top_cm", "base_cm", *expected}
    np.testing.assert_array_equal(table["magnetic_susceptibility"], expected["magnetic_susceptibility"])


def test_files_are_equal_byte_for_byte(tmp_path: Path) -> None:
    digests = []
    for folder in ("a", "b"):
        write(_core(2), tmp_path / folder)
        files = sorted((tmp_path / folder).iterdir())
        digests.append([(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files])
    assert len(digests[0]) == 4 and digests[0] == digests[1]


@pytest.mark.parametrize(
    ("length_cm", "width_cm", "px_per_cm"), [(10.0, 8.0, 15.0), (60.0, 1.0, 15.0), (60.0, 7.0, 1.0)]
)
def test_impossible_scans_are_refused(length_cm: float, width_cm: float, px_per_cm: float) -> None:
    with pytest.raises(ConfigError):
        generate(1, length_cm=length_cm, width_cm=width_cm, px_per_cm=px_per_cm)
