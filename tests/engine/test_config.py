"""Settings: what is refused, and what the message offers instead."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import Field

from lithostream.engine.config import RoiRule, RunSettings, StrictModel, load_toml
from lithostream.engine.errors import ConfigError
from lithostream.kernels.roi import RULES


class Inner(StrictModel):
    width: int = 1


class Outer(StrictModel):
    inner: Inner = Inner()
    many: tuple[Inner, ...] = Field(default=())


@pytest.mark.parametrize(
    ("text", "model", "place", "fix"),
    [
        ("interval = 1", RunSettings, "interval", "'interval_cm'"),
        ("zzz = 1", RunSettings, "zzz", "known keys: interval_cm"),
        ("interval_cm = 0", RunSettings, "interval_cm", "correct the value"),
        ("interval_cm = 'one'", RunSettings, "interval_cm", "correct the value"),
        ("[inner]\nwidht = 2", Outer, "inner.widht", "'width'"),
        ("[[many]]\nwidht = 2", Outer, "many.0.widht", "'width'"),
        ("interval_cm = ", RunSettings, "", "correct the line"),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, text: str, model: type[StrictModel], place: str, fix: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_toml(path, model)
    assert error.value.file == str(path)
    assert error.value.place == place
    assert fix in error.value.fix


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load_toml(tmp_path / "gone.toml", RunSettings)


def test_defaults_are_the_documented_ones() -> None:
    settings = RunSettings()
    assert (settings.interval_cm, settings.window_cm, settings.roi) == (1.0, 8.0, "sediment")


def test_settings_name_every_colour_rule() -> None:
    assert set(get_args(RoiRule)) == set(RULES)
