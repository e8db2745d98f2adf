"""What a line-scan camera sees of a generated core: colour, texture, cracks, liner, foam and colour card."""

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.minerals import SEDIMENT, Endmembers
from lithostream.engine.core.synthetic.bending import Bending, Float32Array, FloatArray, Lattice
from lithostream.engine.core.synthetic.layers import Sequence
from lithostream.engine.core.synthetic.layout import BoolArray, Layout

# Rows rendered at a time: bounds memory whatever the length of the scan.
_BLOCK_ROWS = 256
# Optical cross-section per volume, relative to clay: fine grains colour more than their share of the volume.
_OPTICAL_WEIGHT = np.array([0.0, 0.45, 1.1, 1.0, 22.0])
# Iron oxides are as coarse as the sediment that carries them: their cross-section falls with grain size.
_OXIDE_GRAIN_MM, _OXIDE_EXPONENT = 0.05, -0.35
# Absorption over scattering grows where water fills the pores and grains scatter less (Philpot 2010).
_WETTING = 2.2
# Pigment (organic matter, sulphide): absorbs blue most.
_STAIN = np.array([0.35, 0.45, 0.85])

# Linear-light sRGB of what is not core.
_BENCH = np.array([0.012, 0.012, 0.014], np.float32)
_LINER = np.array([0.02, 0.045, 0.13], np.float32)
_CAP = np.array([0.020, 0.050, 0.150], np.float32)
_FOAM = np.array([0.86, 0.86, 0.84], np.float32)
_SHADOW = np.array([0.025, 0.020, 0.016], np.float32)
# Longest crack and the step of its crooked path, cm.
_CRACK_CM, _CRACK_STEP_CM = 4.0, 0.08
# Shadow between foam and sediment, cm.
_FOAM_INSET_CM = 0.15

# The 24 patches of a ColorChecker, 8-bit sRGB, row by row (Pascale 2006, RGB coordinates of the ColorChecker).
CARD_SRGB = np.array(
    [
        *((115, 82, 68), (194, 150, 130), (98, 122, 157), (87, 108, 67), (133, 128, 177), (103, 189, 170)),
        *((214, 126, 44), (80, 91, 166), (193, 90, 99), (94, 60, 108), (157, 188, 64), (224, 163, 46)),
        *((56, 61, 150), (70, 148, 73), (175, 54, 60), (231, 199, 31), (187, 86, 149), (8, 133, 161)),
        *((243, 243, 242), (200, 200, 200), (160, 160, 160), (122, 122, 121), (85, 85, 85), (52, 52, 52)),
    ],
    dtype=np.uint8,
)


def srgb_decode(code: npt.NDArray[np.uint8]) -> FloatArray:
    """8-bit sRGB to linear light 0..1 (IEC 61966-2-1)."""
    value = code / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def wet_colour(sequence: Sequence, endmembers: Endmembers) -> FloatArray:
    """Linear-light reflectance of the wet sediment, float64 [S, 3].

    Absorption and scattering add up in proportion to volume times optical cross-section, and an opaque layer
    reflects 1 + q - sqrt(q^2 + 2 q) with q = K / S: Kubelka and Munk (1931); Hapke (1981) for the weights.
    """
    optical = sequence.fractions * _OPTICAL_WEIGHT
    optical[:, SEDIMENT.index("magnetite")] *= (sequence.grain_mm / _OXIDE_GRAIN_MM) ** _OXIDE_EXPONENT
    dry = np.nan_to_num(endmembers.colour, nan=1.0)  # water is transparent: no weight, no absorption
    ratio = (1.0 - dry) ** 2 / (2.0 * dry)
    absorption = optical @ ratio / optical.sum(axis=1, keepdims=True)
    absorption = absorption + sequence.stain[:, None] * _STAIN
    absorption = absorption * (1.0 + _WETTING * sequence.fractions[:, :1])
    return np.asarray(1.0 + absorption - np.sqrt(absorption**2 + 2.0 * absorption), dtype=np.float64)


