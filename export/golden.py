"""Golden tiles: generated, so that no training pixel travels with a bundle."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.grid import edges_px
from lithostream.engine.core.synthetic import generate
from lithostream.engine.manifest import TileInput
from lithostream.kernels import tiles

CORE_SEED = 500  # neither the demo's core nor a training core
CORE_TILES, NOISE_TILES = 16, 4
PLANE_NOISE = 16
LEVELS = (0, 64, 128, 192, 255)


def golden_tiles(tile: TileInput) -> npt.NDArray[np.uint8]:
    """Tiles of a generated core, flat greys from black to white, and noise: uint8 [G, S, S, C]."""
    size, rng = tile.size_px, np.random.default_rng(CORE_SEED)
    flat = np.broadcast_to(np.array(LEVELS, np.uint8)[:, None, None, None], (len(LEVELS), size, size, 3))
    noise = rng.integers(0, 256, (NOISE_TILES, size, size, 3), np.uint8)
    colour = np.concatenate([_core_tiles(tile, rng), flat, noise])
    return np.concatenate([colour, _beside(tile)], axis=-1)


def _beside(tile: TileInput) -> npt.NDArray[np.uint8]:
    """Planes of the same tiles, uint8 [G, S, S, P]: what they show is not known here, so the core has noise there."""
    shape, rng = (tile.size_px, tile.size_px, len(tile.planes)), np.random.default_rng([CORE_SEED, 1])
    level = rng.integers(0, 256, (CORE_TILES, 1, 1, len(tile.planes)))
    core = level + rng.integers(-PLANE_NOISE, PLANE_NOISE + 1, (CORE_TILES, *shape))
    flat = np.broadcast_to(np.array(LEVELS)[:, None, None, None], (len(LEVELS), *shape))
    noise = rng.integers(0, 256, (NOISE_TILES, *shape))
    return np.concatenate([np.clip(core, 0, 255), flat, noise]).astype(np.uint8)


def _core_tiles(tile: TileInput, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    px_per_cm = tile.size_px / tile.tile_cm
    core = generate(
        CORE_SEED, length_cm=30 + 6 * tile.tile_cm, width_cm=8 + tile.tile_cm, px_per_cm=px_per_cm
    )
    height, width, _ = core.image.shape
    rows, cols = edges_px(height, tile.tile_cm, px_per_cm), edges_px(width, tile.tile_cm, px_per_cm)
    cut = tiles(core.image, rows, cols, tile.size_px).reshape(-1, tile.size_px, tile.size_px, 3)
    return cut[rng.permutation(len(cut))[:CORE_TILES]]
