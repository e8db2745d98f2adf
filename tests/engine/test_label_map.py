"""The segment map: what goes in comes out, numbered through the section, in the file too."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from lithostream.engine.core.label_map import LABELS, NUMBERS, NumberedMap, packed
from lithostream.engine.core.spill import Spill
from lithostream.engine.io.label_tiff import TILE_PX, write_labels


def spilled(folder: Path, windows: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]]) -> Spill:
    found = Spill(folder / "spill")
    for labels, numbers in windows:
        found.append({LABELS: packed(labels), NUMBERS: numbers})
    return found


def _random_map(
    folder: Path, heights: tuple[int, ...], width: int
) -> tuple[NumberedMap, npt.NDArray[np.uint32]]:
    rng = np.random.default_rng(1)
    windows, expected = [], []
    for number, height in enumerate(heights):
        labels = rng.integers(0, 6, (height, width), dtype=np.int32)
        windows.append((labels, np.arange(5 * number, 5 * number + 5)))
        expected.append(np.where(labels > 0, labels + 5 * number, 0).astype(np.uint32))
    return NumberedMap(sum(heights), width, spilled(folder, windows)), np.concatenate(expected)


def test_windows_are_numbered_through(tmp_path: Path) -> None:
    found, expected = _random_map(tmp_path, (7, 1, 30), 11)
    np.testing.assert_array_equal(np.concatenate(list(found.rows())), expected)


def test_a_label_may_belong_to_a_segment_of_another_window(tmp_path: Path) -> None:
    windows = [
        (np.array([[1, 2]], np.int32), np.array([0, 1])),
        (np.array([[1, 0]], np.int32), np.array([1])),
    ]
    rows = NumberedMap(2, 2, spilled(tmp_path, windows)).rows()
    np.testing.assert_array_equal(np.concatenate(list(rows)), [[1, 2], [2, 0]])


@pytest.mark.parametrize("step", [1, 3, 8])
def test_preview_does_not_depend_on_the_windows(tmp_path: Path, step: int) -> None:
    found, expected = _random_map(tmp_path, (7, 1, 30), 11)
    np.testing.assert_array_equal(np.concatenate(list(found.preview(step))), expected[::step, ::step])


@pytest.mark.parametrize("shape", [((3,), 5), ((TILE_PX, 2), TILE_PX), ((100, 300, 200), 2 * TILE_PX + 1)])
def test_the_file_holds_every_pixel(tmp_path: Path, shape: tuple[tuple[int, ...], int]) -> None:
    found, expected = _random_map(tmp_path, *shape)
    write_labels(found, tmp_path / "a.tif", px_per_cm=40.0)
    write_labels(found, tmp_path / "b.tif", px_per_cm=40.0)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.asarray(), expected)
        page = file.pages.first
        assert page.tags["XResolution"].value == (40, 1)
        assert page.tags["ResolutionUnit"].value == 3  # centimetre


def test_threads_read_a_spill_at_the_same_time(tmp_path: Path) -> None:
    def record(number: int) -> dict[str, npt.NDArray[np.int64]]:
        return {NUMBERS: np.full(10_000 + number, number)}

    with Spill(tmp_path / "spill") as spill, ThreadPoolExecutor(4) as threads:
        for number in range(20):
            spill.append(record(number))
        asked = [number % 20 for number in range(400)]
        for number, found in zip(asked, threads.map(spill.read, asked), strict=True):
            np.testing.assert_array_equal(found[NUMBERS], record(number)[NUMBERS])
