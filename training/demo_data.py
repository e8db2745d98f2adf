"""Generated training cores: never the core of the demo, at several scales."""

from pathlib import Path

import numpy as np

from lithostream.engine.core.synthetic import generate, write
from lithostream.training.config import SyntheticConfig


def write_cores(config: SyntheticConfig, folder: Path) -> list[Path]:
    """Write the cores of a configuration with sidecar, log and truth, and return the images.

    Core i has seed `first_seed` + i, which decides its length, and the next scale in turn.
    """
    images = []
    for number in range(config.cores):
        seed = config.first_seed + number
        length_cm = round(float(np.random.default_rng(seed).uniform(*config.length_cm)), 1)
        px_per_cm = config.px_per_cm[number % len(config.px_per_cm)]
        core = generate(seed, length_cm=length_cm, width_cm=config.width_cm, px_per_cm=px_per_cm)
        images.append(write(core, folder))
    return images
