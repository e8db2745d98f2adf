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
    drawn = [_one(rng, scene, nowhere) for _ in range(count)]
    points = np.array([(x, y) for x, y, _ in drawn], np.float32)
    inside = np.stack([mask for _, _, mask in drawn])
    has = inside.any(axis=(1, 2))
    found = np.stack([_box(rng, mask) for mask in inside])
    size = len(scene.rgb) // MASK_STRIDE
    shares = inside.reshape(count, size, MASK_STRIDE, size, MASK_STRIDE).mean(axis=(2, 4), dtype=np.float32)
    return Prompts(points, found, has & (rng.random(count) < boxes), shares)


def _one(rng: Random, scene: Scene, nowhere: float) -> tuple[int, int, Bools]:
    gap = scene.whole == 0
    if not scene.whole.any() or (rng.random() < nowhere and gap.any()):
        return *_pixel(rng, gap), np.zeros(gap.shape, np.bool_)
    label = scene.part if scene.part.any() and rng.random() < PART_CHANCE else scene.whole
    pixels = np.bincount(label.ravel())
    pixels[0] = 0
    share = np.sqrt(pixels)
    inside = label == rng.choice(len(share), p=share / share.sum())
    return *_pixel(rng, inside), inside


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
