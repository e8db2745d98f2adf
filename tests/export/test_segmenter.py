import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra 'train'")
pytest.importorskip("segment_anything", reason="export needs the extra 'train'")

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from lithostream.engine.bundle import MANIFEST, SEGMENTER_FILES, Bundle, SegmenterGraphs, load_bundle
from lithostream.engine.core.segmenter import MaskSet, Segmenter
from lithostream.engine.errors import BundleError
from lithostream.engine.graph_size import _letters
from lithostream.engine.inference.segmenter import PROMPTS, SegmenterSession
from lithostream.export.segmenter import (
    SegmenterExport,
    export_segmenter,
    gate_points,
    gate_views,
    mask_iou,
    package_masks,
    stated_segmenter,
    store_fp16,
    to_graphs,
)
from lithostream.kernels.errors import ContractError

SIDE, CHANNELS = 128, 32

Floats = npt.NDArray[np.float32]
Graphs = tuple[onnx.ModelProto, onnx.ModelProto]
Change = Callable[[bytes], bytes]


class Encoder(nn.Module):  # type: ignore[misc]  # torch is optional for type checking
    img_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, CHANNELS, 5, 4, 2))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image) * 3


@pytest.fixture(scope="module")
def sam() -> Sam:
    torch.manual_seed(3)
    grid = SIDE // 16
    transformer = TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=64, num_heads=4)
    return Sam(
        Encoder(),
        PromptEncoder(CHANNELS, (grid, grid), (SIDE, SIDE), mask_in_chans=4),
        MaskDecoder(transformer_dim=CHANNELS, transformer=transformer, iou_head_hidden_dim=32),
    ).eval()


@pytest.fixture(scope="module")
def graphs(sam: Sam) -> Graphs:
    return to_graphs(sam)


@pytest.fixture(scope="module")
def made(sam: Sam) -> SegmenterExport:
    return export_segmenter(sam)


@pytest.fixture(scope="module")
def with_segmenter(bundle_path: Path, sam: Sam, made: SegmenterExport, tmp_path_factory: pytest.TempPathFactory) -> Path:  # fmt: skip
    folder = tmp_path_factory.mktemp("segmenter") / "bundle"
    shutil.copytree(bundle_path, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["segmenter"] = stated_segmenter(sam).model_dump()
    for name, content in zip(SEGMENTER_FILES, (made.encoder, made.decoder), strict=True):
        (folder / name).write_bytes(content)
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def in_float32(with_segmenter: Path, graphs: Graphs) -> SegmenterSession:
    encoder, decoder = (graph.SerializeToString() for graph in graphs)
    bundle = dataclasses.replace(load_bundle(with_segmenter), segmenter=SegmenterGraphs(encoder, decoder))
    return SegmenterSession(bundle, threads=1)


def prompts(rng: np.random.Generator, count: int = PROMPTS) -> tuple[Floats, Floats]:
    points = rng.uniform(0, SIDE, (count, 2)).astype(np.float32)
    reach = rng.uniform(3, 40, (count, 2)).astype(np.float32)
    return points, np.concatenate([points - reach, points + reach], axis=1)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("valid", [(SIDE, SIDE), (SIDE, 77), (50, SIDE)])
def test_masks_are_those_of_the_package(
    sam: Sam, in_float32: SegmenterSession, rng: np.random.Generator, valid: tuple[int, int], boxed: bool
) -> None:
    view = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    points, boxes = prompts(rng)
    wanted = package_masks(sam, view[: valid[0], : valid[1]], points, boxes if boxed else None)
    in_float32.encode(view, valid)
    logits, quality = in_float32.decode(points, boxes if boxed else None)
    np.testing.assert_allclose(logits, wanted[0], atol=1e-5 * float(np.ptp(wanted[0])))
    np.testing.assert_allclose(quality, wanted[1], atol=1e-5)
    assert mask_iou(logits, wanted[0]).min() >= 0.99
    assert 0.01 < (wanted[0] > 0).mean() < 0.99


def test_points_and_boxes_may_stand_in_one_call(
    in_float32: SegmenterSession, rng: np.random.Generator
) -> None:
    in_float32.encode(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (SIDE, SIDE))
    points, boxes = prompts(rng)
    alone, boxed = (in_float32.decode(points, given)[0] for given in (None, boxes))
    boxes[::2] = 0
    mixed = in_float32.decode(points, boxes)[0]
    np.testing.assert_array_equal(mixed[::2], alone[::2])
    np.testing.assert_array_equal(mixed[1::2], boxed[1::2])
    assert np.abs(alone - boxed).max() > 1e-3


def test_a_prompt_gives_the_same_whatever_stands_beside_it(
    in_float32: SegmenterSession, rng: np.random.Generator
) -> None:
    in_float32.encode(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), (SIDE, SIDE))
    points, _ = prompts(rng)
    logits, quality = in_float32.decode(points, None)
    order = rng.permutation(PROMPTS)[:5]
    some = in_float32.decode(points[order], None)
    np.testing.assert_array_equal(some[0], logits[order])
    np.testing.assert_array_equal(some[1], quality[order])


