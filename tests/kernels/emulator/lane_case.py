"""A window for a lane on a GPU, emulated or real, and what it must have in common with the host's."""

from dataclasses import fields, replace
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.calibration import Calibration
from lithostream.engine.core.calibration.fit import UNIT_FIT
from lithostream.engine.core.lane import SectionPlan, WindowResult
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import Block, blocks, open_section, section_grid
from lithostream.engine.inference import Predictor
from lithostream.kernels.arrays import to_host

SETTINGS = RunSettings(window_cm=4.0, superpixels_per_cm2=1.0)
LIGHT = np.linspace(0, 1, 768, dtype=np.float32).reshape(256, 3)
MIXED = replace(UNIT_FIT, matrix=np.eye(3) + 0.1, gain=np.array([1.1, 1.0, 0.9]))


class OnGpu:
    """A session that takes tiles on the device alone, but for those it is warmed up with, and gives results there."""

    def __init__(self, session: Predictor, warm: npt.NDArray[np.uint8] | None = None) -> None:
        self.backend, self._session, self._warm, self.taken = "on gpu", session, warm, 0

    def infer(self, tiles: Any) -> Any:
        if isinstance(tiles, np.ndarray) and self._warm is not None and np.array_equal(tiles, self._warm):
            return self._session.infer(tiles)
        assert type(tiles).__module__.startswith("cupy")
        self.taken += tiles.nbytes
        return tuple(import_module("cupy").asarray(part) for part in self._session.infer(to_host(tiles)))


def plan_of(section: Section, bundle: Bundle, **changes: Any) -> tuple[list[Block], SectionPlan]:
    """Two windows of a section, of which an instrument knows where core lies, and some rows were lost."""
    settings = SETTINGS.model_copy(update=changes)
    source = open_section(section)
    grid = section_grid(section, source, bundle.manifest.input, settings)
    flat = np.linspace(0.9, 1.1, source.width_px * 3, dtype=np.float32).reshape(-1, 3)
    calibration = Calibration(LIGHT, flat, MIXED)
    plan = SectionPlan(grid, bundle.manifest, settings, (), (0.5, 7.0), True, calibration)
    chosen = list(blocks(source, grid, settings))[:2]
    lost = np.zeros(len(chosen[1].slab.rgb), np.bool_)
    lost[40:44] = True
    alpha = np.repeat(~lost[:, None], source.width_px, axis=1)
    chosen[1] = replace(chosen[1], slab=replace(chosen[1].slab, alpha=alpha, lost=lost))
    return chosen, plan


def assert_same(found: WindowResult, wanted: WindowResult) -> None:
    """Equal but for the last digits of means over segments."""
    for each in fields(WindowResult):
        got, want = getattr(found, each.name), getattr(wanted, each.name)
        if each.name == "segments":
            for name, one, other in zip(want._fields, got, want, strict=True):
                assert type(one) is np.ndarray and one.dtype == other.dtype, name
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9, err_msg=name)
        elif each.name == "tiles":
            for name in want.__dataclass_fields__:
                np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
        else:
            np.testing.assert_array_equal(got, want, err_msg=each.name)
            assert type(got) is type(want), each.name
