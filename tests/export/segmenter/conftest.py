"""Two tiny Segment Anythings with random weights, and a bundle that holds one."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from lithostream.engine.bundle import MANIFEST, SEGMENTER_FILES, SEGMENTER_GOLDEN

if TYPE_CHECKING:  # the extra 'train' may be absent
    from onnx import ModelProto
    from segment_anything.modeling import Sam

    from lithostream.export.segmenter import SegmenterExport

SIDE, CHANNELS = 128, 32

Floats = npt.NDArray[np.float32]
Seal = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(scope="session")
def build() -> "Callable[[Any], Sam]":
    """Put the package's own prompt encoder and mask decoder behind an image encoder, of stride 16."""
    torch = pytest.importorskip("torch", reason="export needs the extra 'train'")
    pytest.importorskip("segment_anything", reason="export needs the extra 'train'")
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    def made(encoder: Any) -> "Sam":
        torch.manual_seed(3)
        side = encoder.img_size
        transformer = TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=64, num_heads=4)
        return Sam(
            encoder,
            PromptEncoder(CHANNELS, (side // 16, side // 16), (side, side), mask_in_chans=4),
            MaskDecoder(transformer_dim=CHANNELS, transformer=transformer, iou_head_hidden_dim=32),
        ).eval()

    return made


@pytest.fixture(scope="session")
def sam(build: "Callable[[Any], Sam]") -> "Sam":
    import torch
    from torch import nn

    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, CHANNELS, 5, 4, 2))
    nn.init.normal_(net[2].weight, std=0.15)
    net.img_size = SIDE
    return build(net)


@pytest.fixture(scope="session")
def vit(build: "Callable[[Any], Sam]") -> "Callable[[int], Sam]":
    """Build one whose encoder is the package's own, with relative positions, a windowed and a global block.

    On 512 px its table of relative positions counts as large.
    """

    def made(side: int) -> "Sam":
        import torch
        from segment_anything.modeling import ImageEncoderViT
        from torch import nn

        torch.manual_seed(5)
        encoder = ImageEncoderViT(
            img_size=side, embed_dim=64, depth=2, num_heads=2, out_chans=CHANNELS, use_rel_pos=True,
            window_size=3, global_attn_indexes=(1,), norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )  # fmt: skip
        nn.init.normal_(encoder.pos_embed, std=0.2)  # as trained: the package starts all of them at 0
        for block in encoder.blocks:
            nn.init.normal_(block.attn.rel_pos_h)
            nn.init.normal_(block.attn.rel_pos_w)
        return build(encoder)

    return made


@pytest.fixture(scope="session")
def graphs(sam: "Sam") -> "tuple[ModelProto, ModelProto]":
    from lithostream.export.segmenter import to_graphs

    return to_graphs(sam)


@pytest.fixture(scope="session")
def made(sam: "Sam", graphs: "tuple[ModelProto, ModelProto]") -> "SegmenterExport":
    from lithostream.export import segmenter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "to_graphs", lambda _: graphs)  # to trace takes the time
        return segmenter.export_segmenter(sam)


@pytest.fixture(scope="session")
def add_segmenter(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> "Callable[[Sam, SegmenterExport], Path]":  # fmt: skip
    from lithostream.export.segmenter import stated_segmenter

    def added(sam: "Sam", made: "SegmenterExport") -> Path:
        folder = tmp_path_factory.mktemp("segmenter") / "bundle"
        shutil.copytree(bundle_path, folder)
        files = (*SEGMENTER_FILES, SEGMENTER_GOLDEN)
        for name, content in zip(files, (made.encoder, made.decoder, made.golden), strict=True):
            (folder / name).write_bytes(content)
        sealed(folder, {"segmenter": stated_segmenter(sam).model_dump()})
        return folder

    return added


@pytest.fixture(scope="session")
def with_segmenter(sam: "Sam", made: "SegmenterExport", add_segmenter: "Callable[[Sam, SegmenterExport], Path]") -> Path:  # fmt: skip
    return add_segmenter(sam, made)


@pytest.fixture
def copy(with_segmenter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_segmenter, tmp_path / "bundle"))


def sealed(folder: Path, changes: dict[str, Any]) -> None:
    """Write the manifest again with true checksums, so that only a change itself can be at fault."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    names = {*manifest["files"], *SEGMENTER_FILES, SEGMENTER_GOLDEN}
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def seal() -> Seal:
    return sealed


@pytest.fixture
def prompts(rng: np.random.Generator) -> tuple[Floats, Floats]:
    points = rng.uniform(0, SIDE, (16, 2)).astype(np.float32)
    reach = rng.uniform(3, 40, (16, 2)).astype(np.float32)
    return points, np.concatenate([points - reach, points + reach], axis=1)
