"""What is asked of a scene, and the masks that answer it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.training.segmenter.fields import Bools, Random
from lithostream.training.segmenter.scenes import Scene

MASK_STRIDE = 4
PART_CHANCE = 0.4  # where a point is on a part, the part is meant so often


class Prompts(NamedTuple):
    """P prompts of one scene of edge S.

    Attributes
    ----------
    points : float32 [P, 2]
        x, y in px. A box has its object's point too, which is not used.
    boxes : float32 [P, 4]
        x0, y0, x1, y1 in px.
    is_box : bool [P]
    masks : float32 [P, S / 4, S / 4]
        Share of the pixels under a mask pixel that are the object; all 0 where the point is on none.
    """

    points: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    is_box: Bools
    masks: npt.NDArray[np.float32]


def draw_prompts(rng: Random, scene: Scene, count: int, boxes: float, nowhere: float) -> Prompts:
    """Draw points inside of objects, each as likely as the root of its area, and boxes around them.

    Parameters
    ----------
    rng : Generator
    scene : Scene
    count : int
        P.
    boxes, nowhere : float
        As in `SegmenterConfig`.
    """
    pixels = [np.bincount(label.ravel()) for label in (scene.whole, scene.part)]
    drawn = [_one(rng, scene, pixels, nowhere) for _ in range(count)]
    points = np.array([(x, y) for x, y, _ in drawn], np.float32)
    inside = np.stack([mask for _, _, mask in drawn])
    has = inside.any(axis=(1, 2))
    found = np.stack([_box(rng, mask) for mask in inside])
    return Prompts(points, found, has & (rng.random(count) < boxes), _shares(inside))


def _one(
    rng: Random, scene: Scene, pixels: list[npt.NDArray[np.int64]], nowhere: float
) -> tuple[int, int, Bools]:
    whole, part = pixels
    if len(whole) == 1 or (rng.random() < nowhere and whole[0]):
        return *_pixel(rng, scene.whole == 0), np.zeros(scene.whole.shape, np.bool_)
    of_part = len(part) > 1 and rng.random() < PART_CHANCE
    label, counted = (scene.part, part) if of_part else (scene.whole, whole)
    share = np.sqrt(counted)
    share[0] = 0
    inside = label == rng.choice(len(share), p=share / share.sum())
    return *_pixel(rng, inside), inside


def _shares(inside: Bools) -> npt.NDArray[np.float32]:
    """Share of each square of `MASK_STRIDE` px, float32 [P, S / 4, S / 4]."""
    count, size, _ = inside.shape
    cells = inside.view(np.uint8).reshape(count, size // MASK_STRIDE, MASK_STRIDE, size)
    rows = cells[:, :, 0] + cells[:, :, 1] + cells[:, :, 2] + cells[:, :, 3]
    cells = rows.reshape(count, size // MASK_STRIDE, size // MASK_STRIDE, MASK_STRIDE)
    return np.asarray(cells.sum(axis=3, dtype=np.uint8) / np.float32(MASK_STRIDE**2), np.float32)


def _pixel(rng: Random, inside: Bools) -> tuple[int, int]:
    """Draw x and y of a pixel."""
    places = np.flatnonzero(inside)
    at = int(places[rng.integers(len(places))])
    return at % inside.shape[1], at // inside.shape[1]


def _box(rng: Random, inside: Bools) -> npt.NDArray[np.float32]:
    """Box around an object, each side shaken by up to a tenth of its length and 20 px, as in the paper."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return np.zeros(4, np.float32)
    box = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float64)
    sides = np.tile(box[2:] - box[:2], 2)
    shaken = box + (0.1 * sides * rng.standard_normal(4)).clip(-20, 20)
    return np.asarray(shaken.clip(0, len(inside) - 1), np.float32)


def mask_iou(found: Bools, wanted: Bools) -> npt.NDArray[np.float64]:
    """Intersection over union of masks, over the last two axes; 0 where both are empty."""
    both = (found & wanted).sum(axis=(-2, -1))
    return np.asarray(both / np.maximum((found | wanted).sum(axis=(-2, -1)), 1), np.float64)
