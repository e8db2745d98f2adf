"""The segment map: what goes in comes out, numbered through the section, in the file too."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from lithostream.engine.core.label_map import LabelMap, NumberedMap
from lithostream.engine.io.label_tiff import TILE_PX, write_labels


def _random_map(heights: tuple[int, ...], width: int) -> tuple[NumberedMap, npt.NDArray[np.uint32]]:
    rng = np.random.default_rng(1)
    grown, expected, numbers, first = LabelMap(width), [], [], 0
    for height in heights:
        labels = rng.integers(0, 6, (height, width), dtype=np.int32)
        grown.append(labels)
        numbers.append(np.arange(first, first + 5))
        expected.append(np.where(labels > 0, labels + first, 0).astype(np.uint32))
        first += 5
    return grown.numbered(numbers), np.concatenate(expected)


def test_windows_are_numbered_through() -> None:
    found, expected = _random_map((7, 1, 30), 11)
    np.testing.assert_array_equal(np.concatenate(list(found.rows())), expected)


def test_a_label_may_belong_to_a_segment_of_another_window() -> None:
    grown = LabelMap(2)
    grown.append(np.array([[1, 2]], np.int32))
    grown.append(np.array([[1, 0]], np.int32))
    rows = grown.numbered([np.array([0, 1]), np.array([1])]).rows()
    np.testing.assert_array_equal(np.concatenate(list(rows)), [[1, 2], [2, 0]])


@pytest.mark.parametrize("step", [1, 3, 8])
def test_preview_does_not_depend_on_the_windows(step: int) -> None:
    found, expected = _random_map((7, 1, 30), 11)
    np.testing.assert_array_equal(found.preview(step), expected[::step, ::step])


def test_foreign_shapes_are_refused() -> None:
    grown = LabelMap(4)
    with pytest.raises(ValueError, match="rows of 4 px"):
        grown.append(np.zeros((3, 5), np.int32))
    with pytest.raises(ValueError, match="expected 0 windows, got 1"):
        grown.numbered([np.arange(2)])


@pytest.mark.parametrize("shape", [((3,), 5), ((TILE_PX, 2), TILE_PX), ((100, 300, 200), 2 * TILE_PX + 1)])
def test_the_file_holds_every_pixel(tmp_path: Path, shape: tuple[tuple[int, ...], int]) -> None:
    found, expected = _random_map(*shape)
    write_labels(found, tmp_path / "a.tif", px_per_cm=40.0)
    write_labels(found, tmp_path / "b.tif", px_per_cm=40.0)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.asarray(), expected)
        page = file.pages.first
        assert page.tags["XResolution"].value == (40, 1)
        assert page.tags["ResolutionUnit"].value == 3  # centimetre
