"""The core box and the core region beside OpenCV on a generated core and on one in a wide white frame."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit
from pytest_benchmark.fixture import BenchmarkFixture

from lithostream.engine.core.synthetic import generate
from lithostream.kernels import core_boxes, core_roi
from lithostream.kernels.roi.rules import CORE, FOREIGN

HEIGHT, WIDTH = 20_000, 2_000
FRAMES = ["liner", "frame"]
PEER = "peer: pip install opencv-python-headless"
LOW, HIGH = (0, 15, 20), (179, 255, 225)
"""OpenCV's hue, saturation and value: neither black nor white nor grey."""

Bytes = npt.NDArray[np.uint8]


@njit  # type: ignore[untyped-decorator]
def coloured(r: int, g: int, b: int) -> int:
    """Tell what lies within LOW..HIGH, without a division."""
    value = max(r, g, b)
    saturated = np.int32(510 * np.int32(value - min(r, g, b))) >= np.int32((2 * LOW[1] - 1) * value)
    return CORE if (value >= LOW[2]) & (value <= HIGH[2]) & saturated else FOREIGN


@pytest.fixture(scope="module")
def images() -> dict[str, Bytes]:
    """In its liner, which the rule takes for core but for the ends; and in 36 % of white frame."""
    liner = generate(7, length_cm=HEIGHT / 250, width_cm=WIDTH / 250, px_per_cm=250).image
    frame = np.full_like(liner, (235, 235, 238))
    frame[400:-500, 300:-350] = liner[400:-500, 300:-350]
    return {"liner": liner, "frame": frame}


def by_opencv(cv2: Any, image: Bytes, hsv: Bytes, mask: Bytes) -> tuple[int, int, int, int]:
    cv2.cvtColor(image, cv2.COLOR_RGB2HSV, dst=hsv)
    cv2.inRange(hsv, LOW, HIGH, dst=mask)
    x, y, width, height = cv2.boundingRect(mask)
    return y, x, y + height, x + width


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.benchmark(group="core_boxes")
def bench_core_boxes(benchmark: BenchmarkFixture, images: dict[str, Bytes], frame: str) -> None:
    image = images[frame]
    found = benchmark(core_boxes, image, rule=coloured)
    (y0, x0, y1, x1) = found.boxes[0]
    outside = image.nbytes - 3 * (y1 - y0) * (x1 - x0)
    benchmark.extra_info["bytes"] = outside + 64 * HEIGHT  # all outside the box, and a cache line of each row
    cv2 = pytest.importorskip("cv2", reason=PEER)
    hsv, mask = np.empty_like(image), np.empty(image.shape[:2], np.uint8)
    assert found.boxes == [by_opencv(cv2, image, hsv, mask)]
    assert np.array_equal(found.rows, mask.any(axis=1))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.benchmark(group="core_boxes")
def bench_core_boxes_peer_opencv(benchmark: BenchmarkFixture, images: dict[str, Bytes], frame: str) -> None:
    cv2 = pytest.importorskip("cv2", reason=PEER)
    image = images[frame]
    benchmark(by_opencv, cv2, image, np.empty_like(image), np.empty(image.shape[:2], np.uint8))


@pytest.mark.benchmark(group="core_roi")
def bench_core_roi(benchmark: BenchmarkFixture, images: dict[str, Bytes]) -> None:
    image = images["liner"][:2000]
    out = np.empty(image.shape[:2], np.bool_)
    roi = benchmark(core_roi, image, crack_px=75, min_piece_px=250, out=out)
    benchmark.extra_info["bytes"] = image.nbytes + out.nbytes
    assert roi.mask is out and 0.5 < out.mean() < 1


@pytest.mark.benchmark(group="core_roi")
def bench_core_roi_peer_opencv(benchmark: BenchmarkFixture, images: dict[str, Bytes]) -> None:
    """A mask cleaned by opening and its largest component: less than `core_roi` decides, and the usual way."""
    cv2 = pytest.importorskip("cv2", reason=PEER)
    image = images["liner"][:2000]
    hsv, mask, square = np.empty_like(image), np.empty(image.shape[:2], np.uint8), np.ones((5, 5), np.uint8)

    def largest() -> None:
        by_opencv(cv2, image, hsv, mask)
        cv2.morphologyEx(mask, cv2.MORPH_OPEN, square, dst=mask)
        cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)

    benchmark(largest)
