"""Typed face of the compiled module; the contracts are checked in the operation's own package."""

import numpy as np
import numpy.typing as npt

def segment_stats(
    labels: npt.NDArray[np.int32],
    channels: npt.NDArray[np.float32 | np.uint8],
    count: npt.NDArray[np.int64],
    mean: npt.NDArray[np.float64],
    variance: npt.NDArray[np.float64],
    box: npt.NDArray[np.int32],
    centroid: npt.NDArray[np.float64],
) -> None: ...
def label_range(labels: npt.NDArray[np.int32]) -> tuple[int, int]: ...
def slic(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_] | None,
    box: tuple[int, int, int, int],
    cells: tuple[int, int],
    stride: int,
    unit: int,
    weight: int,
    min_size: int,
    threads: int,
    labels: npt.NDArray[np.int32],
) -> None: ...
def nnls(
    spectra: npt.NDArray[np.float64],
    endmembers: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    sum_to_one: bool,
    ridge: float,
    each: int,
    abundances: npt.NDArray[np.float64],
    residual: npt.NDArray[np.float64],
    flags: npt.NDArray[np.uint8],
) -> None: ...
def idw(
    points: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    origin_step: tuple[float, float, float, float],
    k: int,
    radius: float,
    power: float,
    out: npt.NDArray[np.float32],
) -> None: ...
def tiles(
    image: npt.NDArray[np.uint8],
    row_edges: npt.NDArray[np.int64],
    col_edges: npt.NDArray[np.int64],
    threads: int,
    out: npt.NDArray[np.uint8],
) -> None: ...
