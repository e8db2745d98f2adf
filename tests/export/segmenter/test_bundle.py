"""A segmenter in a bundle: opened, asked, and refused where its graphs do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="export needs the extra 'train'")
pytest.importorskip("segment_anything", reason="export needs the extra 'train'")

from lithostream.engine.bundle import SEGMENTER_FILES, load_bundle
from lithostream.engine.core.segmenter import MaskSet, Segmenter
from lithostream.engine.errors import BundleError
from lithostream.engine.inference.segmenter import PROMPTS
from lithostream.export.segmenter_masks import gate_views
from lithostream.kernels.errors import ContractError

SIDE = 128

Seal = Callable[[Path, dict[str, Any]], None]


def test_a_bundle_opens_and_gives_no_mask_for_no_prompt(with_segmenter: Path) -> None:
    segmenter = Segmenter(load_bundle(with_segmenter))
    view = np.zeros((SIDE, SIDE, 3), np.uint8)
    none = segmenter.masks(view, np.zeros((0, 2), np.float32))
    assert none.logits.shape == (0, SIDE // 4, SIDE // 4)
    with pytest.raises(ContractError, match="view"):
        segmenter.masks(view[1:], np.zeros((0, 2), np.float32))
    with pytest.raises(ContractError, match="valid"):
        segmenter.masks(view, np.zeros((0, 2), np.float32), valid=(0, 3))


def test_masks_do_not_depend_on_threads_or_on_other_prompts(
    with_segmenter: Path, rng: np.random.Generator
) -> None:
    bundle = load_bundle(with_segmenter)
    points = rng.uniform(0, SIDE, (3 * PROMPTS + 5, 2)).astype(np.float32)
    view = gate_views(SIDE)[0]
    sets: list[MaskSet] = []
    for threads in (1, 2):
        segmenter = Segmenter(bundle, threads=threads)
        segmenter.limits = segmenter.limits._replace(quality=-9, stability=0, overlap=1)
        sets.append(segmenter.masks(view, points))
    for one, two in zip(*sets, strict=True):
        np.testing.assert_array_equal(one, two)
    assert set(sets[0].prompt.tolist()) <= set(range(len(points))) and len(sets[0].prompt) > PROMPTS
    alone = segmenter.masks(view, points[40:41])
    asked = sets[0].prompt == 40
    np.testing.assert_array_equal(alone.logits, sets[0].logits[asked])
    np.testing.assert_array_equal(sets[0].seed, points[sets[0].prompt])


def test_a_bundle_without_one_says_so(bundle_path: Path) -> None:
    with pytest.raises(BundleError, match="no segmenter"):
        Segmenter(load_bundle(bundle_path))


def test_the_manifest_says_nothing_of_a_segmenter_that_is_not_there(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    assert "segmenter" not in bundle.manifest.model_dump(mode="json")
    assert bundle.segmenter is None and bundle.segmenter_golden is None


def another_input(content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    first = model.graph.input[0]
    first.type.tensor_type.shape.dim[1].dim_value = 72
    return model.SerializeToString()  # type: ignore[no-any-return]


def renamed_output(content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "masks"
    return model.SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize("change", [another_input, renamed_output])
@pytest.mark.parametrize("place", [0, 1])
def test_graphs_that_do_not_fit_are_refused(
    copy: Path, seal: Seal, change: Callable[[bytes], bytes], place: int
) -> None:
    file = copy / SEGMENTER_FILES[place]
    file.write_bytes(change(file.read_bytes()))
    seal(copy, {})
    with pytest.raises(BundleError) as caught:
        load_bundle(copy)
    assert caught.value.file == str(file)


def test_an_altered_graph_is_refused(copy: Path) -> None:
    (copy / SEGMENTER_FILES[1]).write_bytes(b"")
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
