"""The study of `bench/mineral_mixtures.py` in small, on seeds that were looked at during the work."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.core.rockphysics import wood_velocity

SCRIPT = Path(__file__).parents[2] / "bench" / "mineral_mixtures.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = spec_from_file_location("mineral_mixtures_under_test", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("regime", ["unconsolidated", "lithified"])
def test_abundances_beat_plain_nnls_and_intervals_cover(bench: ModuleType, regime: str) -> None:
    methods = ["no colour, FCLS", "Hapke, FCLS", "Hapke, NNLS", "bilinear, FCLS"]
    scores = bench.study([100, 101], 200, regime, methods)
    for name in methods:
        score = scores[name]
        assert score.ratio <= 0.6 and score.coverage >= 0.85 and score.worst_sum <= 1e-6, (name, score)
    assert scores["the prior itself"].error_pct > scores["Hapke, FCLS"].error_pct


def test_the_generator_is_not_the_solvers_model(bench: ModuleType) -> None:
    table = load_endmembers().subset(bench.MINERALS)
    mixtures = bench.generate(100, 200, "unconsolidated", table)
    np.testing.assert_allclose(mixtures.fractions.sum(axis=1), 1)
    law = wood_velocity(mixtures.fractions, table.density, table.p_wave_velocity)
    misfit = mixtures.properties[:, 1] / law - 1
    assert np.quantile(np.abs(misfit), 0.75) > 0.015
    assert (mixtures.reflectance > 0).all() and (mixtures.reflectance <= 1).all()
    assert not np.array_equal(mixtures.fractions, bench.generate(101, 200, "unconsolidated", table).fractions)
