"""The mineral map: leading solid and its share, as palette indices."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lithostream.engine.report.mineral_map import map_index, map_palette, write_mineral_map
from lithostream.kernels.errors import ContractError

MINERALS = ("pore_water", "quartz", "calcite")


def test_index_is_mineral_and_strength(tmp_path: Path) -> None:
    share = np.array([[0.0, 90.0, 10.0], [0.0, 45.0, 55.0], [np.nan] * 3, [0.0, 65.0, 35.0]])
    rows = [np.array([[0, 1, 2, 3, 4]], np.uint32)]
    write_mineral_map(tmp_path / "m.png", rows, map_index(share), MINERALS)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == [[0, 2 + 4 + 3, 2 + 8 + 1, 1, 2 + 4 + 2]]
        seen = np.asarray(image.convert("RGB"))[0]
    assert [tuple(int(c) for c in colour) for colour in seen[:2]] == [
        map_palette(MINERALS)[0],
        map_palette(MINERALS)[9],
    ]


def test_more_of_a_mineral_is_darker() -> None:
    brightness = [sum(colour) for colour in map_palette(MINERALS)[6:10]]
    assert brightness == sorted(brightness, reverse=True)
    assert len(set(map_palette(MINERALS))) == 2 + 4 * len(MINERALS)


def test_too_many_minerals_are_refused() -> None:
    with pytest.raises(ContractError, match="at most 63"):
        map_index(np.zeros((0, 64)))
