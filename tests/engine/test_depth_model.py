from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from lithostream.engine.core.depth_model import (
    Bank,
    DepthModel,
    distances,
    filtered,
    matern,
    widened,
)


def small_model(rng: np.random.Generator, targets: int = 2, channels: int = 3, rows: int = 7) -> DepthModel:
    """Two banks of two members with arbitrary numbers."""

    def bank(sigmas: tuple[float, ...]) -> Bank:
        q = len(sigmas) * channels
        return Bank(
            np.array(sigmas),
            rng.normal(size=q),
            rng.normal(size=(rows, q)),
            np.array([0.0, 2.0]),
            rng.normal(size=(2, q, targets)),
            rng.normal(size=(2, rows, targets)) * [[[0.0]], [[1.0]]],
            rng.normal(size=(2, targets)),
        )

    banks = bank((0.6,)), bank((1.0, 3.0))
    return DepthModel(
        np.arange(targets) % 2 == 1,
        rng.normal(size=targets),
        np.full(targets, 0.5),
        rng.normal(size=channels),
        rng.normal(size=(channels, channels)),
        banks,
        rng.normal(size=(2 * channels, 2 * channels)),
        5.0,
        np.full(targets, 1.7),
    )


def test_a_filter_is_the_gaussian_mean_over_core(rng: np.random.Generator) -> None:
    colour, core = rng.normal(size=(40, 2)), rng.random(40) < 0.7
    found = filtered(colour, core, np.array([0.6, 3.0]))
    for block, sigma in enumerate((0.6, 3.0)):
        for at in range(40):
            apart = np.arange(40) - at
            weight = np.exp(-0.5 * (apart / sigma) ** 2) * core * (np.abs(apart) <= np.ceil(2.5 * sigma))
            wanted = weight @ colour / weight.sum() if weight.sum() else np.zeros(2)
            np.testing.assert_allclose(found[at, 2 * block : 2 * block + 2], wanted, atol=1e-12)


@given(st.integers(1, 30), st.sampled_from([0.6, 1.5, 8.0]), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_what_lies_in_rows_without_core_does_not_count(length: int, sigma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    core = rng.random(length) < 0.6
    one, other = rng.normal(size=(2, length, 3))
    other[core] = one[core]
    other[~core] = np.nan
    sigmas = np.array([sigma])
    np.testing.assert_array_equal(filtered(one, core, sigmas), filtered(other, core, sigmas))


def test_the_prediction_is_the_mean_of_members_and_their_spread(rng: np.random.Generator) -> None:
    model = small_model(rng)
    colour, core = rng.normal(size=(12, 3)), np.ones(12, np.bool_)
    white = (colour - model.colour_mean) @ model.whitening
    members = []
    for bank in model.banks:
        seen = filtered(white, core, bank.sigmas) - bank.centre
        for slope, weight, offset, length in zip(
            bank.slope, bank.weight, bank.offset, bank.lengths, strict=True
        ):
            found = seen @ slope + offset
            if length:
                apart = np.sqrt(np.mean((seen[:, None] - bank.rows) ** 2, axis=2)) * np.sqrt(3) / length
                found = found + (1 + apart) * np.exp(-apart) @ weight
            members.append(found)
    got = model.predict(colour, core)
    middle = np.mean(members, axis=0) * model.label_std + model.label_mean
    spread = np.sqrt(0.16 + np.var(members, axis=0)) * model.label_std
    spread = widened(spread, got.distance, model.distance_limit, model.label_std)
    np.testing.assert_allclose(got.spread, spread)
    np.testing.assert_allclose(got.value[:, 0], middle[:, 0])
    np.testing.assert_allclose(got.value[:, 1], np.exp(middle[:, 1]))
    np.testing.assert_allclose(got.low[:, 0], middle[:, 0] - 1.7 * spread[:, 0])
    np.testing.assert_allclose(got.high[:, 1], np.exp(middle[:, 1] + 1.7 * spread[:, 1]))


def test_rows_without_core_have_no_value(rng: np.random.Generator) -> None:
    core = np.array([True, False, True])
    found = small_model(rng).predict(rng.normal(size=(3, 3)), core)
    for part in found:
        np.testing.assert_array_equal(np.isfinite(part).reshape(3, -1).all(axis=1), core)
    nothing = small_model(rng).predict(np.zeros((4, 3)), np.zeros(4, np.bool_))
    assert np.isnan(nothing.value).all() and np.isnan(nothing.distance).all()


def test_a_long_section_is_predicted_in_parts_without_a_seam(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, colour = small_model(rng), rng.normal(size=(50, 3))
    whole = model.predict(colour, np.ones(50, np.bool_))
    monkeypatch.setattr("lithostream.engine.core.depth_model.ROWS_AT_ONCE", 7)
    parts = model.predict(colour, np.ones(50, np.bool_))
    np.testing.assert_allclose(parts.value, whole.value, rtol=1e-12)


def test_spread_grows_to_that_of_labels_beyond_the_limit() -> None:
    spread, std = np.full((4, 1), 0.3), np.array([2.0])
    found = widened(spread, np.array([0.5, 1.0, 1.5, 9.0]), 1.0, std)[:, 0]
    np.testing.assert_allclose(found**2, [0.09, 0.09, 0.09 + 2.0, 0.09 + 4.0])


def test_distances_and_kernel(rng: np.random.Generator) -> None:
    some, others = rng.normal(size=(5, 4)), rng.normal(size=(6, 4))
    wanted = np.sqrt(np.mean((some[:, None] - others) ** 2, axis=2))
    np.testing.assert_allclose(distances(some, others), wanted)
    assert distances(some, some).diagonal().max() < 1e-5
    np.testing.assert_allclose(matern(np.array([0.0, 1.0])), [1.0, (1 + np.sqrt(3)) * np.exp(-np.sqrt(3))])


def test_a_model_survives_its_file_and_a_damaged_one_is_refused(rng: np.random.Generator) -> None:
    model = small_model(rng)
    content = model.to_bytes()
    again, colour = DepthModel.from_bytes(content), rng.normal(size=(9, 3))
    for one, other in zip(
        model.predict(colour, np.ones(9, np.bool_)), again.predict(colour, np.ones(9, np.bool_)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="safetensors"):
        DepthModel.from_bytes(content[:50])
    arrays = load(content)
    for name in ("bank0.rows", "label_std", "factor_90"):
        with pytest.raises(ValueError, match=f"{name}|positive|finite"):
            DepthModel.from_bytes(save(arrays | {name: np.full_like(arrays[name], np.nan)}))
    with pytest.raises(ValueError, match="missing or unknown"):
        DepthModel.from_bytes(save({k: v for k, v in arrays.items() if k != "whitening"}))
    with pytest.raises(ValueError, match=r"bank1\.weight is"):
        DepthModel.from_bytes(save(arrays | {"bank1.weight": arrays["bank1.weight"][:, :-1].copy()}))
    with pytest.raises(ValueError, match="positive"):
        DepthModel.from_bytes(replace(model, distance_limit=-1.0).to_bytes())
