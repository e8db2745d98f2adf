"""What grows with the length of a core, kept on disk while a section is made."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

Arrays = Mapping[str, npt.NDArray[Any]]


class Spill:
    """Records of named arrays in a file without a name: its space is given back however the process ends.

    Parameters
    ----------
    path : Path
        Where the file is made, on a disk with room for it; it is gone from there at once.

    Raises
    ------
    OSError
        It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        path.unlink()
        self._ends = [0]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, arrays: Arrays) -> None:
        """Add a record.

        Raises
        ------
        OSError
            The disk is full.
        """
        # Of an array in another order safetensors would write the bytes as they lie.
        record = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        left, end = memoryview(save(record)), self._ends[-1]
        while left:
            written = os.pwrite(self._file.fileno(), left, end)
            left, end = left[written:], end + written
        self._ends.append(end)

    def read(self, number: int) -> Arrays:
        """Read a record, as it was added; threads may read at the same time."""
        start, end = self._ends[number], self._ends[number + 1]
        return load(os.pread(self._file.fileno(), end - start, start))

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
