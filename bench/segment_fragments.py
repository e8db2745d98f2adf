"""Panoptic quality of segments on a photographed box of core whose fragments were outlined by hand, beside SLIC + merging.

    python bench/segment_fragments.py LABELS.json IMAGE.jpg --bundle B      # both scores
    python bench/segment_fragments.py LABELS.json IMAGE.jpg                 # without ours

Labels are polygons as Labelbox writes them (`label_reference_width_px`, `label`: {"Rock_Fragment": [{"geometry": [{"x", "y"}]}]}).
The box is taken as 1 m long, cores run along x, windows are 30 cm, core is what the rule `box` says.

The peer is SLIC at its best number of superpixels, merged at its best threshold, both best by the score itself on this
image: more than any user could choose. Background is judged as `engine/core/panoptic.py` says, for both alike;
`--reading strict` counts segments on background as inventions, `--reading void` takes background as unknown, which
forgives segments that spill into it. The line of the true masks, the polygons at 128 px, is the most that refinement can reach.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from lithostream.engine.bundle import load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.panoptic import PanopticQuality, panoptic_quality
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.core.segmenter.join import Seam, match, number, seam
from lithostream.engine.core.segmenter.masks import MaskSet, no_masks
from lithostream.engine.core.segmenter.merge import merge
from lithostream.engine.core.segmenter.objects import find_objects
from lithostream.engine.core.segmenter.refine import refine
from lithostream.engine.core.segmenter.stage import view_masks
from lithostream.engine.core.segmenter.view import View, halo_rows, make_view
from lithostream.kernels import core_roi, segment_stats, slic

BOX_CM, WINDOW_CM, SIDE = 100.0, 30.0, 512
PEER_COUNTS = (30, 60, 120, 250, 500, 1000, 2000, 4000)
PEER_THRESHOLDS = (-1.0, 3, 5, 7, 9, 11, 13, 15, 18, 21, 25, 30, 35, 40, 50, 60, 80)

Labels = npt.NDArray[np.int32]
MaskSource = Callable[[View, slice], MaskSet]


class Photo(NamedTuple):
    """A box with its rows running down-core: uint8 [H, W, 3], bool [H, W], int32 [H, W], px/cm."""

    rgb: npt.NDArray[np.uint8]
    core: npt.NDArray[np.bool_]
    truth: Labels
    px_per_cm: float


def read(labels: Path, image: Path) -> Photo:
    """Read a photo and rasterise its fragments, the later over the earlier where they overlap."""
    with Image.open(image) as opened:
        rgb = np.ascontiguousarray(np.asarray(opened.convert("RGB")).transpose(1, 0, 2))
    truth = polygons(labels, rgb.shape[0], rgb.shape[1])
    px = len(rgb) / BOX_CM
    found = core_roi(rgb, rule="box", crack_px=round(0.3 * px), min_piece_px=round(px))
    return Photo(rgb, found.mask, truth, px)


def polygons(labels: Path, length_px: int, width_px: int) -> Labels:
    """Rasterise a file's fragments, int32 [length, width], with x of the polygons running down the rows."""
    held = json.loads(labels.read_text())
    scale = length_px / held["label_reference_width_px"]
    canvas = Image.new("I", (length_px, width_px))
    for index, shape in enumerate(held["label"]["Rock_Fragment"], 1):
        outline = [(point["x"] * scale, point["y"] * scale) for point in shape["geometry"]]
        ImageDraw.Draw(canvas).polygon(outline, fill=index)
    return np.ascontiguousarray(np.asarray(canvas, dtype=np.int32).T)


def peer(photo: Photo, score: Callable[[Labels], PanopticQuality]) -> tuple[PanopticQuality, int, float]:
    """SLIC + merging at the settings that score best: their score, number and threshold."""
    best: tuple[PanopticQuality, int, float] | None = None
    for count in PEER_COUNTS:
        labels = slic(photo.rgb, n_segments=count, compactness=10.0, mask=photo.core)
        stats = segment_stats(labels, photo.rgb)
        for threshold in PEER_THRESHOLDS:
            regions = np.concatenate([[0], merge(labels, stats, threshold=threshold)]).astype(np.int32)
            quality = score(regions[labels])
            if best is None or quality.quality > best[0].quality:
                best = quality, count, threshold
    assert best is not None
    return best


