from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from safetensors.torch import save

from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.training.config import FitConfig
from lithostream.training.data.profile import Profile
from lithostream.training.data.splits import (
    assign_folds,
    away_from,
    depth_blocks,
    validation_splits,
)
from lithostream.training.data.tiles import TileSet, moments
from lithostream.training.fit import Fitted, fit, predict, predict_tiles
from lithostream.training.metrics import score
from lithostream.training.models.properties import PropertyNet, colour_features
from lithostream.training.run import augment

CONFIG = FitConfig(width=4, epochs=6, patience=6, batch_rows=16)


def fitted(tiles: TileSet, seed: int, config: FitConfig = CONFIG) -> Fitted:
    rows = np.ones(len(tiles.labels), np.bool_)
    splits = validation_splits(tiles, rows, depth_blocks(tiles, 10.0), 3.0, config.validations, seed)
    return fit(tiles, rows, splits, config, seed)


@pytest.fixture(scope="module")
def textured() -> TileSet:
    """Rows whose label is the coarseness of their pattern: mean and deviation of colour do not tell."""
    rng = np.random.default_rng(5)
    rows, per_row, size = 120, 4, 16
    coarse = rng.permutation(np.repeat([False, True], rows // 2))
    fine_pattern = np.indices((size, size)).sum(axis=0) % 2
    coarse_pattern = np.indices((size, size)).sum(axis=0) // 4 % 2
    base = np.where(np.repeat(coarse, per_row)[:, None, None], coarse_pattern, fine_pattern)
    pixels = 100 + 60 * base[..., None] + rng.integers(-8, 8, (rows * per_row, size, size, 3))
    top = np.arange(rows, dtype=np.float64)
    return TileSet(
        targets=("density",),
        sections=(Section("textured", Path("textured.tif"), 16.0, "manifest"),),
        pixels=pixels.astype(np.uint8),
        moments=moments(pixels.astype(np.uint8)),
        tile=np.arange(rows * per_row),
        row=np.repeat(np.arange(rows), per_row),
        core_fraction=np.ones(rows * per_row),
        labels=np.where(coarse, 2.0, 1.5)[:, None] + rng.normal(0, 0.02, (rows, 1)),
        interpolated=np.zeros((rows, 1), np.bool_),
        section=np.zeros(rows, np.int64),
        top_cm=top,
        base_cm=top + 1,
        place=np.arange(rows),
        profile=Profile(np.zeros(rows, np.int64), np.arange(rows), np.zeros((rows, 3))),
    )


def test_the_network_learns_what_colour_does_not_tell(textured: TileSet) -> None:
    block = depth_blocks(textured, 10.0)
    held = assign_folds(block, 3, 0) == 0
    rows = away_from(textured, held, 0.0)
    config = CONFIG.model_copy(update={"epochs": 16, "patience": 16, "learning_rate": 3e-3})
    unseen = textured.of_rows(held)

    splits = validation_splits(textured, rows, block, 0.0, 1, 0)

    def r2(config: FitConfig) -> float:
        model, _ = fit(textured, rows, splits, config, 0)
        return score(unseen.row_mean(predict_tiles(model, unseen).properties)[:, 0], unseen.labels[:, 0]).r2

    assert r2(config) > 0.6
    assert r2(config.model_copy(update={"epochs": 1, "learning_rate": 1e-12})) < 0.1  # the linear start


def test_rows_without_a_reading_of_a_target_are_an_error(core_tiles: TileSet) -> None:
    unmeasured = np.zeros(len(core_tiles.labels), np.bool_)
    with pytest.raises(ConfigError, match="none of 0 training rows has a reading of density"):
        fit(core_tiles, unmeasured, [], CONFIG, 0)


def test_the_linear_start_predicts_an_unseen_part_of_a_core(core_tiles: TileSet) -> None:
    config = CONFIG.model_copy(update={"epochs": 1})
    model, _ = fitted(core_tiles, 0, config)
    found = core_tiles.row_mean(predict_tiles(model, core_tiles).properties)
    assert score(found[:, 0], core_tiles.labels[:, 0]).r2 > 0.3


def test_equal_seeds_give_equal_weights_and_others_do_not(textured: TileSet) -> None:
    few = textured.of_rows(np.arange(120) < 60)
    config = CONFIG.model_copy(update={"epochs": 2})
    first, again, other = (fitted(few, seed, config).model for seed in (3, 3, 4))
    assert save(first.state_dict()) == save(again.state_dict())
    assert save(first.state_dict()) != save(other.state_dict())


def test_fitting_leaves_the_callers_random_state_and_threads_alone(textured: TileSet) -> None:
    few = textured.of_rows(np.arange(120) < 60)
    torch.manual_seed(11)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    fitted(few, 0, CONFIG.model_copy(update={"epochs": 1}))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_missing_labels_do_not_enter_the_fit(textured: TileSet) -> None:
    few = textured.of_rows(np.arange(120) < 60)
    few.labels[:5] = np.nan
    model, _ = fitted(few, 0, CONFIG.model_copy(update={"epochs": 1}))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
    assert model.target_mean.item() == pytest.approx(np.nanmean(few.labels), abs=1e-6)


def test_distance_tells_strange_tiles_from_known_ones(core_tiles: TileSet) -> None:
    model, _ = fitted(core_tiles, 0, CONFIG.model_copy(update={"epochs": 1}))
    known = predict_tiles(model, core_tiles).distance
    strange = np.zeros((3, 16, 16, 3), np.uint8)
    strange[0, :, :, 1], strange[1] = 255, 255
    strange[2] = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert predict(model, strange).distance.min() > 1.5 * np.quantile(known, 0.999)


def test_distance_is_the_mahalanobis_distance(rng: np.random.Generator) -> None:
    model = PropertyNet(1, 1, 16, 0.0)
    tiles = rng.integers(0, 256, (5, 16, 16, 3), np.uint8)
    root = rng.normal(size=(14, 14)) + 4 * np.eye(14)
    model.set_distance(np.zeros(14), root)
    model.eval()
    images = torch.from_numpy(tiles).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        embedding = model.normalised(images)[1].double().numpy()
    wanted = np.sqrt(np.einsum("ni,ij,nj->n", embedding, root @ root.T, embedding))
    np.testing.assert_allclose(predict(model, tiles).distance, wanted, rtol=1e-5)


def test_augmentation_keeps_the_order_of_depth(rng: np.random.Generator) -> None:
    down = np.linspace(0, 1, 16)[:, None] ** 2 + 0.1 * np.linspace(0, 1, 16)
    images = torch.from_numpy(np.broadcast_to(down, (200, 3, 16, 16)).astype(np.float32).copy())
    config = CONFIG.model_copy(update={"brightness": 0.0, "contrast": 0.0})
    found = augment(images, config, rng)
    same = torch.isclose(found, images, atol=1e-6).flatten(1).all(1)
    mirrored = torch.isclose(found, images.flip(3), atol=1e-6).flatten(1).all(1)
    assert bool((same ^ mirrored).all()) and 60 < int(mirrored.sum()) < 140


def test_colour_features_are_mean_and_deviation(rng: np.random.Generator) -> None:
    images = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    found = colour_features(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found[:, :3], images.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(found[:, 3:], np.sqrt(images.var((2, 3)) + 1e-4), rtol=1e-5)


def test_large_tiles_take_the_stem_made_for_photographs(tmp_path: Path) -> None:
    small, large = PropertyNet(2, 2, 64, 0.0), PropertyNet(2, 2, 72, 0.0)
    assert small.backbone.layers[0].stride == (1, 1)
    assert large.backbone.layers[0].stride == (2, 2)
    found = predict(large, np.zeros((3, 72, 72, 3), np.uint8))
    assert found.properties.shape == (3, 2) and found.distance.shape == (3,)
