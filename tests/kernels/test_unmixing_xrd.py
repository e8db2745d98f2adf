"""Weighed mineral mixtures (USGS RockJock, from powdR): NNLS over whole X-ray powder patterns."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize

from lithostream.kernels.unmixing import UnmixingFlag, nnls

Floats = npt.NDArray[np.float64]

MIXTURES = ("Mix2", "Mix3", "Mix4", "Mix5", "Mix7", "Mix8")
PHASES = {
    "QUARTZ": "Quartz",
    "ORDERED_MICROCLINE": "K_feldspar",
    "LABRADORITE": "Plagioclase",
    "KAOLINITE_DRY_BRANCH": "Kaolinite",
    "MONTMORILLONITE_WYO": "Dioctahedral_smectite",
    "ILLITE_1M_RM30": "Illite",
    "CORUNDUM": "Corundum",
}
BACKGROUNDS = ("BACK_POS", "BACK_NEG")
ANGLES = (5.5, 63.5)  # degrees 2 theta
SHIFTS = np.round(np.arange(-0.3, 0.301, 0.02), 2)  # degrees 2 theta, one for the whole pattern


class Powder(NamedTuple):
    library: Floats  # [phase, angle]
    intensity: Floats  # [phase], reference intensity ratio
    spectra: Floats  # [mixture, shift, angle]
    weight_pct: Floats  # [mixture, mineral]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def powder(data_dir: Callable[[str], Path]) -> Powder:
    folder = data_dir("rockjock-xrpd")
    names = [*PHASES, *BACKGROUNDS]
    ratios = {row["phase_id"]: float(row["rir"]) for row in rows_of(folder / "phases.csv")}
    truth = {row["sample_id"]: row for row in rows_of(folder / "weights.csv")}
    with np.load(folder / "library.npz") as stored:
        angles, known = stored["tth"], stored["phase_id"].tolist()
        inside = (angles >= ANGLES[0]) & (angles <= ANGLES[1])
        library = stored["counts"][[known.index(name) for name in names]][:, inside].astype(np.float64)
    patterns = {
        name: np.loadtxt(folder / f"{name}.csv", delimiter=",", skiprows=1, unpack=True) for name in MIXTURES
    }
    spectra = [[np.interp(angles[inside] - shift, *patterns[name]) for shift in SHIFTS] for name in MIXTURES]
    weights = [[float(truth[name][mineral]) for mineral in PHASES.values()] for name in MIXTURES]
    return Powder(library, np.array([ratios[n] for n in names]), np.array(spectra), np.array(weights))


def test_weighed_mixtures_are_found_from_whole_patterns(powder: Powder) -> None:
    count, shifts, channels = powder.spectra.shape
    assert channels == 2901
    result = nnls(powder.spectra.reshape(-1, channels), powder.library)
    best = result.residual.reshape(count, shifts).argmin(axis=1)
    assert np.all((best > 0) & (best < shifts - 1))  # no shift at the end of the range
    shares = result.abundances.reshape(count, shifts, -1)[np.arange(count), best] / powder.intensity
    minerals = shares[:, : len(PHASES)]
    error = np.abs(100 * minerals / minerals.sum(axis=1, keepdims=True) - powder.weight_pct)
    assert error.mean() <= 1.1
    assert error.max() <= 4.5


def test_whole_patterns_have_the_residual_of_scipy(powder: Powder) -> None:
    spectra = powder.spectra[:, 15]
    result = nnls(spectra, powder.library)
    for p, spectrum in enumerate(spectra):
        x, norm = optimize.nnls(powder.library.T, spectrum)
        assert abs(result.residual[p] - norm) <= 1e-12 * np.linalg.norm(spectrum)
        np.testing.assert_allclose(result.abundances[p], x, atol=1e-10 * x.max())


def test_two_opposite_backgrounds_are_flagged(powder: Powder) -> None:
    spectra, (positive, negative) = powder.spectra[:, 15], powder.library[-2:]
    np.testing.assert_array_equal(positive, -negative)
    both, one = nnls(spectra, powder.library), nnls(spectra, powder.library[:-1])
    assert np.all(both.flags == UnmixingFlag.UNDERDETERMINED)
    assert not one.flags.any()