def ours(photo: Photo, masks: MaskSource) -> Labels:
    """Segments of the whole photo, window after window; int32 [H, W]."""
    window_px, height = round(WINDOW_CM * photo.px_per_cm), len(photo.rgb)
    halo = halo_rows(window_px)
    parts: list[Labels] = []
    pairs, counts = [], []
    before: Seam | None = None
    for top, base in itertools.pairwise([*range(0, height, window_px), height]):
        first = max(0, top - halo)
        view = make_view(photo.rgb[first : base + halo], first, window_px, SIDE)
        superpixels = _superpixels(photo, slice(top, base))
        stats = segment_stats(superpixels, photo.rgb[top:base])
        objects = find_objects(masks(view, slice(first, base + halo)), view)
        refined = refine(superpixels, stats, objects, view, top)
        if before is not None:
            pairs.append(match(before, seam(objects, refined, view, top, halo, height)))
        before = seam(objects, refined, view, base, halo, height)
        parts.append(refined.labels)
        counts.append(len(refined.area_px))
    numbers = number(counts, pairs)
    named = [np.concatenate([[0], ids + 1])[part] for ids, part in zip(numbers, parts, strict=True)]
    return np.concatenate(named).astype(np.int32)


def _superpixels(photo: Photo, rows: slice) -> Labels:
    """Superpixels of a window as runs make them."""
    settings = RunSettings()
    rgb, core = photo.rgb[rows], photo.core[rows]
    area = np.count_nonzero(core) / photo.px_per_cm**2
    count = max(1, round(area * settings.superpixels_per_cm2))
    return slic(rgb, n_segments=count, compactness=settings.compactness, mask=core)


def true_masks(photo: Photo) -> MaskSource:
    """Masks of the fragments' polygons."""

    def masks(view: View, rows: slice) -> MaskSet:
        truth, window_px = photo.truth[rows], round(WINDOW_CM * photo.px_per_cm)
        found = []
        for one in np.unique(truth[truth > 0]):
            drawn = np.repeat(np.where(truth == one, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
            shown = make_view(drawn, 0, window_px, SIDE).rgb[..., 0].astype(np.float32)
            found.append(shown.reshape(SIDE // 4, 4, SIDE // 4, 4).mean(axis=(1, 3)) / 16 - 8)
        if not found:
            return no_masks(SIDE // 4)
        count, ones = len(found), np.ones(len(found), np.float32)
        seeds, asked = np.zeros((count, 2), np.float32), np.arange(count, dtype=np.int64)
        return MaskSet(np.stack(found).astype(np.float32), ones, ones, seeds, asked)

    return masks


def bundle_masks(folder: Path) -> MaskSource:
    """Masks of a bundle's segmenter, asked at the middle of the view's regions."""
    segmenter = Segmenter(load_bundle(folder))
    return lambda view, _rows: view_masks(view, segmenter)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--reading", choices=("objects", "strict", "void"), default="objects")
    chosen = parser.parse_args()
    photo = read(chosen.labels, chosen.image)

    def score(labels: Labels) -> PanopticQuality:
        void = photo.truth == 0 if chosen.reading == "void" else None
        return panoptic_quality(photo.truth, labels, void=void, count_background=chosen.reading == "strict")

    best, count, threshold = peer(photo, score)
    print(f"SLIC + merging ({count} superpixels, threshold {threshold:g}): {_text(best)}")
    print(f"refined by the true masks: {_text(score(ours(photo, true_masks(photo))))}")
    if chosen.bundle:
        print(f"refined by the bundle's masks: {_text(score(ours(photo, bundle_masks(chosen.bundle))))}")


def _text(found: PanopticQuality) -> str:
    return (
        f"PQ {found.quality:.3f} = SQ {found.segmentation:.3f} x RQ {found.recognition:.3f},"
        f" {found.matched} matched, {found.missed} missed, {found.invented} invented"
    )


if __name__ == "__main__":
    main()
