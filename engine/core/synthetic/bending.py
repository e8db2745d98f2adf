"""Random fields on a physical lattice, and how coring and animals moved the layers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Random field on a physical lattice: the same at every image scale.

    Attributes
    ----------
    values : float32 [M, N]
        Node values.
    cell_y_cm, cell_x_cm : float
        Spacing of the nodes.
    """

    values: Float32Array
    cell_y_cm: float
    cell_x_cm: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, size_cm: tuple[float, float], cell_cm: tuple[float, float]
    ) -> "Lattice":
        """Draw standard normal nodes that cover `size_cm`, both (y, x)."""
        shape = [int(size / cell) + 3 for size, cell in zip(size_cm, cell_cm, strict=True)]
        return cls(rng.standard_normal(shape, dtype=np.float32), *cell_cm)

    def at(self, y_cm: FloatArray, x_cm: FloatArray) -> Float32Array:
        """Bilinear values on the grid of rows `y_cm` [h] and columns `x_cm` [w], float32 [h, w]."""
        row, down = _split(y_cm / self.cell_y_cm)
        col, right = _split(x_cm / self.cell_x_cm)
        lines = self.values[row] * (1 - down)[:, None] + self.values[row + 1] * down[:, None]
        return np.asarray(lines[:, col] * (1 - right) + lines[:, col + 1] * right, dtype=np.float32)


def _split(position: FloatArray) -> tuple[npt.NDArray[np.intp], Float32Array]:
    whole = np.floor(position).astype(np.intp)
    return whole, (position - whole).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Bending:
    """How coring and animals moved the layers: image position to depth in the sequence.

    Attributes
    ----------
    centre_cm, half_cm : float
        Middle and half width of the core across the image.
    dip, bow : Lattice
        Tilt (cm per cm) and drag at the tube wall (cm at the edge) along depth.
    wobble, mottle : Lattice
        Irregular displacement at the scale of a finger and of a worm, cm.
    burrows : float64 [K, 5]
        Ellipses filled from elsewhere: y, x, half height, half width and displacement, cm.
    """

    centre_cm: float
    half_cm: float
    dip: Lattice
    bow: Lattice
    wobble: Lattice
    mottle: Lattice
    burrows: FloatArray

    @classmethod
    def draw(cls, rng: np.random.Generator, size_cm: tuple[float, float], wall_cm: float) -> "Bending":
        """Draw the disturbance of a core between walls `wall_cm` inside an image of `size_cm` (y, x)."""
        length, width = size_cm
        count = rng.poisson(0.12 * length)
        burrows = np.column_stack(
            [
                rng.uniform(0, length, count),
                rng.uniform(wall_cm, width - wall_cm, count),
                rng.uniform(0.1, 0.4, count),
                rng.uniform(0.15, 0.9, count),
                rng.uniform(0.6, 3.0, count) * rng.choice([-1.0, 1.0], count),
            ]
        )
        along = (length, 0.0)
        return cls(
            centre_cm=width / 2,
            half_cm=width / 2 - wall_cm,
            dip=Lattice.draw(rng, along, (25.0, 1.0)),
            bow=Lattice.draw(rng, along, (15.0, 1.0)),
            wobble=Lattice.draw(rng, size_cm, (1.2, 1.2)),
            mottle=Lattice.draw(rng, size_cm, (0.18, 0.25)),
            burrows=burrows,
        )

    def depth_cm(self, y_cm: FloatArray, x_cm: FloatArray) -> Float32Array:
        """Depth in the sequence seen at rows `y_cm` [h] and columns `x_cm` [w], float32 [h, w]."""
        across = ((x_cm - self.centre_cm) / self.half_cm).astype(np.float32)
        zero = np.zeros(1)
        dip = 0.05 * self.dip.at(y_cm, zero) * self.half_cm
        # Friction drags the edges down, by 0 to about 1.5 cm.
        bow = 0.45 * np.abs(self.bow.at(y_cm, zero)) + 0.1
        shift = dip * across + bow * across**2
        shift = shift + 0.08 * self.wobble.at(y_cm, x_cm) + 0.03 * self.mottle.at(y_cm, x_cm)
        depth = y_cm.astype(np.float32)[:, None] - shift
        for y, x, high, wide, moved in self.burrows:
            near = (y_cm > y - high) & (y_cm < y + high)
            if near.any():
                inside = ((y_cm[near, None] - y) / high) ** 2 + ((x_cm - x) / wide) ** 2 < 1
                depth[near] += np.where(inside, np.float32(moved), np.float32(0))
        return np.asarray(depth, dtype=np.float32)
