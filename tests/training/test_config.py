from pathlib import Path

import pytest

from lithostream.engine.config import load_toml
from lithostream.engine.errors import ConfigError
from lithostream.training.config import TrainConfig

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
BASE = 'name = "n"\nlicence = "CC0-1.0"\ndescription = "d"\ntargets = ["density"]\nminerals = ["quartz"]\n'


@pytest.mark.parametrize("name", ["demo.toml", "m9907-11pc.toml"])
def test_the_committed_configurations_are_valid(name: str) -> None:
    config = load_toml(CONFIGS / name, TrainConfig)
    assert bool(config.data) != (config.synthetic is not None)
    # Readings overlap when nearer than their footprint, unless whole sections are held out.
    assert config.split.buffer_cm >= 6 or config.split.block_cm > 150


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("", "either data or synthetic"),
        ('data = ["a"]\n[synthetic]\ncores = 2\n', "either data or synthetic"),
        ('data = ["a"]\n[qc]\np_wave_velocity = {low = 1, high = 2}\n', "not targets"),
        ('data = ["a"]\n[fit]\nwidht = 8\n', r"fit\.widht: Extra inputs"),
        ("[synthetic]\ncores = 2\nfirst_seed = 7\n", "first_seed"),
        ('data = ["a"]\nlabels = "interpolate"\n', "go together"),
        ('data = ["a"]\ninterpolate_cm = 3\n', "go together"),
        ('data = ["a"]\n[split]\nkind = "row"\n', r"split\.kind"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, change: str, reason: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(BASE + change)
    with pytest.raises(ConfigError, match=reason):
        load_toml(path, TrainConfig)


def test_unknown_targets_and_minerals_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(BASE.replace('"density"', '"colour"') + 'data = ["a"]\n')
    with pytest.raises(ConfigError, match="name each target once"):
        load_toml(path, TrainConfig)
    path.write_text(BASE.replace('"quartz"', '"unobtainium"') + 'data = ["a"]\n')
    with pytest.raises(ConfigError, match="unobtainium"):
        load_toml(path, TrainConfig)
