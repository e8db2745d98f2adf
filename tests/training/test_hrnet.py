"""HRNet-DeepLabV3+: any tile size, one graph, the same numbers in it for any batch."""

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")
pytest.importorskip("timm", reason="needs timm: the extra [train]")

from lithostream.export.graph import to_onnx
from lithostream.training.models.hrnet import HRNetDeepLab
from lithostream.training.models.properties import PropertyNet


@pytest.mark.parametrize("size_px", [20, 32, 50, 200])
def test_features_keep_a_quarter_of_the_resolution(size_px: int) -> None:
    network = HRNetDeepLab("w18").eval()
    with torch.no_grad():
        found = network(torch.zeros(1, 3, size_px, size_px))
    assert found.shape == (1, network.features, -(-size_px // 4), -(-size_px // 4))


def test_learns_where_brightness_is_the_property() -> None:
    torch.manual_seed(0)
    level = np.linspace(20, 230, 32).astype(np.uint8)
    tiles = torch.from_numpy(np.broadcast_to(level[:, None, None, None], (32, 20, 20, 3)).copy())
    wanted = torch.linspace(-1, 1, 32)[:, None]
    images = (tiles.permute(0, 3, 1, 2).float() - 128) / 64
    model = PropertyNet(1, 16, 20, 0.0, "hrnet_w18").train()
    torch.nn.init.zeros_(model.colour_head.weight)
    model.colour_head.requires_grad_(False)  # so that only HRNet can learn it
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(8):
        loss = ((model.normalised(images)[0] - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_one_graph_with_equal_numbers_for_any_batch() -> None:
    torch.manual_seed(1)
    model = PropertyNet(2, 16, 20, 0.0, "hrnet_w18").eval()
    torch.nn.init.normal_(model.head.weight)
    tiles = np.random.default_rng(2).integers(0, 256, (5, 20, 20, 3), np.uint8)
    session = ort.InferenceSession(to_onnx(model, 20), providers=["CPUExecutionProvider"])
    whole = session.run(None, {"tiles": tiles})
    single = [session.run(None, {"tiles": tile[None]}) for tile in tiles]
    for output in (0, 1, 2):
        np.testing.assert_array_equal(whole[output], np.concatenate([one[output] for one in single]))
    with torch.no_grad():
        want = model.with_rows(torch.from_numpy(tiles))
    np.testing.assert_allclose(whole[0], want[0].numpy(), rtol=1e-4, atol=1e-5)
    assert whole[2].shape == (5, 5, 2)
    np.testing.assert_allclose(whole[2], want[2].numpy(), rtol=1e-4, atol=1e-4 * np.abs(whole[2]).max())
    np.testing.assert_allclose(whole[2].mean(axis=1), whole[0], atol=1e-5 * np.abs(whole[2]).max())


def test_only_hrnet_needs_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from lithostream.engine.errors import ConfigError

    monkeypatch.setitem(sys.modules, "lithostream.training.models.hrnet", None)
    PropertyNet(1, 4, 16, 0.0)
    with pytest.raises(ConfigError, match="hrnet_w18 needs timm"):
        PropertyNet(1, 4, 16, 0.0, "hrnet_w18")
