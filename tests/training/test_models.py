"""Networks over any number of channels, rows within a tile, and starting from published weights."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: the extra [train]")

from rich.console import Console
from safetensors.torch import save_file
from torchvision.models import resnet18

from lithostream.engine.bundle import sha256_file
from lithostream.engine.errors import ConfigError
from lithostream.training.config import FitConfig
from lithostream.training.data.tiles import TileSet
from lithostream.training.models.properties import Network, PropertyNet, colour_features, strip_colours
from lithostream.training.pretrained import load_pretrained
from lithostream.training.run import Run
from lithostream.training.study import train_properties


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    network = resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("network", ["resnet18", "hrnet_w18"])
def test_channels_beside_the_colours_are_normalised_and_seen(network: Network) -> None:
    if network != "resnet18":
        pytest.importorskip("timm", reason="needs timm: the extra [train]")
    torch.manual_seed(0)
    model = PropertyNet(2, 4, 16, 0.0, network, channels=5).eval()
    torch.nn.init.normal_(model.head.weight)
    mean, std = np.array([10.0, 20, 30, 40, 50]), np.array([1.0, 2, 3, 4, 5])
    model.set_normalisation(mean, std, np.array([[1.0, 2.0], [3.0, 6.0]]))
    assert model.colour_head.weight.shape == (2, 10)
    assert model.whitening.shape == (model.backbone.features + 10,) * 2
    tiles = torch.from_numpy(np.broadcast_to(mean.astype(np.uint8), (2, 16, 16, 5)).copy())
    tiles[1, :8, :, 4] += 20
    with torch.no_grad():
        properties, distance = model(tiles)
        weight = model.colour_head.weight.clone()
        model.head.weight.zero_()
        linear = model(tiles)[0]
    assert properties.shape == (2, 2) and distance.shape == (2,)
    assert (properties[0] - properties[1]).abs().min() > 1e-3
    deviation = torch.tensor(
        [1e-2, (4.0 + 1e-4) ** 0.5]
    )  # of the fifth channel: flat, and 0 or 20 in units of 5
    change = (weight[:, 4] * 2 + weight[:, 9] * (deviation[1] - deviation[0])) * model.target_std
    torch.testing.assert_close(linear[1] - linear[0], change, rtol=1e-4, atol=1e-5)


def test_strips_have_the_colours_of_their_pixels(rng: np.random.Generator) -> None:
    images = rng.normal(size=(2, 3, 10, 7)).astype(np.float32)
    found = strip_colours(torch.from_numpy(images), 4).numpy()
    assert found.shape == (2, 6, 3)
    for k, strip in enumerate((images[:, :, :4], images[:, :, 4:8], images[:, :, 8:])):
        wanted = colour_features(torch.from_numpy(strip)).numpy()
        np.testing.assert_allclose(found[:, :, k], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size_px", [20, 16, 50])
@pytest.mark.parametrize("network", ["resnet18", "hrnet_w18"])
def test_rows_average_to_the_properties_that_forward_gives(network: Network, size_px: int) -> None:
    if network != "resnet18":
        pytest.importorskip("timm", reason="needs timm: the extra [train]")
    torch.manual_seed(1)
    model = PropertyNet(2, 2, size_px, 0.0, network).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    model.set_normalisation(np.full(3, 128.0), np.full(3, 74.0), np.array([[1.5, 100.0], [2.0, 900.0]]))
    tiles = torch.randint(0, 256, (3, size_px, size_px, 3), dtype=torch.uint8)
    with torch.no_grad():
        properties, distance, rows = model.with_rows(tiles)
        again = model(tiles)
    assert torch.equal(properties, again[0]) and torch.equal(distance, again[1])
    assert rows.shape == (3, -(-size_px // model.backbone.stride), 2)
    torch.testing.assert_close(rows.mean(1), properties, rtol=1e-5, atol=1e-4)


def test_rows_of_two_materials_are_the_values_of_each() -> None:
    model = PropertyNet(1, 2, 32, 0.0).eval()
    model.set_colour_head(np.array([[0.5, 0.25, -0.1, 0, 0, 0]]), np.array([0.3]))
    model.set_normalisation(np.full(3, 128.0), np.full(3, 40.0), np.array([[1.2], [2.6]]))
    tiles = torch.full((3, 32, 32, 3), 60, dtype=torch.uint8)
    tiles[1] = 200
    tiles[2, 16:] = 200
    with torch.no_grad():
        properties, _, rows = model.with_rows(tiles)
    above, below = properties[0, 0], properties[1, 0]
    assert below - above > 0.5
    wanted = torch.stack([above, above, below, below])
    torch.testing.assert_close(rows[2, :, 0], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows[0], properties[0].expand(4, 1))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_resnet_gives_the_published_features(published: Path, tmp_path: Path, suffix: str) -> None:
    state, path = torch.load(published, weights_only=True), published
    if suffix == ".safetensors":
        path = tmp_path / "resnet18.safetensors"
        save_file(state, path)
    peer = resnet18(weights=None)
    peer.load_state_dict(state)
    model = PropertyNet(1, 64, 72, 0.0).eval()
    loaded = load_pretrained(model, path)
    assert loaded.tensors == 100 and loaded.random == () and loaded.adapted == ()
    assert loaded.file == f"resnet18{suffix}" and len(loaded.sha256) == 64
    images = torch.randn(2, 3, 72, 72)
    with torch.no_grad():
        wanted = torch.nn.Sequential(*list(peer.eval().children())[:-2])(images)
        torch.testing.assert_close(model.backbone(images), wanted)


def test_small_stem_stays_random_and_is_said_to(published: Path) -> None:
    model = PropertyNet(1, 64, 32, 0.0)
    stem = model.backbone.layers[0].weight.detach().clone()
    loaded = load_pretrained(model, published)
    assert loaded.random == ("layers.0", "layers.1") and loaded.tensors == 95
    assert torch.equal(model.backbone.layers[0].weight, stem)
    state = torch.load(published, weights_only=True)
    assert torch.equal(model.backbone.layers[6][1].conv2.weight, state["layer4.1.conv2.weight"])


@pytest.mark.parametrize("channels", [1, 5])
def test_first_convolution_sees_grey_in_any_channels_as_in_three(published: Path, channels: int) -> None:
    model, colour = PropertyNet(1, 64, 72, 0.0, channels=channels), PropertyNet(1, 64, 72, 0.0)
    assert load_pretrained(model, published).adapted == ("layers.0.weight",)
    load_pretrained(colour, published)
    grey = torch.randn(1, 1, 72, 72)
    with torch.no_grad():
        found = model.backbone.layers[0](grey.expand(-1, channels, -1, -1))
        wanted = colour.backbone.layers[0](grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_published_hrnet_fills_the_backbone_alone(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm: the extra [train]")
    state, path = timm.create_model("hrnet_w18", pretrained=False).state_dict(), tmp_path / "w18.safetensors"
    save_file(state, path)
    model = PropertyNet(1, 16, 32, 0.0, "hrnet_w18")
    loaded = load_pretrained(model, path)
    own = model.backbone.backbone.state_dict()
    assert loaded.tensors == sum(not name.endswith("tracked") for name in own) > 1000
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())
    assert {name.split(".")[0] for name in loaded.random} == {"pyramid", "detail", "decoder"}
    with pytest.raises(ConfigError, match=r"holds \d+ of 1\d+ tensors|the network needs"):
        load_pretrained(PropertyNet(1, 16, 32, 0.0, "hrnet_w32"), path)


STUDY = """
name = "tiny"
licence = "CC0-1.0"
description = "Generated cores, for tests."
targets = ["density"]
minerals = ["quartz", "pore_water"]
[synthetic]
cores = 2
first_seed = 1900
length_cm = [20, 24]
width_cm = 4
px_per_cm = [16]
[tile]
size_px = 16
[fit]
width = 64
epochs = 0
init_weights = "net.pth"
[split]
folds = 2
block_cm = 10
buffer_cm = 1
seeds = [0]
"""


def test_a_fit_starts_from_the_file_its_configuration_names(published: Path, core_tiles: TileSet) -> None:
    config = FitConfig(width=64, init_weights=published)
    run = Run(core_tiles, config, 3, torch.device("cpu"))
    assert load_pretrained(run.model, published).random == ("layers.0", "layers.1")
    state = torch.load(published, weights_only=True)
    assert torch.equal(run.model.backbone.layers[3][0].conv1.weight, state["layer1.0.conv1.weight"])
    plain = Run(core_tiles, FitConfig(width=64), 3, torch.device("cpu"))
    assert torch.equal(plain.model.backbone.layers[0].weight, run.model.backbone.layers[0].weight)
    assert torch.equal(plain.model.colour_head.weight, run.model.colour_head.weight)


def test_width_of_resnet_must_be_the_published_one(published: Path) -> None:
    with pytest.raises(ConfigError, match="need width 64, ResNet-18 is 16 wide") as caught:
        load_pretrained(PropertyNet(1, 16, 32, 0.0), published)
    assert "width = 64" in caught.value.fix


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("lithostream_pickle_ran",)


def test_files_that_are_no_weights_of_this_network_are_refused(published: Path, tmp_path: Path) -> None:
    model = PropertyNet(1, 64, 32, 0.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.load(published, weights_only=True)
    last = "layer4.1.conv2.weight"
    bad: dict[str, tuple[object, str]] = {
        "nested": ({"state_dict": state}, "not a plain table of tensors"),
        "few": ({name: state[name] for name in list(state)[:30]}, r"holds \d+ of 95 tensors"),
        "shape": (
            state | {last: state[last][:, :256]},
            r"is \(512, 256, 3, 3\), the network needs \(512, 512",
        ),
        "nan": (state | {last: torch.full_like(state[last], torch.nan)}, "not finite"),
    }
    for name, (content, reason) in bad.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(ConfigError, match=reason) as caught:
            load_pretrained(model, tmp_path / f"{name}.pth")
        assert caught.value.file == str(tmp_path / f"{name}.pth") and "fit.init_weights" in str(caught.value)
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"conv1.weight": _Code()}, protocol=2))
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0")
    (tmp_path / "cut.pth").write_bytes(published.read_bytes()[:100_000])
    reasons = {
        "code.pth": "never run",
        "cut.safetensors": "damaged",
        "cut.pth": "damaged",
        "no.pth": "No such",
    }
    for file, reason in reasons.items():
        with pytest.raises(ConfigError, match=reason):
            load_pretrained(model, tmp_path / file)
    with pytest.raises(ConfigError, match=r"No such"):
        load_pretrained(model, tmp_path / "no.safetensors")
    assert not Path("lithostream_pickle_ran").exists()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_study_finds_the_weights_beside_its_configuration(tmp_path: Path, published: Path) -> None:
    shutil.copy(published, tmp_path / "net.pth")
    config = tmp_path / "study.toml"
    config.write_text(STUDY)
    text = io.StringIO()
    train_properties(config, tmp_path / "out", console=Console(file=text, width=200))
    assert "tensors of net.pth" in text.getvalue() and "random: layers.0, layers.1" in text.getvalue()
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert {"name": "init_weights/net.pth", "sha256": sha256_file(published)} in record["data"]
    assert record["config"]["fit"]["init_weights"] == "net.pth"
    config.write_text(STUDY.replace("net.pth", "absent.pth"))
    with pytest.raises(ConfigError, match=r"absent\.pth"):
        train_properties(config, tmp_path / "again", console=Console(file=io.StringIO()))
