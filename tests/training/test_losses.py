from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from lithostream.engine.config import load_toml
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.training.config import FitConfig, TrainConfig
from lithostream.training.data.profile import Profile
from lithostream.training.data.splits import depth_blocks, validation_splits
from lithostream.training.data.tiles import TileSet, moments
from lithostream.training.fit import fit, predict_tiles
from lithostream.training.losses import (
    LOG_VARIANCE_LIMIT,
    beta_gaussian,
    bounded_log_variance,
    huber,
    total_weight,
)
from lithostream.training.models.properties import PropertyNet
from lithostream.training.run import Run, normalised_images

NAN = float("nan")
CPU = torch.device("cpu")
CONFIG = FitConfig(width=2, epochs=4, patience=4, batch_rows=16)


@pytest.fixture(scope="module")
def uncertain() -> TileSet:
    """Rows of grey tiles whose labels follow brightness; in fine stripes they do so badly."""
    rng = np.random.default_rng(8)
    rows, per_row, size = 96, 2, 16
    striped, grey = rng.random(rows) < 0.5, rng.uniform(80, 160, rows)
    stripes = 30 * (np.indices((size, size)).sum(axis=0) % 2) - 15
    tiles = grey[:, None, None] + striped[:, None, None] * stripes + np.zeros((rows, size, size))
    pixels = np.repeat(np.repeat(tiles[..., None], 3, axis=3), per_row, axis=0).astype(np.uint8)
    noise = rng.normal(0, np.where(striped, 1.0, 0.02))
    top = np.arange(rows, dtype=np.float64)
    return TileSet(
        targets=("density", "magnetic_susceptibility"),
        sections=tuple(Section(name, Path(f"{name}.tif"), 16.0, "manifest") for name in ("plain", "striped")),
        pixels=pixels,
        moments=moments(pixels),
        tile=np.arange(rows * per_row),
        row=np.repeat(np.arange(rows), per_row),
        core_fraction=np.ones(rows * per_row),
        labels=np.stack([grey / 40 + noise, grey / 20], axis=1),
        interpolated=np.zeros((rows, 2), np.bool_),
        section=striped.astype(np.int64),
        top_cm=top,
        base_cm=top + 1,
        place=np.arange(rows),
        profile=Profile(striped.astype(np.int64), np.arange(rows), np.zeros((rows, 3))),
    )


def test_huber_is_the_weighted_mean_over_known_labels() -> None:
    found = torch.tensor([[0.5, 3.0], [1.0, 1.0]])
    wanted, weights = torch.tensor([[0.0, 0.0], [NAN, 1.5]]), torch.tensor([1.0, 3.0])
    loss = huber(found, wanted, weights) / total_weight(wanted, weights)
    assert float(loss) == pytest.approx((0.125 + 3 * 2.5 + 3 * 0.125) / 7)
    nothing = torch.full((2, 2), NAN)
    assert float(huber(found, nothing, weights) / total_weight(nothing, weights)) == 0


def test_beta_gaussian_is_the_likelihood_weighted_by_the_deviation() -> None:
    wanted, weights = torch.tensor([[0.3, NAN], [-1.0, 2.0]]), torch.tensor([1.0, 2.0])
    found = torch.tensor([[0.5, 7.0], [1.0, 1.0]], requires_grad=True)
    log_variance = torch.tensor([[-1.0, 0.4], [0.7, 1.3]], requires_grad=True)
    known = torch.isfinite(wanted)
    variance = log_variance.exp().detach()
    each = torch.nn.functional.gaussian_nll_loss(found, wanted.nan_to_num(), variance, reduction="none")
    loss = beta_gaussian(found, log_variance, wanted, weights)
    wanted_loss = (each * variance.sqrt() * known * weights).sum()
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-6)
    loss.backward()
    error = (found.detach() - wanted).nan_to_num()
    torch.testing.assert_close(found.grad, known * weights * error / variance.sqrt())
    slope = 0.5 * (1 - error**2 / variance)
    torch.testing.assert_close(log_variance.grad, known * weights * variance.sqrt() * slope)


def test_the_logarithm_of_variance_is_bounded_with_a_slope_everywhere() -> None:
    raw = torch.linspace(-20, 20, 41, requires_grad=True)
    found = bounded_log_variance(raw)
    found.sum().backward()
    assert found.abs().max().item() < LOG_VARIANCE_LIMIT
    assert float(raw.grad.min()) > 0 and float(raw.grad[20]) == pytest.approx(1)


def test_target_weights_scale_the_gradient_of_their_target(uncertain: TileSet) -> None:
    def head_gradient(**weights: float) -> Any:
        run = Run(uncertain, CONFIG.model_copy(update={"target_weights": weights}), 0, CPU)
        pixels = torch.from_numpy(uncertain.pixels[:64])
        run.backward(normalised_images(run.model, pixels), run.labels[:32])
        return run.model.head.weight.grad

    plain, weighted = head_gradient(), head_gradient(density=3.0)
    torch.testing.assert_close(weighted[0], plain[0] * 3 / 2)  # of the total weight, 1 + 3 instead of 1 + 1
    torch.testing.assert_close(weighted[1], plain[1] / 2)


def test_the_predicted_variance_tells_uncertain_rows_from_certain_ones(uncertain: TileSet) -> None:
    config = CONFIG.model_copy(
        update={"loss": "gaussian", "epochs": 25, "learning_rate": 1e-2, "dropout": 0.0}
    )
    run = Run(uncertain, config, 0, CPU)
    for _ in range(config.epochs):
        run.epoch()
    run.model.eval()
    with torch.no_grad():
        images = normalised_images(run.model, torch.from_numpy(np.asarray(uncertain.pixels)))
        spread = run.model.log_variance(run.model.normalised(images)[1]).exp().sqrt().numpy()[::2, 0]
    striped = uncertain.section == 1
    scale = run.model.target_std[0].item()
    assert 0.5 < np.median(spread[striped]) * scale < 1.6
    assert np.median(spread[~striped]) * scale < 0.3


def test_the_gaussian_loss_keeps_the_mean_and_ships_a_network_of_the_same_form(uncertain: TileSet) -> None:
    rows = np.ones(len(uncertain.labels), np.bool_)
    splits = validation_splits(uncertain, rows, depth_blocks(uncertain, 8.0), 0.0, 1, 0)
    model, _ = fit(uncertain, rows, splits, CONFIG.model_copy(update={"loss": "gaussian"}), 0)
    assert list(model.state_dict()) == list(PropertyNet(2, 2, 16, 0.0).state_dict())
    found = uncertain.row_mean(predict_tiles(model, uncertain).properties)
    certain = uncertain.section == 0
    error = np.abs(found - uncertain.labels)[certain]
    assert np.median(error[:, 0]) < 0.25 and np.median(error[:, 1]) < 0.15


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        ("target_weights = {p_wave_velocity = 2.0}", r"fit\.target_weights names \['p_wave_velocity'\]"),
        ("target_weights = {density = 0.0}", "greater than 0"),
        ('loss = "gauss"', r"fit\.loss"),
        ("ema = 1.0", "less than 1"),
        ('device = "tpu"', r"fit\.device"),
    ],
)
def test_a_wrong_fit_table_is_refused(tmp_path: Path, fit: str, reason: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "n"\nlicence = "CC0-1.0"\ndescription = "d"\ntargets = ["density"]\n'
        f'minerals = ["quartz"]\ndata = ["a"]\n[fit]\n{fit}\n'
    )
    with pytest.raises(ConfigError, match=reason):
        load_toml(path, TrainConfig)
