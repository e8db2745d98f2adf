"""Golden cases of a segmenter: no session serves that misses them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load, save
from typer.testing import CliRunner

pytest.importorskip("torch", reason="export needs the extra 'train'")
pytest.importorskip("segment_anything", reason="export needs the extra 'train'")

from segment_anything.modeling import Sam

from lithostream.engine.bundle import MANIFEST, SEGMENTER_FILES, SEGMENTER_GOLDEN, load_bundle
from lithostream.engine.cli import app
from lithostream.engine.errors import BundleError
from lithostream.engine.inference.segmenter import SegmenterSession
from lithostream.engine.segmenter_golden import SegmenterGolden
from lithostream.export.bundle import export_bundle
from lithostream.export.segmenter import SegmenterExport
from lithostream.export.segmenter_masks import package_masks
from lithostream.training.models.small_sam import small_sam
from lithostream.training.segmenter.checkpoint import save as save_sam

SIDE = 128

Seal = Callable[[Path, dict[str, Any]], None]
Tensors = dict[str, Any]


@pytest.fixture
def golden(made: SegmenterExport) -> SegmenterGolden:
    return SegmenterGolden.from_bytes(made.golden, SIDE)


def test_they_are_what_the_package_gives_in_float32(sam: Sam, golden: SegmenterGolden) -> None:
    assert golden.windows.shape == (2, 128, 96, 3) and golden.windows.std() > 10
    boxed = golden.boxes[..., 2] > golden.boxes[..., 0]
    assert boxed[:, 8:].all() and not golden.boxes[:, :8].any()
    for window, points, boxes, masks, quality in zip(*golden, strict=True):
        for asked, given in ((slice(0, 8), None), (slice(8, 16), boxes[8:])):
            logits, wanted = package_masks(sam, window, points[asked], given)
            np.testing.assert_allclose(quality[asked], wanted, atol=1e-5)
            assert ((logits[..., :32, :24] > 0) == masks[asked]).mean() > 0.999
    assert 0.01 < golden.masks.mean() < 0.99


def test_they_are_small_and_come_back_as_they_went(made: SegmenterExport, golden: SegmenterGolden) -> None:
    assert len(made.golden) < 100_000
    again = SegmenterGolden.from_bytes(golden.to_bytes(), SIDE)
    for one, two in zip(golden, again, strict=True):
        np.testing.assert_array_equal(one, two)


def weight_scaled(content: bytes, factor: float) -> bytes:
    model = onnx.load_model_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(tensor) * np.float16(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model.SerializeToString()  # type: ignore[no-any-return]


@pytest.mark.parametrize("place", [0, 1])
def test_a_graph_with_other_weights_does_not_serve(copy: Path, seal: Seal, place: int) -> None:
    file = copy / SEGMENTER_FILES[place]
    file.write_bytes(weight_scaled(file.read_bytes(), 1.25))
    seal(copy, {})
    bundle = load_bundle(copy)  # whole, by its checksums
    with pytest.raises(BundleError, match=r"misses the segmenter's golden cases: .* mean IoU of 0\.\d+"):
        SegmenterSession(bundle, threads=1)


def other_masks(held: Tensors) -> None:
    held["masks"] = ~held["masks"]


def other_quality(held: Tensors) -> None:
    held["quality"][1, 3, 2] += 0.1


@pytest.mark.parametrize("change", [other_masks, other_quality])
def test_other_golden_values_are_missed(copy: Path, seal: Seal, change: Callable[[Tensors], None]) -> None:
    file = copy / SEGMENTER_GOLDEN
    held = load(file.read_bytes())
    change(held)
    file.write_bytes(save(held))
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
    seal(copy, {})
    with pytest.raises(BundleError, match="misses the segmenter's golden cases"):
        SegmenterSession(load_bundle(copy), threads=1)


def without_boxes(held: Tensors) -> None:
    del held["boxes"]


def no_prompts(held: Tensors) -> None:
    for name in ("points", "boxes", "masks", "quality"):
        held[name] = held[name][:, :0]


def too_many_windows(held: Tensors) -> None:
    for name in held:
        held[name] = np.repeat(held[name], 9, axis=0)


def half_a_cell(held: Tensors) -> None:
    held["windows"] = held["windows"][:, :127]


def no_number(held: Tensors) -> None:
    held["quality"][0, 0, 0] = np.nan


def another_type(held: Tensors) -> None:
    held["points"] = held["points"].astype(np.float64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_boxes, "holds"),
        (no_prompts, "0 prompts"),
        (too_many_windows, "18 windows"),
        (half_a_cell, "127 x 96"),
        (no_number, "quality are not finite"),
        (another_type, "points are float64"),
    ],
)
def test_golden_cases_of_another_form_are_refused(
    copy: Path, seal: Seal, change: Callable[[Tensors], None], reason: str
) -> None:
    file = copy / SEGMENTER_GOLDEN
    held = {name: value.copy() for name, value in load(file.read_bytes()).items()}
    change(held)
    file.write_bytes(save({name: np.ascontiguousarray(value) for name, value in held.items()}))
    seal(copy, {})
    with pytest.raises(BundleError, match=reason) as caught:
        load_bundle(copy)
    assert caught.value.file == str(file)


def test_golden_cases_that_are_gone_are_missed(copy: Path) -> None:
    (copy / SEGMENTER_GOLDEN).unlink()
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(copy)
    (copy / SEGMENTER_GOLDEN).write_bytes(b"\x00" * 40)
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["files"][SEGMENTER_GOLDEN]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="the manifest says None"):
        load_bundle(copy)


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not a safetensors file"):
        SegmenterGolden.from_bytes(b"\x00" * 40, SIDE)


def test_export_and_verify_go_through_them(checkpoint: Path, seal: Seal, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    save_sam(tmp_path / "sam", small_sam(), "small", {})
    bundle = export_bundle(checkpoint, tmp_path / "bundle", segmenter=tmp_path / "sam")
    assert json.loads((bundle / MANIFEST).read_text())["files"][SEGMENTER_GOLDEN]
    assert CliRunner().invoke(app, ["verify", str(bundle)]).exit_code == 0
    held = load((bundle / SEGMENTER_GOLDEN).read_bytes())
    held["masks"] = ~held["masks"]
    (bundle / SEGMENTER_GOLDEN).write_bytes(save(held))
    seal(bundle, {})
    refused = CliRunner().invoke(app, ["verify", str(bundle)])
    assert isinstance(refused.exception, BundleError)
    assert "misses the segmenter's golden cases" in str(refused.exception)