class Painter:
    """Renders blocks of rows of one scan; everything random is drawn at construction or per block.

    Parameters
    ----------
    seed : int
        Of the scan.
    layout, sequence, bending
        The core.
    endmembers : Endmembers
        In the order of the fractions.
    px_per_cm : float
        Scale.
    """

    def __init__(
        self,
        seed: int,
        layout: Layout,
        sequence: Sequence,
        bending: Bending,
        endmembers: Endmembers,
        px_per_cm: float,
    ) -> None:
        rng = np.random.default_rng([seed, 1])
        size = (layout.length_cm, layout.width_cm)
        self._seed, self._layout, self._sequence, self._bending = seed, layout, sequence, bending
        self._px_per_cm = px_per_cm
        graininess = 0.035 * (sequence.grain_mm / 0.05) ** 0.65
        self._look = np.column_stack([wet_colour(sequence, endmembers), graininess]).astype(np.float32)
        self._grain = Lattice.draw(rng, size, (0.03, 0.03))
        self._clumps = Lattice.draw(rng, size, (0.14, 0.18))
        self._streaks = Lattice.draw(rng, size, (0.05, 1.5))
        self._sheen = Lattice.draw(rng, size, (3.0, 2.0))
        self._edge = Lattice.draw(rng, size, (2.5, layout.width_cm))
        count = rng.poisson(0.09 * layout.length_cm)
        span = rng.uniform(0.4, _CRACK_CM, count)
        start = rng.uniform(0.0, layout.width_cm - 1.0, count)
        self._cracks = np.column_stack(
            [
                rng.uniform(0.0, layout.length_cm, count),
                start,
                start + span,
                rng.normal(0.0, 0.15, count),
                rng.uniform(0.01, 0.06, count),
            ]
        )
        steps = rng.standard_normal((count, 1 + int(_CRACK_CM / _CRACK_STEP_CM)))
        self._crack_paths = 0.035 * np.cumsum(steps, axis=1)
        self._gain, self._tilt = 1.0 + 0.015 * rng.standard_normal(), 0.02 * rng.standard_normal()
        columns = np.arange(round(layout.width_cm * px_per_cm), dtype=np.float64)
        self._columns_cm: FloatArray = (columns + 0.5) / px_per_cm
        self._encode = _srgb_table()

    def paint(self) -> tuple[npt.NDArray[np.uint8], BoolArray]:
        """Return the scan, uint8 [H, W, 3], and where it shows core, bool [H, W]."""
        height, width = round(self._layout.length_cm * self._px_per_cm), len(self._columns_cm)
        image = np.empty((height, width, 3), np.uint8)
        mask = np.empty((height, width), bool)
        for top in range(0, height, _BLOCK_ROWS):
            rows = slice(top, min(top + _BLOCK_ROWS, height))
            y_cm = (np.arange(rows.start, rows.stop, dtype=np.float64) + 0.5) / self._px_per_cm
            light, mask[rows] = self._scene(y_cm)
            noise = np.random.default_rng([self._seed, 2, top])
            image[rows] = self._expose(light, noise)
        return image, mask

    def _scene(self, y_cm: FloatArray) -> tuple[Float32Array, BoolArray]:
        """Linear-light reflectance [h, W, 3] and core mask [h, W] of some rows."""
        layout, x_cm = self._layout, self._columns_cm
        wall = layout.wall_cm + 0.015 * self._edge.at(y_cm, np.array([0.0, layout.width_cm]))
        from_wall = np.minimum(x_cm - wall[:, :1], layout.width_cm - wall[:, 1:] - x_cm)  # [h, W]
        mask = layout.is_core(y_cm)[:, None] & (from_wall > 0)
        light = self._sediment(y_cm)
        # Smear and shadow where sediment meets the tube.
        light *= (1.0 - 0.4 * np.exp(-np.maximum(from_wall, 0) / 0.08)).astype(np.float32)[:, :, None]
        rim = 1.0 + 1.5 * np.exp(-(((from_wall + 0.5 * layout.wall_cm) / 0.05) ** 2))
        liner = _LINER * rim.astype(np.float32)[:, :, None]
        light = np.where((from_wall > 0)[:, :, None], light, liner)
        for top, base in layout.gaps_cm:
            lost = (y_cm >= top) & (y_cm < base)
            light[np.ix_(lost, x_cm > 0)] = self._foam(y_cm[lost], from_wall[lost], liner[lost], top, base)
        outside = (y_cm < layout.core_top_cm) | (y_cm >= layout.core_base_cm)
        cap = (
            outside
            & (y_cm >= layout.core_top_cm - layout.cap_cm)
            & (y_cm < layout.core_base_cm + layout.cap_cm)
        )
        light[outside] = _BENCH
        light[cap] = _CAP
        self._card(light, y_cm)
        return light, mask

    def _sediment(self, y_cm: FloatArray) -> Float32Array:
        x_cm, px = self._columns_cm, self._px_per_cm
        look = self._look[self._sequence.index(self._bending.depth_cm(y_cm, x_cm))]  # [h, W, 4]
        # A pixel larger than a grain averages it away.
        texture = look[:, :, 3] * (
            np.float32(min(1.0, 0.03 * px)) * self._grain.at(y_cm, x_cm)
            + np.float32(0.45 * min(1.0, 0.14 * px)) * self._clumps.at(y_cm, x_cm)
        )
        texture += 0.018 * self._streaks.at(y_cm, x_cm) + 0.03 * self._sheen.at(y_cm, x_cm)
        light = look[:, :, :3] * np.exp(texture)[:, :, None]
        self._crack(light, y_cm)
        return np.asarray(light, dtype=np.float32)

    def _crack(self, light: Float32Array, y_cm: FloatArray) -> None:
        nodes = np.arange(self._crack_paths.shape[1]) * _CRACK_STEP_CM
        for (y, left, right, slope, thick), path in zip(self._cracks, self._crack_paths, strict=True):
            cols = np.flatnonzero((self._columns_cm > left) & (self._columns_cm < right))
            along = self._columns_cm[cols] - left
            line = y + slope * along + np.interp(along, nodes, path)
            if not len(cols) or line.max() + thick < y_cm[0] or line.min() - thick > y_cm[-1]:
                continue
            taper = thick * np.sqrt(np.sin(np.pi * along / (right - left)))
            # A crack narrower than a pixel darkens it in part.
            drawn = np.maximum(taper, 0.6 / self._px_per_cm)
            depth = taper / drawn * np.exp(-(((y_cm[:, None] - line) / drawn) ** 2))
            light[:, cols] *= (1.0 - 0.85 * depth).astype(np.float32)[:, :, None]

    def _foam(
        self, y_cm: FloatArray, from_wall: Float32Array, liner: Float32Array, top: float, base: float
    ) -> Float32Array:
        inset = _FOAM_INSET_CM
        block = (from_wall > inset) & ((y_cm > top + inset) & (y_cm < base - inset))[:, None]
        grainy = _FOAM * (1.0 + 0.02 * self._clumps.at(y_cm, self._columns_cm))[:, :, None]
        light = np.where(block[:, :, None], grainy, _SHADOW)
        return np.asarray(np.where((from_wall > 0)[:, :, None], light, liner), dtype=np.float32)

    def _card(self, light: Float32Array, y_cm: FloatArray) -> None:
        pitch = self._layout.card_pitch_cm
        row, in_y = np.divmod((y_cm - self._layout.card_top_cm) / pitch, 1.0)
        col, in_x = np.divmod((self._columns_cm - 0.5 * (self._layout.width_cm - 6 * pitch)) / pitch, 1.0)
        rows = (row >= 0) & (row < 4) & (np.abs(in_y - 0.5) < 0.42)
        cols = (col >= 0) & (col < 6) & (np.abs(in_x - 0.5) < 0.42)
        patch = 6 * row[rows, None].astype(int) + col[cols].astype(int)
        light[np.ix_(rows, cols)] = srgb_decode(CARD_SRGB)[patch]

    def _expose(self, light: Float32Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        across = 2.0 * self._columns_cm / self._layout.width_cm - 1.0
        lamp = (self._gain * (1.0 - 0.10 * across**2 + self._tilt * across)).astype(np.float32)
        light = light * lamp[:, None]
        # Read noise and shot noise of a 12-bit line camera after white balance.
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light += noise * (0.0015 + 0.008 * np.sqrt(light))
        return np.asarray(self._encode[(light.clip(0.0, 1.0) * (len(self._encode) - 1)).astype(np.uint16)])


def _srgb_table() -> npt.NDArray[np.uint8]:
    linear = (np.arange(65536) + 0.5) / 65536
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255.0 * encoded).astype(np.uint8)
