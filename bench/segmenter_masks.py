"""Masks of the stage beside those of `SamAutomaticMaskGenerator`, on the same weights and pixels.

    python bench/segmenter_masks.py CHECKPOINT --scenes 3               # generated, never trained on
    python bench/segmenter_masks.py CHECKPOINT IMAGE.jpg ... --scenes 0
    python bench/segmenter_masks.py CHECKPOINT --scenes 0 --vit-b 3     # its speed beside a ViT-B generator, of 3 pictures
    python bench/segmenter_masks.py CHECKPOINT --scenes 5 --again       # how many of its masks the generator finds again
    python bench/segmenter_masks.py CHECKPOINT --gpu                    # both on a GPU, from pixels that lie there

The generator has its defaults, but for `--quality` and `--stability`, the least values of a mask, which hold for both: a
network trained for an hour is not as sure of itself as the published ones, and gives no mask at 0.88 and 0.95.

CHECKPOINT is what `train segmenter` wrote, or published weights. Images are shrunk to the network's view, so that both
see one view of the same pixels. A mask of the generator is found where one of ours has an IoU of `FOUND` with it, both
at the resolution of the view. `--again` asks the same of the generator itself with `AGAIN` points a side in place of 32:
what it does not find again hangs on where its points happen to lie. Times are of one thread each, in turn, per megapixel of the view; ours goes from pixels
to objects: superpixels, prompts, masks, suppression, hierarchy. The ViT-B has random weights, whose masks nearly all fail
its quality filter before they cost anything more, so real ones take longer; its picture has the 1024 px it works at, of
four scenes, each of which is a view of ours.
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from lithostream.engine.bundle import Bundle, SegmenterGraphs
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.masks import MaskSet
from lithostream.engine.core.segmenter.objects import find_objects
from lithostream.engine.core.segmenter.stage import view_masks
from lithostream.engine.core.segmenter.view import View
from lithostream.engine.segmenter_golden import SegmenterGolden
from lithostream.export.segmenter import export_segmenter, stated_segmenter
from lithostream.training.segmenter.checkpoint import build, load_sam
from lithostream.training.segmenter.evaluate import HELD_OUT
from lithostream.training.segmenter.scenes import scene

FOUND = 0.8
AGAIN = 33
FIRST_SEED = HELD_OUT + 2**21  # neither trained nor scored on, nor golden
BANDS = (0.0, 0.005, 0.05, 0.5, 1.0)  # of the view's area: limits of the sizes that are told apart

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Compared(NamedTuple):
    """One picture.

    Attributes
    ----------
    name : str
    megapixels : float
    seconds, generator_seconds : float
    masks, objects : int
        Ours, before and after the hierarchy is made.
    areas : float64 [K]
        Share of the view of each of the generator's masks.
    best : float64 [K]
        Its IoU with the nearest of ours.
    again : float64 [K]
        Its IoU with the nearest that the generator gives on another grid of points; nothing where that is not asked.
    """

    name: str
    megapixels: float
    seconds: float
    generator_seconds: float
    masks: int
    objects: int
    areas: Floats
    best: Floats
    again: Floats


def open_segmenter(sam: Sam, gpu: bool) -> Segmenter:
    """Export a network and open what would be in a bundle."""
    made = export_segmenter(sam)
    bundle = SimpleNamespace(
        manifest=SimpleNamespace(segmenter=stated_segmenter(sam)),
        path=None,
        segmenter=SegmenterGraphs(made.encoder, made.decoder),
        segmenter_golden=SegmenterGolden.from_bytes(made.golden, sam.image_encoder.img_size),
    )
    return Segmenter(cast(Bundle, bundle), threads=1, gpu=gpu)


def whole_view(rgb: Bytes, segmenter: Segmenter) -> View:
    """View a picture no larger than a view, where the segmenter is."""
    side = segmenter.view_px
    padded = np.zeros((side, side, 3), np.uint8)
    padded[: rgb.shape[0], : rgb.shape[1]] = rgb
    placed = import_module("cupy").asarray(padded) if segmenter.on_gpu else padded
    return View(placed, 0, 1.0, (rgb.shape[0], rgb.shape[1]))


def full_size(masks: MaskSet, valid: tuple[int, int]) -> Bools:
    """Masks bool [M, h, w] of a view at its own resolution, as the package upscales them."""
    if not len(masks.logits):
        return np.zeros((0, *valid), np.bool_)
    logits = torch.nn.functional.interpolate(
        torch.from_numpy(masks.logits)[None], scale_factor=4.0, mode="bilinear", align_corners=False
    )
    return np.ascontiguousarray(logits[0, :, : valid[0], : valid[1]].numpy() > 0)


def best_iou(wanted: Bools, found: Bools) -> Floats:
    """IoU float64 [K] of each wanted mask [K, h, w] with the nearest found [M, h, w]; 0 where there is none."""
    if not len(found):
        return np.zeros(len(wanted))
    one, two = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (wanted, found))
    common = (one @ two.T).astype(np.float64)  # whole numbers below 2^24: exact
    both = one.sum(axis=1)[:, None] + two.sum(axis=1)[None] - common
    best: Floats = (common / np.maximum(both, 1)).max(axis=1)
    return best


def generated(generator: SamAutomaticMaskGenerator, rgb: Bytes) -> Bools:
    """Masks bool [K, h, w] of a generator."""
    masks = [one["segmentation"] for one in generator.generate(rgb)]
    return np.array(masks, np.bool_).reshape(-1, *rgb.shape[:2])


def compare(
    name: str,
    rgb: Bytes,
    segmenter: Segmenter,
    generator: SamAutomaticMaskGenerator,
    another: SamAutomaticMaskGenerator | None,
) -> Compared:
    """Run both on one picture, and the generator once more on another grid."""
    view = whole_view(rgb, segmenter)
    start = perf_counter()
    masks = view_masks(view, segmenter)
    objects = find_objects(masks, view)
    middle = perf_counter()
    wanted = generated(generator, rgb)
    end = perf_counter()
    return Compared(
        name,
        rgb.shape[0] * rgb.shape[1] / 1e6,
        middle - start,
        end - middle,
        len(masks.quality),
        len(objects.parent),
        wanted.mean(axis=(1, 2)),
        best_iou(wanted, full_size(masks, view.valid)),
        np.zeros(0) if another is None else best_iou(wanted, generated(another, rgb)),
    )


def beside_vit_b(segmenter: Segmenter, pictures: int, device: str) -> Iterator[str]:
    """Time ours and a ViT-B generator with its defaults on the same pictures, a line each, then the median ratio."""
    torch.manual_seed(0)
    generator = SamAutomaticMaskGenerator(build("vit_b").eval().to(device))
    side, ratios = segmenter.view_px, []
    for first in range(FIRST_SEED, FIRST_SEED + 4 * pictures, 4):
        scenes = [scene(seed, side).rgb for seed in range(first, first + 4)]
        start = perf_counter()
        for rgb in scenes:
            view = whole_view(rgb, segmenter)
            find_objects(view_masks(view, segmenter), view)
        middle = perf_counter()
        generator.generate(
            np.concatenate([np.concatenate(scenes[:2], axis=1), np.concatenate(scenes[2:], axis=1)])
        )
        end = perf_counter()
        megapixels = 4 * side * side / 1e6
        ours, theirs = (middle - start) / megapixels, (end - middle) / megapixels
        ratios.append(theirs / ours)
        yield f"beside ViT-B: {ours:.2f} and {theirs:.2f} s/Mpx, {ratios[-1]:.1f} times as fast"
    yield f"the median of {pictures}: {np.median(ratios):.1f}"


def table(compared: Sequence[Compared]) -> Iterator[str]:
    """Lines: one a picture, then all of them, then by size."""
    yield f"{'picture':>20} {'generator':>9} {'found':>6} {'masks':>6} {'objects':>7} {'s/Mpx':>7} {'generator':>9} {'ratio':>6}"
    for one in compared:
        times = one.seconds / one.megapixels, one.generator_seconds / one.megapixels
        yield (
            f"{one.name[-20:]:>20} {len(one.best):9d} {_share(one.best):>6} {one.masks:6d} {one.objects:7d}"
            f" {times[0]:7.2f} {times[1]:9.2f} {times[1] / times[0]:6.1f}"
        )
    best, areas = (np.concatenate(part) for part in zip(*((c.best, c.areas) for c in compared), strict=True))
    ratio = np.median([one.generator_seconds / one.seconds for one in compared])
    speed = sum(one.megapixels for one in compared) / sum(one.seconds for one in compared)
    yield f"ours take {speed:.2f} Mpx/s"
    yield f"all: {_share(best)} of {len(best)} found at IoU {FOUND:g}; the median picture {ratio:.1f} times as fast"
    again = np.concatenate([one.again for one in compared])
    if len(again):
        yield f"the generator on a grid of {AGAIN} x {AGAIN} points finds {_share(again)} of its own"
    for low, high in itertools.pairwise(BANDS):
        within = best[(areas > low) & (areas <= high)]
        yield f"of {100 * low:g} to {100 * high:g} % of the view: {_share(within)} of {len(within)}"


def _share(best: Floats) -> str:
    return f"{np.mean(best >= FOUND):.3f}" if len(best) else "-"


def pictures(files: Sequence[Path], scenes: Iterable[int], side: int) -> Iterator[tuple[str, Bytes]]:
    """Names and pixels uint8 [h, w, 3]."""
    for number in scenes:
        yield f"scene {number}", scene(FIRST_SEED + number, side).rgb
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
            image.thumbnail((side, side), Image.Resampling.BOX)
            yield file.name, np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, nargs="*")
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--vit-b", type=int, default=0, help="pictures to time a ViT-B generator on")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--quality", type=float, default=0.88)
    parser.add_argument("--stability", type=float, default=0.95)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if chosen.gpu else "cpu"
    sam = load_sam(chosen.checkpoint)
    segmenter = open_segmenter(sam, chosen.gpu)
    segmenter.limits = segmenter.limits._replace(quality=chosen.quality, stability=chosen.stability)
    limits = {"pred_iou_thresh": chosen.quality, "stability_score_thresh": chosen.stability}
    generator = SamAutomaticMaskGenerator(sam.to(device), **limits)
    another = SamAutomaticMaskGenerator(sam, points_per_side=AGAIN, **limits) if chosen.again else None
    side = segmenter.view_px
    view_masks(whole_view(scene(FIRST_SEED - 1, side).rgb, segmenter), segmenter)  # compiles
    seen = pictures(chosen.images, range(chosen.first, chosen.first + chosen.scenes), side)
    compared = [compare(*one, segmenter, generator, another) for one in seen]
    if compared:
        print(*table(compared), sep="\n")
    if chosen.vit_b:
        for line in beside_vit_b(segmenter, chosen.vit_b, device):
            print(line, flush=True)


if __name__ == "__main__":
    main()
