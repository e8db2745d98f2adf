"""Rock and sediment as coloured textures, and the settings they lie in."""

import numpy as np

from lithostream.training.segmenter.fields import Floats, Random, cells, coordinates, noise, octaves, step

PALETTE = np.array(  # sRGB of rocks and sediments, dark to light in each hue
    [
        [38, 36, 34], [70, 70, 72], [105, 106, 108], [150, 150, 148], [190, 188, 184], [228, 226, 220],
        [62, 48, 36], [98, 78, 58], [134, 110, 84], [170, 148, 118], [205, 186, 156],
        [60, 64, 48], [88, 94, 72], [122, 128, 100], [150, 158, 140],
        [92, 46, 34], [130, 72, 52], [164, 104, 80], [196, 150, 126],
        [58, 66, 76], [92, 104, 114], [136, 148, 156], [180, 160, 60], [86, 70, 84],
    ],
    np.float32,
)  # fmt: skip


def colour(rng: Random) -> Floats:
    """Draw a colour of rock, float32 [3]."""
    drawn = PALETTE[rng.integers(len(PALETTE))] + rng.normal(0, 9, 3)
    return np.asarray(drawn.clip(12, 245), np.float32)


def material(rng: Random, size: int) -> Floats:
    """Draw a texture, float32 [size, size, 3] in 0 .. 255.

    A base colour with noise of several octaves; and by chance bands, clasts or crystals, veins, mottles, and
    grains of several minerals.
    """
    rows, columns = coordinates(size)
    base = colour(rng)
    contrast = 10 ** rng.uniform(0.3, 1.45)
    tint = np.ones(3, np.float32) + rng.normal(0, 0.12, 3).astype(np.float32)
    height = octaves(
        rng, size, size / 10 ** rng.uniform(0.9, 2.2), int(rng.integers(2, 5)), rng.uniform(0.4, 0.9)
    )
    if rng.random() < 0.45:
        height = height * rng.uniform(0, 0.8) + _bands(rng, rows, columns)
    image = base + (contrast * height)[..., None] * tint
    if rng.random() < 0.35:
        image = _mixed(image, colour(rng), _mottles(rng, size), rng.uniform(0.3, 0.9))
    if rng.random() < 0.4:
        image = _crystals(rng, image, rows, columns)
    if rng.random() < 0.3:
        image = _mixed(image, colour(rng), _veins(rng, size), rng.uniform(0.4, 1))
    speckle = rng.uniform(0, 9) * rng.standard_normal((size, size), dtype=np.float32)
    return np.asarray(image + speckle[..., None], np.float32)


def plain(rng: Random, size: int) -> Floats:
    """Draw what cores lie in: a tray, wood, foam or a bench, float32 [size, size, 3]."""
    base = colour(rng) if rng.random() < 0.5 else np.full(3, rng.choice([14.0, 30.0, 60.0, 200.0, 235.0]))
    height = rng.uniform(1, 9) * octaves(rng, size, rng.uniform(2, 40), 3)
    if rng.random() < 0.25:
        rows, columns = coordinates(size)
        height = height + 8 * _bands(rng, rows, columns)
    return np.asarray(base + height[..., None], np.float32)


def _bands(rng: Random, rows: Floats, columns: Floats) -> Floats:
    size, angle = len(rows), rng.uniform(0, np.pi)
    along = np.cos(angle) * rows + np.sin(angle) * columns
    along = along + rng.uniform(0, 14) * noise(rng, size, rng.uniform(1, 6))
    profile = rng.standard_normal(512)
    sharp = rng.random() < 0.5
    at = along / 10 ** rng.uniform(0.5, 1.7) + 1000
    low = np.floor(at).astype(np.int64)
    part = 0.0 if sharp else at - low
    return np.asarray(profile[low % 512] * (1 - part) + profile[(low + 1) % 512] * part, np.float32)


def _mottles(rng: Random, size: int) -> Floats:
    field = octaves(rng, size, size / rng.uniform(12, 90), 2)
    return step(field - np.float32(rng.uniform(0.3, 1.2)), rng.uniform(0.1, 0.8))


def _veins(rng: Random, size: int) -> Floats:
    field = octaves(rng, size, rng.uniform(1, 6), 3)
    return 1 - step(np.abs(field) - np.float32(rng.uniform(0.01, 0.06)), 0.05)


def _crystals(rng: Random, image: Floats, rows: Floats, columns: Floats) -> Floats:
    pitch = 10 ** rng.uniform(0.5, 1.5)
    found = cells(rng, rows, columns, (pitch, pitch * rng.uniform(0.6, 1.7)))
    chance = rng.random(int(found.label.max()) + 1, dtype=np.float32)[found.label]
    if rng.random() < 0.4:  # grains of several minerals, nothing between them
        tones = np.stack([colour(rng) for _ in range(3)])
        return _mixed(image, tones[(chance * 2.999).astype(int)], np.ones_like(chance), rng.uniform(0.2, 0.8))
    radius = pitch * rng.uniform(0.2, 0.45) * (0.4 + chance)
    inside = step(radius - found.centre, 1.5) * (chance < rng.uniform(0.2, 1))
    return _mixed(image, colour(rng), inside, rng.uniform(0.4, 1))


def _mixed(image: Floats, tone: Floats, share: Floats, strength: float) -> Floats:
    weight = (share * np.float32(strength))[..., None]
    return (image * (1 - weight) + tone * weight).astype(np.float32)
