"""Checkpoints of Segment Anything: read without running code, refused where they do not fit."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("segment_anything", reason="needs the extra [train]")

from safetensors.torch import load_file, save_file

from lithostream.engine.errors import BundleError
from lithostream.training.models.small_sam import small_sam
from lithostream.training.segmenter.checkpoint import load_sam, save


@pytest.mark.parametrize("change", ["missing", "lacks", "also holds", "needs", "finite"])
def test_a_wrong_checkpoint_is_refused(tmp_path: Path, change: str) -> None:
    save(tmp_path, small_sam(), "small", {})
    file = tmp_path / "segmenter.safetensors"
    weights, name = load_file(file), "mask_decoder.iou_token.weight"
    reason = change
    if change == "missing":
        file.unlink()
        reason = "cannot be read|is damaged|No such file"
    elif change == "lacks":
        del weights[name]
    elif change == "also holds":
        weights["other"] = torch.zeros(1)
    elif change == "needs":
        weights[name] = torch.zeros(1, 256)
    else:
        weights[name][0, 0] = float("nan")
    if change != "missing":
        save_file(weights, file)
    with pytest.raises(BundleError, match=reason) as refused:
        load_sam(tmp_path)
    assert refused.value.fix


def test_files_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    code, plain, damaged = (tmp_path / f"sam_vit_b_{name}.pth" for name in ("code", "plain", "damaged"))
    torch.save({"model": Path("x")}, code)
    torch.save([1, 2], plain)
    damaged.write_bytes(b"\x00" * 40)
    for file, reason in ((code, "never run"), (plain, "table of tensors"), (damaged, "damaged")):
        with pytest.raises(BundleError, match=reason):
            load_sam(file)
    with pytest.raises(BundleError, match="which network"):
        load_sam(tmp_path / "weights.pth")
    (tmp_path / "segmenter.json").write_text('{"architecture": "vit_x"}')
    with pytest.raises(BundleError, match="vit_x"):
        load_sam(tmp_path)
    (tmp_path / "segmenter.json").write_text("{}")
    with pytest.raises(BundleError, match="cannot be read"):
        load_sam(tmp_path)


def test_a_file_of_pickled_tensors_is_read(tmp_path: Path) -> None:
    sam, file = small_sam(), tmp_path / "small.pth"
    torch.save(sam.state_dict(), file)
    found = load_sam(file)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in sam.state_dict().items())
    assert not found.training
