from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'train'")

from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from lithostream.engine.core.depth_model import filtered
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.training.config import SplitConfig
from lithostream.training.data.core_logs import LogRows
from lithostream.training.data.profile import Profile, on_scale
from lithostream.training.depth import LINGERING, NOISE_SHARE, calibrated, fit_depth_model, predict_profile
from lithostream.training.out_of_fold import baseline_folds, depth_folds

LINEAR = np.zeros(1, np.bool_)


def bedded(rng: np.random.Generator, rows: int = 160) -> tuple[Profile, np.ndarray]:
    """One core whose label follows the colour of the rows around, not of the row alone."""
    colour = np.cumsum(rng.normal(size=(rows, 3)), axis=0) + rng.normal(0, 3.0, (rows, 3))
    profile = Profile(np.zeros(rows, np.int64), np.arange(rows), colour)
    label = filtered(colour, np.ones(rows, np.bool_), np.array([3.0]))[:, :1]
    return profile, 1.5 + 0.05 * label + rng.normal(0, 0.01, label.shape)


def test_members_are_gaussian_processes(rng: np.random.Generator) -> None:
    profile, label = bedded(rng, 60)
    at = np.arange(60)
    model = fit_depth_model(profile, at, label, LINEAR)
    bank, wanted = model.banks[3], ((label - label.mean()) / label.std())[:, 0]
    white = (profile.colour - model.colour_mean) @ model.whitening
    seen = bank.filtered(white, np.ones(60, np.bool_))
    scaled = seen / np.sqrt(seen.shape[1])
    linear = DotProduct(0.0, "fixed") + ConstantKernel(1.0, "fixed")
    smooth = linear + Matern(3.0, "fixed", nu=1.5)
    for member, kernel in ((0, linear), (2, smooth)):
        oracle = GaussianProcessRegressor(
            kernel + WhiteKernel(NOISE_SHARE, "fixed"), alpha=0.0, optimizer=None
        )
        found = bank.members(seen)[member, :, 0]
        np.testing.assert_allclose(found, oracle.fit(scaled, wanted).predict(scaled), atol=1e-6)
    # With noise that lingers: the textbook formula.
    gram = seen @ seen.T / seen.shape[1] + 1.0
    apart = np.abs(at[:, None] - at)
    noise = NOISE_SHARE * (0.2 * np.eye(60) + 0.8 * np.exp(-apart / LINGERING))
    np.testing.assert_allclose(
        bank.members(seen)[1, :, 0], gram @ np.linalg.solve(gram + noise, wanted), atol=1e-8
    )


def test_neighbouring_rows_tell_what_a_row_alone_does_not(rng: np.random.Generator) -> None:
    profile, label = bedded(rng, 240)
    train, test = np.arange(160), np.arange(180, 240)
    model = fit_depth_model(profile, train, label[train], LINEAR)
    found = predict_profile(model, profile).value[test, 0]
    design = np.column_stack([profile.colour, np.ones(240)])
    plain = design[test] @ np.linalg.lstsq(design[train], label[train, 0], rcond=None)[0]
    wanted = label[test, 0]
    assert np.mean((found - wanted) ** 2) < 0.5 * np.mean((plain - wanted) ** 2)


def test_missing_labels_and_sections_apart(rng: np.random.Generator) -> None:
    one, label = bedded(rng, 80)
    both = Profile(np.repeat([0, 1], 80), np.tile(np.arange(80), 2), np.concatenate([one.colour, one.colour]))
    labels = np.full((160, 2), np.nan)
    labels[:80, 0], labels[80:, 1] = label[:, 0], np.exp(label[:, 0])
    model = fit_depth_model(both, np.arange(160), labels, np.array([False, True]))
    found = predict_profile(model, both)
    # Each target saw one section; the other one has the same colours, so the same values.
    np.testing.assert_allclose(found.value[:80], found.value[80:])
    np.testing.assert_allclose(np.log(found.value[:, 1]), found.value[:, 0], atol=1e-9)
    moved = both._replace(colour=np.concatenate([one.colour, one.colour[::-1] + 5.0]))
    np.testing.assert_allclose(predict_profile(model, moved).value[:80], found.value[:80])