def test_what_is_stored_is_half_and_close(graphs: Graphs, made: SegmenterExport) -> None:
    whole = [len(graph.SerializeToString()) for graph in graphs]
    assert len(made.encoder) + len(made.decoder) < 0.75 * sum(whole)
    assert made.parity < 1e-5
    assert made.mean_iou >= 0.99
    large = [
        t for t in onnx.load_model_from_string(made.decoder).graph.initializer if np.prod(t.dims) >= 1024
    ]
    assert {t.data_type for t in large} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    for trace in (b".py", b"/work", b"/tmp", b"site-packages", b"torch"):
        assert trace not in made.encoder + made.decoder


def test_weights_that_fp16_cannot_hold_are_named_and_may_stay(
    graphs: Graphs,
) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(graphs[1])
    tensor = next(t for t in graph.graph.initializer if t.data_type == 1 and np.prod(t.dims) >= 1024)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = 1e6
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(BundleError, match="beyond what fp16 holds") as caught:
        store_fp16(graph)
    assert caught.value.place == tensor.name
    kept = store_fp16(graph, keep=[tensor.name])
    assert {t.name: t.data_type for t in kept.graph.initializer}[tensor.name] == 1


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
    points = prompts(rng, 3 * PROMPTS + 5)[0]
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
    with_segmenter: Path, tmp_path: Path, change: Change, place: int
) -> None:
    folder = shutil.copytree(with_segmenter, tmp_path / "bundle")
    file = folder / SEGMENTER_FILES[place]
    file.write_bytes(change(file.read_bytes()))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert caught.value.file == str(file)


def test_an_altered_graph_is_refused(with_segmenter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(with_segmenter, tmp_path / "bundle")
    (folder / SEGMENTER_FILES[1]).write_bytes(b"")
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(folder)


def test_the_manifest_says_nothing_of_a_segmenter_that_is_not_there(bundle_path: Path) -> None:
    bundle: Bundle = load_bundle(bundle_path)
    assert "segmenter" not in bundle.manifest.model_dump(mode="json")


def test_more_weights_than_protobuf_holds_are_refused(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lithostream.export.segmenter.MAX_SEGMENTER_BYTES", 1000)
    with pytest.raises(BundleError, match="protobuf"):
        to_graphs(sam)


def test_masks_that_differ_from_the_package_are_refused(
    sam: Sam, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lithostream.export.segmenter.to_graphs", lambda _: graphs)
    monkeypatch.setattr("lithostream.export.segmenter.PARITY", 1e-12)
    with pytest.raises(BundleError, match="differs from the package"):
        export_segmenter(sam, gate_views(SIDE)[:1])
    assert gate_points(SIDE).shape == (36, 2)


def test_a_vision_transformer_goes_the_same_way(rng: np.random.Generator) -> None:
    torch.manual_seed(5)
    encoder = ImageEncoderViT(
        img_size=64, embed_dim=32, depth=2, num_heads=2, out_chans=CHANNELS, use_rel_pos=True,
        window_size=3, global_attn_indexes=(1,), norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    for block in encoder.blocks:  # as trained: the package starts them at 0
        nn.init.normal_(block.attn.rel_pos_h)
        nn.init.normal_(block.attn.rel_pos_w)
    transformer = TwoWayTransformer(depth=2, embedding_dim=CHANNELS, mlp_dim=64, num_heads=4)
    decoder = MaskDecoder(transformer_dim=CHANNELS, transformer=transformer, iou_head_hidden_dim=32)
    sam = Sam(encoder, PromptEncoder(CHANNELS, (4, 4), (64, 64), mask_in_chans=4), decoder)
    made = export_segmenter(sam, rng.integers(0, 256, (1, 64, 64, 3), np.uint8))
    assert made.parity < 1e-5 and made.mean_iou >= 0.99


def test_products_of_letters_are_counted() -> None:
    assert _letters("bhwc, hkc -> bhwk", [(2, 3, 4, 5), (3, 6, 5)]) == 2 * 3 * 4 * 5 * 6
    assert _letters("...c,kc->...k", [(2, 3, 5), (6, 5)]) == 30 * 30
