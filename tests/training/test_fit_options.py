"""What changes how a network is fitted: accumulation, averaged weights, bfloat16, devices."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from lithostream.engine.errors import ConfigError
from lithostream.training import fit as fit_module
from lithostream.training.config import FitConfig
from lithostream.training.data.splits import depth_blocks, validation_splits
from lithostream.training.data.tiles import TileSet
from lithostream.training.device import deterministic, fit_device
from lithostream.training.fit import Fitted, fit, predict_tiles
from lithostream.training.run import Run

CONFIG = FitConfig(width=2, epochs=2, patience=2, batch_rows=16, dropout=0.0)
CPU = torch.device("cpu")


def changed(**change: object) -> FitConfig:
    return CONFIG.model_copy(update=change)


def fitted(tiles: TileSet, config: FitConfig) -> Fitted:
    rows = np.ones(len(tiles.labels), np.bool_)
    return fit(tiles, rows, validation_splits(tiles, rows, depth_blocks(tiles, 10.0), 3.0, 1, 0), config, 0)


@pytest.fixture(scope="module")
def gappy(core_tiles: TileSet) -> TileSet:
    """Forty rows of which one batch holds more labels than the other."""
    few = core_tiles.of_rows(np.arange(len(core_tiles.labels)) < 40)
    few.labels[np.arange(40) % 3 == 0, 1] = np.nan
    return few


def still(run: Run) -> Run:
    """Batch statistics would differ between small batches and a large one."""
    for module in run.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.forward = lambda images: images
    with torch.no_grad():
        run.model.head.weight.normal_(0, 0.1)
    return run


@pytest.mark.parametrize("loss", ["huber", "gaussian"])
def test_accumulated_gradients_are_those_of_a_larger_batch(gappy: TileSet, loss: str) -> None:
    large = still(Run(gappy, changed(batch_rows=40, loss=loss), 0, CPU))
    small = still(Run(gappy, changed(batch_rows=14, accumulate=3, loss=loss), 0, CPU))
    assert large.steps == small.steps == 1
    images = torch.randn(40 * 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    whole, parts = large.backward(images, large.labels), small.backward(images, small.labels)
    assert float(parts) == pytest.approx(float(whole), rel=1e-5)
    biggest = 0.0
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        if one.grad is not None:  # batch normalisation was left out
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-6)
            biggest = max(biggest, float(one.grad.abs().max()))
    assert biggest > 1e-2


def test_an_accumulated_epoch_takes_the_steps_of_the_larger_batch(gappy: TileSet) -> None:
    large = still(Run(gappy, changed(batch_rows=20), 0, CPU))
    small = still(Run(gappy, changed(batch_rows=10, accumulate=2), 0, CPU))
    assert large.epoch() == pytest.approx(small.epoch(), rel=1e-5)
    assert large.schedule.last_epoch == small.schedule.last_epoch == 2
    with torch.no_grad():
        torch.testing.assert_close(small.model.head.weight, large.model.head.weight, rtol=1e-2, atol=1e-4)


def test_the_average_follows_the_weights_and_takes_over_batch_statistics(gappy: TileSet) -> None:
    run = Run(gappy, changed(ema=0.75, batch_rows=8, learning_rate=1e-2), 0, CPU)
    seen: list[Any] = []
    average: Any = run.average
    update = average.update_parameters

    def noted(model: Any) -> None:
        seen.append(model.head.weight.detach().clone())
        update(model)

    average.update_parameters = noted
    run.epoch()
    wanted = seen[0]
    for weight in seen[1:]:
        wanted = 0.75 * wanted + 0.25 * weight
    assert len(seen) == 5 and not torch.allclose(wanted, seen[-1])
    torch.testing.assert_close(run.result.head.weight.detach(), wanted)
    own, averaged = dict(run.model.named_buffers()), dict(run.result.named_buffers())
    assert all(torch.equal(averaged[name], buffer) for name, buffer in own.items())


def test_the_average_is_what_is_judged_and_shipped(gappy: TileSet, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(ema=0.9, learning_rate=1e-2)
    run = Run(gappy, config, 0, CPU)
    run.epoch(), run.epoch()
    judged = fit_module._validation_loss([run], [gappy])
    with torch.no_grad():
        run.model.head.weight += 1.0
    assert fit_module._validation_loss([run], [gappy]) == judged
    with torch.no_grad():
        run.model.head.weight -= 1.0
    monkeypatch.setattr(fit_module, "_epochs_that_pay", lambda *_: 2)
    shipped = fitted(gappy, config).model
    torch.testing.assert_close(shipped.head.weight, run.result.head.weight)
    assert not torch.allclose(shipped.head.weight, run.model.head.weight, rtol=0.01)
    assert list(shipped.state_dict()) == list(Run(gappy, CONFIG, 0, CPU).model.state_dict())


def test_mixed_precision_is_of_convolutions_in_training_alone(gappy: TileSet) -> None:
    run = Run(gappy, changed(amp=True), 0, CPU)
    found: list[tuple[bool, Any]] = []
    run.model.backbone.register_forward_hook(
        lambda module, _, out: found.append((module.training, out.dtype))
    )
    loss, plain = run.epoch(), Run(gappy, CONFIG, 0, CPU).epoch()
    predict_tiles(run.model, gappy)
    assert set(found) == {(True, torch.bfloat16), (False, torch.float32)}
    assert {tensor.dtype for tensor in run.model.parameters()} == {torch.float32}
    assert loss != plain and loss == pytest.approx(plain, rel=0.05)


def test_mixed_precision_starts_from_the_same_linear_model(gappy: TileSet) -> None:
    run = Run(gappy, CONFIG, 0, CPU)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    plain, mixed = (run.model.normalised(images, amp=amp)[0] for amp in (False, True))
    assert torch.equal(plain, mixed)  # the head of the network is still zero, and colour is not rounded


def test_mixed_precision_is_deterministic(gappy: TileSet) -> None:
    one, other = (fitted(gappy, changed(amp=True)).model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error_and_auto_does_without(gappy: TileSet) -> None:
    with pytest.raises(ConfigError, match=r"fit\.device.*no CUDA device.*auto"):
        fitted(gappy, changed(device="cuda"))
    assert fit_device("auto") == fit_device("cpu") == CPU


def test_the_callers_settings_come_back_after_an_error() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), deterministic(1, CPU):
        torch.rand(4)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", [False, True])
def test_a_gpu_gives_nearly_the_same_network_and_the_same_one_twice(gappy: TileSet, amp: bool) -> None:
    config = changed(device="cuda", amp=amp, ema=0.5, loss="gaussian", accumulate=2)
    one, other = (fitted(gappy, config).model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.target_mean.device == CPU
    here = predict_tiles(fitted(gappy, config.model_copy(update={"device": "cpu"})).model, gappy).properties
    error = np.abs(predict_tiles(one, gappy).properties - here) / one.target_std.numpy()
    assert np.median(error) < 0.05
