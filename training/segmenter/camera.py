"""What a camera makes of a scene: light, gloss, blur, colour casts, noise, and the blocks of JPEG."""

import numpy as np
import numpy.typing as npt

from lithostream.training.segmenter.fields import Floats, Random, coordinates, noise, octaves, step

BLOCK = 8
STEPS = 4.0 + 3.0 * np.add.outer(np.arange(BLOCK), np.arange(BLOCK))  # quantiser, coarser for fine detail


def photograph(rng: Random, lit: Floats) -> npt.NDArray[np.uint8]:
    """Take a picture of a scene, float32 [S, S, 3], uint8 [S, S, 3]; S by 8."""
    size = len(lit)
    image: npt.NDArray[np.floating] = lit * _light(rng, size)[..., None]
    if rng.random() < 0.3:
        gloss = step(octaves(rng, size, size / rng.uniform(6, 60), 3) - np.float32(rng.uniform(1.2, 2)), 1.0)
        image = image + (rng.uniform(30, 120) * gloss)[..., None]
    for _ in range(int(rng.integers(0, 3))):
        image = _blurred(image)
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    image = 255 * (np.clip(image * gain / 255, 0, 1) ** rng.uniform(0.75, 1.35))
    if rng.random() < 0.12:
        image = np.broadcast_to(image.mean(axis=2, keepdims=True), image.shape)
    image = image + rng.uniform(0, 5) * rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        image = _blocks(image.astype(np.float32), rng.uniform(0.3, 2.5))
    return image.round().clip(0, 255).astype(np.uint8)


def _light(rng: Random, size: int) -> Floats:
    rows, columns = coordinates(size)
    slope = rng.normal(0, 0.18, 2)
    light = 1 + slope[0] * (rows / size - 0.5) + slope[1] * (columns / size - 0.5)
    light = np.asarray(light + rng.uniform(0, 0.1) * noise(rng, size, 2), np.float32)
    return np.asarray(light.clip(0.3, 1.7))


def _blurred(image: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    for axis in (0, 1):
        image = 0.5 * image + 0.25 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    return image


def _blocks(image: Floats, coarse: float) -> Floats:
    """Quantise the cosine transform of 8 x 8 blocks, as JPEG does."""
    size, at = len(image), np.arange(BLOCK)
    basis = np.cos(np.pi * np.outer(at, 2 * at + 1) / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] = np.sqrt(1 / BLOCK)
    basis = basis.astype(np.float32)
    blocks = image.reshape(size // BLOCK, BLOCK, size // BLOCK, BLOCK, 3).transpose(0, 2, 4, 1, 3)
    steps = (STEPS * coarse).astype(np.float32)
    kept = np.round(basis @ blocks @ basis.T / steps) * steps
    return np.asarray((basis.T @ kept @ basis).transpose(0, 3, 1, 4, 2).reshape(image.shape), np.float32)
