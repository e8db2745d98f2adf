"""Endmembers found again in mixtures of known ones."""

import csv
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from typer.testing import CliRunner

pytest.importorskip("sklearn", reason="extraction needs the extra [train]")

from lithostream.engine.cli import app
from lithostream.engine.config import RunSettings
from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.core.section import CalibrationPlan, Section
from lithostream.engine.errors import ConfigError, LithostreamError, SourceError
from lithostream.training import endmembers
from lithostream.training.endmembers import extract, segment_reflectance, write_endmembers

Floats = npt.NDArray[np.float64]


def mixtures(seed: int, count: int, noise: float = 0.004) -> tuple[Floats, Floats]:
    """Known endmembers, and 2,000 noisy mixtures of them; few are nearly pure."""
    rng = np.random.default_rng(seed)
    known = rng.uniform(0.05, 0.8, (count, 3))
    mixed = rng.dirichlet(np.full(count, 0.4), 2000) @ known + rng.normal(0, noise, (2000, 3))
    return known, np.clip(mixed, 1e-4, None)


def angles_deg(found: Floats, known: Floats) -> Floats:
    """Angle between each known endmember and the one found for it, in the best assignment."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, known)]
    orders = (list(order) for order in itertools.permutations(range(len(known))))
    best = min(orders, key=lambda order: float(((found[order] - known) ** 2).sum()))
    angles: Floats = np.degrees(np.arccos(np.clip((unit[0][best] * unit[1]).sum(axis=1), -1, 1)))
    return angles


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_known_endmembers_are_found(seed: int, count: int) -> None:
    known, mixed = mixtures(seed, count)
    found = extract(mixed, count)
    assert angles_deg(found.colour, known).max() < 2.5
    assert found.residual < 0.01


def test_result_does_not_depend_on_chance_or_order() -> None:
    _, mixed = mixtures(5, 3)
    first, again, turned = extract(mixed, 3), extract(mixed, 3), extract(mixed[::-1].copy(), 3)
    np.testing.assert_array_equal(first.colour, again.colour)
    np.testing.assert_allclose(first.colour, turned.colour, atol=2e-3)
    assert (np.diff(first.colour.sum(axis=1)) <= 0).all()


@pytest.mark.parametrize(
    ("rows", "count", "reason"),
    [
        (2000, 1, "1 endmembers"),
        (2000, 5, "5 endmembers"),
        (29, 3, "from 29 segments"),
        (2000, 3, "have 2 corners, not 3"),
    ],
)
def test_what_colours_cannot_tell_is_refused(rows: int, count: int, reason: str) -> None:
    _, line = mixtures(1, 2, noise=0.0)
    with pytest.raises(ConfigError, match=reason):
        extract(line[:rows], count)


def test_flat_colour_is_refused() -> None:
    with pytest.raises(ConfigError, match="have 1 corners"):
        extract(np.full((100, 3), 0.3), 2)


@pytest.fixture
def layered(tmp_path: Path) -> Section:
    """Layers of two colours and of their mixtures, by a linear scanner of gain 0.9; plate beside it."""
    pair = np.array([[0.5, 0.45, 0.4], [0.25, 0.2, 0.12]])
    shares = np.array([1.0, 0.0, 0.5, 0.25, 0.75] * 6).repeat(16)
    light = shares[:, None] * pair[0] + (1 - shares[:, None]) * pair[1]
    rgb = np.rint(255 * 0.9 * np.repeat(light[:, None], 96, axis=1)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    plate = np.full((8, 96, 3), round(255 * 0.9 * 0.95), np.uint8)
    tifffile.imwrite(tmp_path / "plate.tif", plate, photometric="rgb")
    plan = CalibrationPlan("linear", tmp_path / "plate.tif", 0.95)
    return Section("a", tmp_path / "a.tif", 16.0, "manifest", calibration=plan)


def test_table_from_an_image(layered: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endmembers, "discover", lambda paths: ([layered], []))
    found = write_endmembers(layered.image, tmp_path / "table.csv", 2)
    known = np.array([[0.5, 0.45, 0.4], [0.25, 0.2, 0.12]])
    np.testing.assert_allclose(found.colour, known, atol=0.006)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["endmember_1", "endmember_2"]
    assert float(rows[1]["colour_b"]) == pytest.approx(found.colour[1, 2], abs=1e-4)
    with pytest.raises(ConfigError, match="the cell is blank"):
        load_endmembers(tmp_path / "table.csv")
    filled = (tmp_path / "table.csv").read_text().replace(",,,,,,0", ",2.7,,,6000,1,0")
    (tmp_path / "table.csv").write_text(filled)
    np.testing.assert_allclose(load_endmembers(tmp_path / "table.csv").colour, found.colour, atol=1e-4)


def test_uncalibrated_sections_are_refused(layered: Section, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="colours not calibrated"):
        segment_reflectance(Section("a", layered.image, 16.0, "manifest"), RunSettings())
    with pytest.raises(LithostreamError, match="no such file"):
        write_endmembers(tmp_path / "none.tif", tmp_path / "t.csv", 2)


def test_command_refuses_what_is_not_calibrated(layered: Section, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    layered.image.rename(folder / "a.tif")
    (folder / "manifest.toml").write_text('[[section]]\nfile = "a.tif"\npx_per_cm = 16\n')
    result = CliRunner().invoke(app, ["endmembers", str(folder), "--out", str(tmp_path / "t.csv")])
    assert isinstance(result.exception, SourceError)
    assert "colours not calibrated" in str(result.exception)
    assert not (tmp_path / "t.csv").exists()
