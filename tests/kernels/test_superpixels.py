import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import find_boundaries
from skimage.segmentation import slic as skimage_slic

from lithostream.kernels import _native
from lithostream.kernels.errors import ContractError
from lithostream.kernels.superpixels import reference, slic
from lithostream.kernels.superpixels.plan import plan_grid

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def assert_partition(labels: Labels, mask: Mask, n_segments: int) -> None:
    """Every pixel of the mask, numbered 1..K in row order, each label one piece of the smallest size allowed."""
    assert np.array_equal(labels > 0, mask)
    found, first = np.unique(labels[mask], return_index=True)
    assert found.tolist() == list(range(1, len(found) + 1))
    assert np.all(np.diff(first) > 0)
    area = int(mask.sum())
    min_size = area // (4 * min(n_segments, area)) if area else 0
    islands, _ = ndimage.label(mask)
    for label in found:
        region = labels == label
        assert ndimage.label(region)[1] == 1
        assert region.sum() >= min(min_size, (islands == islands[region][0]).sum())


@st.composite
def problems(draw: st.DrawFn) -> tuple[Image, dict[str, Any]]:
    height, width, channels = draw(st.integers(1, 14)), draw(st.integers(1, 14)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    step = draw(st.sampled_from([1, 64, 128, 255]))
    image = (rng.integers(0, 256, (height, width, channels)) // step * step).astype(np.uint8)
    share = draw(st.sampled_from([None, 0.1, 0.5, 0.9]))
    mask = None if share is None else rng.random((height, width)) < share
    compactness = draw(st.sampled_from([0.01, 1.0, 10.0, 100.0, 1000.0]))
    return image, {"n_segments": draw(st.integers(1, 250)), "compactness": compactness, "mask": mask}


@settings(max_examples=150, deadline=None)
@given(problems())
def test_equals_the_reference_bit_for_bit_and_is_a_partition(problem: tuple[Image, dict[str, Any]]) -> None:
    image, options = problem
    labels = slic(image, **options)
    assert np.array_equal(labels, reference.slic(image, **options))
    mask = np.ones(labels.shape, np.bool_) if options["mask"] is None else options["mask"]
    assert_partition(labels, mask, options["n_segments"])


def test_a_bigger_image_equals_the_reference() -> None:
    image = blobs(90, 70)
    labels = slic(image, n_segments=40, compactness=10)
    assert np.array_equal(labels, reference.slic(image, n_segments=40, compactness=10))
    assert_partition(labels, np.ones((90, 70), np.bool_), 40)
    assert 30 <= labels.max() <= 60


def test_flat_colour_gives_the_regular_grid() -> None:
    labels = slic(np.full((12, 12, 3), 77, np.uint8), n_segments=9, compactness=1)
    assert np.array_equal(labels, np.arange(1, 10).reshape(3, 3).repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize("shape", [(1, 60, 3), (60, 1, 3)])
def test_a_strip_one_pixel_wide_is_cut_into_equal_lengths(shape: tuple[int, int, int]) -> None:
    labels = slic(np.full(shape, 9, np.uint8), n_segments=6, compactness=5)
    assert labels.ravel().tolist() == np.arange(1, 7).repeat(10).tolist()


def test_superpixels_follow_a_colour_edge_off_the_grid() -> None:
    image = np.zeros((20, 20, 1), np.uint8)
    image[:, 13:] = 200
    labels = slic(image, n_segments=4, compactness=10)
    assert not set(labels[:, :13].ravel()) & set(labels[:, 13:].ravel())


def test_a_small_spot_joins_the_neighbour_of_nearest_colour() -> None:
    image = np.zeros((20, 20, 1), np.uint8)
    image[:, 10:] = 200
    image[5, 9:11] = 120  # on the border, nearer to 200 than to 0
    labels = slic(image, n_segments=2, compactness=0.01)
    assert labels.max() == 2
    assert np.all(labels[5, 9:11] == labels[0, 19])


def test_one_pixel_and_more_segments_than_pixels() -> None:
    assert slic(np.zeros((1, 1, 1), np.uint8), n_segments=5, compactness=1).tolist() == [[1]]
    labels = slic(np.zeros((2, 3, 1), np.uint8), n_segments=10**12, compactness=1)
    assert labels.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_masks_of_one_pixel_no_pixel_and_islands() -> None:
    image, mask = blobs(8, 9), np.zeros((8, 9), np.bool_)
    assert not slic(image, n_segments=3, compactness=10, mask=mask).any()
    mask[3, 4] = True
    assert np.array_equal(slic(image, n_segments=3, compactness=10, mask=mask), mask)
    mask[:] = False
    mask[1:6, 1:6] = mask[7, 8] = True
    labels = slic(image, n_segments=1, compactness=10, mask=mask)
    assert (labels == labels[7, 8]).sum() == 1  # no neighbour: keeps its own label
    assert_partition(labels, mask, 1)
    assert slic(np.zeros((0, 5, 3), np.uint8), n_segments=3, compactness=1).shape == (0, 5)


def test_pixels_outside_the_mask_do_not_matter() -> None:
    image, mask = blobs(40, 30), np.zeros((40, 30), np.bool_)
    mask[4:37, 3:21] = True
    other = np.where(mask[..., None], image, 255 - image)
    options: dict[str, Any] = {"n_segments": 12, "compactness": 10.0, "mask": mask}
    assert np.array_equal(slic(image, **options), slic(other, **options))


def test_fills_out_and_reads_views() -> None:
    image = blobs(30, 40)
    want = slic(image, n_segments=10, compactness=10)
    out = np.full((30, 40), -1, np.int32)
    assert slic(image, n_segments=10, compactness=10, out=out) is out
    assert np.array_equal(out, want)
    wide = np.zeros((30, 40, 6), np.uint8)
    wide[..., ::2] = image
    assert np.array_equal(slic(wide[..., ::2], n_segments=10, compactness=10), want)


def test_boundary_recall_is_at_least_that_of_scikit_image() -> None:
    truth = patches(160, 120)
    noise = np.random.default_rng(1).normal(0, 4, (160, 120, 3))
    palette = np.array([[60, 50, 45], [120, 100, 80], [150, 140, 130], [90, 110, 90]])
    image = np.clip(palette[truth] + noise, 0, 255).astype(np.uint8)
    ours = slic(image, n_segments=120, compactness=10)
    theirs = skimage_slic(image, n_segments=120, compactness=10, start_label=1)
    assert ours.max() <= 1.5 * 120
    assert recall(truth, ours) >= max(recall(truth, theirs) - 0.02, 0.9)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_the_brightest_colours_of_cells_of_many_rows_equal_the_reference(channels: int, masked: bool) -> None:
    image = 255 - blobs(230, 140)[..., [0, 1, 2, 0]][..., :channels] // 16
    mask = np.random.default_rng(3).random((230, 140)) < 0.05 if masked else None
    options: dict[str, Any] = {"n_segments": 2, "compactness": 3.0, "mask": mask}
    assert np.array_equal(slic(image, **options), reference.slic(image, **options))


def test_a_mask_between_the_sampled_rows_still_seeds_its_cells() -> None:
    image, mask = blobs(96, 40), np.zeros((96, 40), np.bool_)
    mask[1::6] = mask[50:, :20] = True
    options: dict[str, Any] = {"n_segments": 6, "compactness": 10.0, "mask": mask}
    labels = slic(image, **options)
    assert np.array_equal(labels, reference.slic(image, **options))
    assert_partition(labels, mask, 6)


def test_noise_of_thousands_of_pieces_equals_the_reference() -> None:
    image = np.random.default_rng(4).integers(0, 256, (90, 60, 3)).astype(np.uint8)
    options: dict[str, Any] = {"n_segments": 10, "compactness": 1.0}
    assert np.array_equal(slic(image, **options), reference.slic(image, **options))


def test_a_mask_of_all_pixels_is_no_mask() -> None:
    image = blobs(100, 80)
    options: dict[str, Any] = {"n_segments": 9, "compactness": 10.0}
    assert np.array_equal(slic(image, **options), slic(image, mask=np.ones((100, 80), np.bool_), **options))


@pytest.mark.parametrize("compactness", [0.01, 10.0, 1000.0])
def test_rows_longer_than_a_chunk_and_sampled_rows_equal_the_reference(compactness: float) -> None:
    image = blobs(40, 300)
    mask = np.random.default_rng(2).random((40, 300)) < 0.8
    options: dict[str, Any] = {"n_segments": 12, "compactness": compactness, "mask": mask}
    plan = plan_grid(image.shape, mask, 12, compactness)
    assert plan is not None and plan.stride > 1
    assert np.array_equal(slic(image, **options), reference.slic(image, **options))


def test_the_labels_do_not_depend_on_the_number_of_threads() -> None:
    image = blobs(200, 150)
    plan = plan_grid(image.shape, None, 60, 10.0)
    assert plan is not None
    want = slic(image, n_segments=60, compactness=10)
    for threads in (1, 2, 5):
        labels = np.empty((200, 150), np.int32)
        grid = (plan.box, plan.cells, plan.stride, plan.unit, plan.weight, plan.min_size)
        _native.slic(image, None, *grid, threads, labels)
        assert np.array_equal(labels, want)


def test_eight_threads_get_the_same_labels() -> None:
    image = blobs(120, 100)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: slic(image, n_segments=50, compactness=10).tobytes(), range(16)))
    assert set(results) == {slic(image, n_segments=50, compactness=10).tobytes()}


# Leaves the process little room: first too little for the stack of another thread, then for the work itself.
STARVED = """
import resource, threading
import numpy as np
from lithostream.kernels import _native
from lithostream.kernels.superpixels.plan import plan_grid

def label(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 1)).astype(np.uint8)
    plan = plan_grid(image.shape, None, 50, 1.0)
    grid = (plan.box, plan.cells, plan.stride, plan.unit, plan.weight, plan.min_size)
    labels = np.zeros((height, width), np.int32)
    return lambda: _native.slic(image, None, *grid, 3, labels), labels

def leave(room):
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.RLIM_INFINITY))

small, labels = label(200, 200)
large, _ = label(2000, 2000)
small()
want = labels.copy()
leave(2**28)
try:
    threading.Thread(target=print).start()
except RuntimeError:
    print("no thread")
labels[:] = 0
small()
print("same" if np.array_equal(labels, want) else "other")
leave(2**23)
for _ in range(3):
    try:
        large()
    except MemoryError:
        print("no memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process by means of Linux")
def test_want_of_threads_or_memory_does_not_end_the_process() -> None:
    child = subprocess.run(
        ["bash", "-c", 'ulimit -s 4194304 && exec "$0" -c "$1"', sys.executable, STARVED],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split("\n") == ["no thread", "same", *["no memory"] * 3, ""]


def test_host_arrays_take_no_stream() -> None:
    with pytest.raises(ContractError, match="stream: expected None for NumPy arrays, got str"):
        slic(blobs(4, 4), n_segments=1, compactness=1.0, stream="1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 5, 3))}, r"image: expected uint8 \[\*, \*, \*\], got float64"),
        ({"image": np.zeros((4, 5, 5), np.uint8)}, "image: expected 1 to 4 channels"),
        ({"mask": np.ones((5, 4), np.bool_)}, r"mask: expected bool \[4, 5\]"),
        ({"mask": np.ones((4, 5), np.uint8)}, r"mask: expected bool \[4, 5\], got uint8"),
        ({"n_segments": 0}, "n_segments: expected a whole number from 1, got 0"),
        ({"n_segments": 2.5}, "n_segments: expected a whole number from 1, got 2.5"),
        ({"compactness": float("nan")}, "compactness: expected above 0"),
        ({"compactness": 0.0}, "compactness: expected above 0"),
        ({"compactness": 1001.0}, "at most 1000, got 1001"),
        ({"out": np.zeros((4, 5), np.int64)}, r"out: expected int32 \[4, 5\], got int64"),
        ({"out": np.zeros((4, 10), np.int32)[:, ::2]}, "out: expected a writeable C-contiguous array"),
    ],
)
def test_contract(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"image": np.zeros((4, 5, 3), np.uint8), "n_segments": 2, "compactness": 10.0}
    arguments |= change
    with pytest.raises(ContractError, match=message):
        slic(arguments.pop("image"), **arguments)


def blobs(height: int, width: int) -> Image:
    noise = np.random.default_rng(0).normal(0, 1, (height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (4, 4, 0))
    image: Image = np.clip(127 + 400 * smooth, 0, 255).astype(np.uint8)
    return image


def patches(height: int, width: int) -> npt.NDArray[np.int64]:
    """Four regions: a slanted layer boundary, a band and a disc."""
    y, x = np.mgrid[:height, :width]
    truth: npt.NDArray[np.int64] = (y + 0.4 * x > 0.55 * height).astype(np.int64)
    truth[np.abs(y - 0.2 * x - 0.75 * height) < 8] = 2
    truth[(y - 45) ** 2 + (x - 70) ** 2 < 22**2] = 3
    return truth


def recall(truth: npt.NDArray[np.int64], labels: npt.NDArray[Any]) -> float:
    """Share of the true border pixels within 2 px of a superpixel border."""
    near = ndimage.binary_dilation(find_boundaries(labels, mode="thick"), np.ones((5, 5)))
    return float(near[find_boundaries(truth, mode="inner")].mean())
