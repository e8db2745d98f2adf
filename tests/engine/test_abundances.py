"""What the solver is given: logs before predictions, colour where calibrated, nothing out of domain."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lithostream.engine.bundle import load_bundle
from lithostream.engine.core.abundances import prediction_covariance, segment_minerals
from lithostream.engine.core.join import Joined
from lithostream.engine.core.minerals import sediment_endmembers
from lithostream.engine.core.pooling import WindowSegments
from lithostream.engine.core.unmix import MineralResult, Source
from lithostream.engine.manifest import Manifest, Output

OUTPUTS = (
    Output(name="density", unit="g/cm3", half_width_90=0.1),
    Output(name="p_wave_velocity", unit="m/s", half_width_90=40.0),
    Output(name="magnetic_susceptibility", unit="1e-5 SI", half_width_90=5.0),
)
BUNDLE = Path(__file__).parents[2] / "engine" / "demo_bundle"
DRY, WET = 2.0, 1.4  # g/cm3, of the log and of the prediction


def stated(correlation: float | None = None) -> Manifest:
    """Manifest of the shipped bundle with these outputs, whose first two err together."""
    known = ((1.0, correlation, 0.0), (correlation, 1.0, 0.0), (0.0, 0.0, 1.0)) if correlation else ()
    shipped = load_bundle(BUNDLE).manifest
    return Manifest.model_validate({**shipped.model_dump(), "outputs": OUTPUTS, "error_correlation": known})


def segments(reflectance: float = np.nan) -> WindowSegments:
    """Three segments: in interval 0, across 0 and 1, and in 1."""
    count = 3
    return WindowSegments(
        window=np.zeros(count, np.int64),
        parent=np.full(count, -1),
        area_px=np.full(count, 10),
        box=np.zeros((count, 4), np.int64),
        centroid=np.zeros((count, 2)),
        colour=np.zeros((count, 3)),
        colour_std=np.zeros((count, 3)),
        reflectance=np.full((count, 3), reflectance),
        values=np.tile([WET, 1500.0, 30.0, 0.0], (count, 1)),
        interval_pixels=np.array([[0, 0, 10], [1, 0, 5], [1, 1, 5], [2, 1, 10]]),
    )


def solve(
    outside: tuple[bool, ...] = (False, False, False),
    log: tuple[float, float] | None = None,
    reflectance: float = np.nan,
    correlation: float | None = None,
) -> MineralResult:
    measured = {}
    if log:
        measured["density"] = Joined(np.array(log), np.ones(2), np.zeros(2, bool))
        measured["xrf_calcium"] = measured["density"]  # follows no mixing law
    return segment_minerals(
        segments(reflectance),
        np.array(outside),
        stated(correlation),
        measured,
        sediment_endmembers(),
        coloured=bool(np.isfinite(segments(reflectance).reflectance).any()),
    )


def test_a_log_takes_the_place_of_the_prediction_where_it_has_values() -> None:
    predicted, both = solve(), solve(log=(DRY, np.nan))
    assert both.source[:, 0].tolist() == [Source.MEASURED, Source.MEASURED, Source.PREDICTED]
    assert (both.source[:, 1:] == Source.PREDICTED).all()
    assert (predicted.source == Source.PREDICTED).all()
    water = both.volume_pct[:, 0]
    assert water[0] == water[1] < water[2] - 20
    np.testing.assert_array_equal(both.volume_pct[2], predicted.volume_pct[2])


def test_a_measured_density_narrows_the_interval() -> None:
    predicted, measured = solve(), solve(log=(WET, WET))
    assert (
        measured.high_pct[0, 0] - measured.low_pct[0, 0] < predicted.high_pct[0, 0] - predicted.low_pct[0, 0]
    )


def test_out_of_domain_gives_nothing_even_with_a_log() -> None:
    found = solve(outside=(True, False, False), log=(DRY, DRY), reflectance=0.3)
    assert np.isnan(found.volume_pct[0]).all()
    assert np.isfinite(found.volume_pct[1:]).all()


@pytest.mark.parametrize(("reflectance", "differs"), [(np.nan, False), (0.05, True)])
def test_colour_counts_where_it_is_calibrated(reflectance: float, differs: bool) -> None:
    assert bool(np.abs(solve(reflectance=reflectance).volume_pct - solve().volume_pct).max() > 0.5) is differs


def test_errors_that_go_together_are_counted_together() -> None:
    covariance = prediction_covariance(stated(0.8), colour=False)
    assert covariance.shape == (3, 3)
    assert covariance[0, 1] == covariance[1, 0] == pytest.approx(0.8 * 0.1 * 40.0 / 1.6449**2)
    assert covariance[1, 1] == pytest.approx((40.0 / 1.6449) ** 2 + 25.0**2)  # the mixing law's own error
    assert np.count_nonzero(covariance) == 5
    assert np.array_equal(prediction_covariance(stated(), colour=False), np.diag(np.diag(covariance)))
    assert prediction_covariance(stated(0.8), colour=True).shape == (6, 6)
    apart, together = solve(), solve(correlation=0.8)
    assert np.abs(apart.volume_pct - together.volume_pct).max() > 0.1


@pytest.mark.parametrize(
    "wrong",
    [((1.0,),), ((1.0, 0.5, 0), (0.4, 1.0, 0), (0, 0, 1.0)), ((1.0, 1.0, 0), (1.0, 1.0, 0), (0, 0, 1.0))],
)
def test_what_is_no_correlation_is_refused(wrong: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValidationError, match="error_correlation"):
        Manifest.model_validate({**stated().model_dump(), "error_correlation": wrong})