def test_a_gap_in_the_core_is_no_neighbour(rng: np.random.Generator) -> None:
    profile, label = bedded(rng, 60)
    model = fit_depth_model(profile, np.arange(60), label, LINEAR)
    keep = (np.arange(60) < 20) | (np.arange(60) >= 45)
    gapped = Profile(profile.section[keep], profile.place[keep], profile.colour[keep])
    found = predict_profile(model, gapped).value
    whole = predict_profile(model, profile).value[keep]
    # 2.5 standard deviations of the widest filter are 20 rows: only rows that near to the gap differ.
    np.testing.assert_allclose(found[-1], whole[-1], atol=0.2)
    assert np.isfinite(found).all() and not np.allclose(found[19], whole[19])


def test_calibration_scales_the_interval(rng: np.random.Generator) -> None:
    profile, label = bedded(rng, 60)
    raw = fit_depth_model(profile, np.arange(60), label, LINEAR)
    assert np.isinf(raw.factor_90).all() and np.isinf(raw.distance_limit)
    ready = calibrated(raw, np.array([2.0]), 1e9)
    found = predict_profile(ready, profile)
    np.testing.assert_allclose(found.high - found.low, 4.0 * found.spread)


def test_strange_colours_are_far_and_uncertain(rng: np.random.Generator) -> None:
    profile, label = bedded(rng, 120)
    model = fit_depth_model(profile, np.arange(120), label, LINEAR)
    limit = float(predict_profile(model, profile).distance.max())
    ready = calibrated(model, np.array([1.6]), limit)
    away = profile._replace(colour=profile.colour + 40.0 * profile.colour.std(axis=0))
    near, far = predict_profile(ready, profile), predict_profile(ready, away)
    assert far.distance.min() > 2 * limit
    assert far.spread.min() > label.std() > np.median(near.spread)


def test_logarithms_of_what_is_not_positive_are_unknown() -> None:
    values = np.array([[1.0, 1.0], [0.0, 0.0], [-2.0, -2.0], [np.nan, np.e]])
    found = on_scale(values, np.array([False, True]))
    np.testing.assert_array_equal(found[:, 0], values[:, 0])
    np.testing.assert_allclose(found[:, 1], [0.0, np.nan, np.nan, 1.0])


def test_many_rows_are_thinned_and_a_rare_target_is_kept(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lithostream.training.depth.MOST_ROWS", 40)
    profile, label = bedded(rng, 160)
    rare = np.full(160, np.nan)
    rare[[33, 71, 107]] = 2.0 + label[[33, 71, 107], 0]  # no even spacing of all rows meets these
    labels = np.column_stack([label[:, 0], rare])
    model = fit_depth_model(profile, np.arange(160), labels, np.zeros(2, np.bool_))
    assert 20 <= len(model.banks[0].rows) <= 40
    assert model.label_mean[1] == pytest.approx(np.nanmean(rare))
    assert np.isfinite(predict_profile(model, profile).value).all()


def test_a_target_without_a_positive_label_has_no_logarithm(rng: np.random.Generator) -> None:
    profile, label = bedded(rng, 40)
    top = np.arange(40.0)
    rows = LogRows(
        targets=("magnetic_susceptibility",),
        sections=(Section("s", Path("s.csv"), 1.0, "manifest"),),
        labels=-label,
        section=np.zeros(40, np.int64),
        top_cm=top,
        base_cm=top + 1,
        place=np.arange(40),
        colour=profile.colour,
        profile=profile,
    )
    split = SplitConfig(folds=2, block_cm=10, buffer_cm=0)
    with pytest.raises(ConfigError, match="reading of magnetic_susceptibility"):
        depth_folds("ours", rows, split, 0, np.ones(1, np.bool_))
    with pytest.raises(ConfigError, match="reading of magnetic_susceptibility"):
        baseline_folds(rows, split, 0, np.ones(1, np.bool_))
