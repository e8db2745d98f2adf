"""The picture of a section while it grows: never more pixels than a screen can use, whatever the length of the core."""

import math

import numpy as np
import numpy.typing as npt

MOST_PX = 1_000_000  # 1.5 m x 10 cm at 20 px/cm is 0.6 million

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Preview:
    """Pixels of every `step`-th row and column of a section, and which of them are core.

    Before there are more than `MOST_PX` every second row and column goes, so what remains depends on the section's size
    alone.

    Parameters
    ----------
    step : int
        Pixels of the image between those that come.

    Attributes
    ----------
    step : int
        Pixels of the image between those that are kept.
    """

    def __init__(self, step: int) -> None:
        self.step = self._given_step = step
        self._given_rows = 0
        self._buffer = np.empty(4 * MOST_PX, np.uint8)  # red, green, blue, core
        self._held: Pixels = self._buffer[:0].reshape(0, 1, 4)

    def add(self, rgb: Pixels, mask: Mask) -> None:
        """Add the next rows: rgb uint8 [h, w, 3] and the pixels that are core, bool [h, w]."""
        before, self._given_rows = self._given_rows, self._given_rows + len(mask)
        held = self._held
        while math.prod(self._size(mask.shape[1])) > MOST_PX:
            held, self.step = held[::2, ::2], 2 * self.step
        rows, cols = self._size(mask.shape[1])
        room = self._buffer[: 4 * rows * cols].reshape(rows, cols, 4)
        if held is not self._held:
            room[: len(held)] = held.copy()
        thin = self.step // self._given_step
        new = slice(-before % thin, None, thin), slice(None, None, thin)
        room[len(held) :, :, :3], room[len(held) :, :, 3] = rgb[new], mask[new]
        self._held = room

    def pixels(self) -> tuple[Pixels, Mask]:
        """Give what there is: rgb uint8 [h, w, 3] and mask bool [h, w]."""
        return self._held[..., :3], self._held[..., 3] > 0

    def _size(self, width: int) -> tuple[int, int]:
        """Rows and columns of all that came, at the present step."""
        thin = self.step // self._given_step
        return -(-self._given_rows // thin), -(-width // thin)
