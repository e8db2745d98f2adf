"""A run whose superpixels are refined by masks: here by a stand-in that finds what is of one colour."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import tifffile

from lithostream.engine.bundle import Bundle, SegmenterGraphs, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.segmenter.masks import Limits, MaskSet, no_masks, suppress
from lithostream.engine.core.synthetic import SyntheticCore
from lithostream.engine.core.tables import floats_of
from lithostream.engine.manifest import SegmenterInput
from lithostream.engine.stream import runner, workshop

SIDE = 128
TABLES = ("intervals.parquet", "tiles.parquet", "segments.parquet", "segments.tif", "minerals.png")


class OneColour:
    """Gives for each point the part of the view that is of its colour."""

    view_px, backend = SIDE, "one colour"

    def __init__(self, _bundle: Bundle, *, gpu: bool = False) -> None:
        pass

    def masks(
        self,
        view: npt.NDArray[np.uint8],
        points: npt.NDArray[np.float32],
        boxes: object = None,
        *,
        valid: tuple[int, int],
    ) -> MaskSet:
        cells = view.reshape(SIDE // 4, 4, SIDE // 4, 4, 3).astype(np.float32).mean(axis=(1, 3))
        if not len(points):
            return no_masks(SIDE // 4)
        at = (points / 4).astype(int)
        gap = np.abs(cells[None] - cells[at[:, 1], at[:, 0]][:, None, None]).max(axis=3)
        logits = (12.0 - gap).astype(np.float32)
        logits[:, valid[0] // 4 :], logits[:, :, valid[1] // 4 :] = -100, -100
        found = logits.max(axis=(1, 2)) > 0
        ones = np.full(found.sum(), 0.9, np.float32)
        return suppress(
            MaskSet(logits[found], ones, ones, points[found], np.flatnonzero(found)), Limits(0.5, 0.5)
        )


@pytest.fixture
def with_masks(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    bundle = replace(load_bundle(bundle_path), segmenter=SegmenterGraphs(b"", b""))
    monkeypatch.setattr(workshop, "load_bundle", lambda _path: bundle)
    monkeypatch.setattr(workshop, "Segmenter", OneColour)


def run(image: Path, out: Path, settings: RunSettings) -> tuple[Path, list[str]]:
    record = runner.run([image], Path("bundle"), out, settings, lambda *_: None)
    assert not record.quarantined
    entry = record.sections[0]
    assert str(entry["backend"]).endswith("; segmenter one colour") == bool(settings.refine)
    notes = entry["notes"]
    assert isinstance(notes, list)
    return out / str(entry["folder"]), notes


@pytest.mark.usefixtures("with_masks")
def test_objects_are_segments_across_windows(core: SyntheticCore, core_image: Path, tmp_path: Path) -> None:
    plain, said = run(core_image, tmp_path / "plain", RunSettings(refine=False))
    refined, silent = run(core_image, tmp_path / "refined", RunSettings(refine=True))
    assert [note for note in said if "superpixels alone: refine is off" in note]
    assert not [note for note in silent if "superpixels alone" in note]
    before, after = (pq.read_table(folder / "segments.parquet") for folder in (plain, refined))
    assert len(after) < 0.5 * len(before)
    assert floats_of(after, "area_px").sum() == floats_of(before, "area_px").sum()
    length = floats_of(after, "base_cm") - floats_of(after, "top_cm")
    assert length.max() > 8.0 >= (floats_of(before, "base_cm") - floats_of(before, "top_cm")).max()
    labels = tifffile.imread(refined / "segments.tif")
    area_px = np.bincount(labels.ravel(), minlength=len(after) + 1)[1:]
    assert np.array_equal(area_px, after["area_px"].to_numpy())
    assert np.array_equal(labels > 0, tifffile.imread(plain / "segments.tif") > 0)
    # An object may be longer than an interval, whose minerals are those of its superpixels all the same.
    assert pq.read_table(refined / "intervals.parquet").equals(pq.read_table(plain / "intervals.parquet"))
    solids = floats_of(after, "quartz_vol_pct")
    assert np.isfinite(solids).any() and not np.array_equal(solids, floats_of(before, "quartz_vol_pct"))


@pytest.mark.usefixtures("with_masks")
def test_a_bundle_says_whether_its_segmenter_serves_unasked(
    core_image: Path, tmp_path: Path, bundle_path: Path
) -> None:
    shipped = load_bundle(bundle_path)
    assert shipped.segmenter is not None and not shipped.refines(RunSettings())
    _, said = run(core_image, tmp_path / "unasked", RunSettings())
    assert [note for note in said if "serves where refine is on" in note]
    stated = SegmenterInput(
        architecture="vit_b",
        view_px=SIDE,
        min_quality=0.5,
        min_stability=0.5,
        golden_iou=0.9,
        golden_quality=0.1,
    )
    trusted = replace(shipped, manifest=shipped.manifest.model_copy(update={"segmenter": stated}))
    assert trusted.refines(RunSettings()) and not trusted.refines(RunSettings(refine=False))
    assert not trusted.refines(RunSettings(segments=False))


@pytest.mark.usefixtures("with_masks")
@pytest.mark.parametrize("changed", [{"slab_rows": 7}, {"slab_rows": 100_000}, {"threads": 5}])
def test_same_input_same_bytes(core_image: Path, tmp_path: Path, changed: dict[str, int]) -> None:
    first, _ = run(core_image, tmp_path / "a", RunSettings(threads=1, refine=True))
    settings = RunSettings.model_validate({"threads": 1, "refine": True, **changed})
    second, _ = run(core_image, tmp_path / "b", settings)
    for name in TABLES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
