"""The bundle and its session: what is refused before it serves."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from lithostream.engine.bundle import ENDMEMBERS, GOLDEN, MANIFEST, MODEL, load_bundle
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.inference import check_golden, open_session, require_one_runtime
from lithostream.engine.manifest import Domain


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


def seal(bundle: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Write the manifest again with true checksums, so that only the change itself can be at fault."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"] = {
        name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in manifest["files"]
    }
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_the_shipped_bundle_is_whole(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    assert bundle.targets == ("density", "p_wave_velocity", "magnetic_susceptibility")
    assert bundle.manifest.domain.scanners == ("lithostream synthetic",)
    assert bundle.sha256 == hashlib.sha256((bundle_path / MANIFEST).read_bytes()).hexdigest()
    session = open_session(bundle, batch=4, threads=1)
    found, distance = session.infer(bundle.golden_tiles)
    assert np.allclose(found, bundle.golden_properties, rtol=1e-4)
    assert distance.shape == (len(found),) and (distance >= 0).all()
    assert session.infer(bundle.golden_tiles[:0])[0].shape == (0, 3)


@pytest.mark.parametrize("name", [MODEL, ENDMEMBERS, GOLDEN])
def test_one_flipped_bit_is_noticed(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256") as error:
        load_bundle(copy)
    assert error.value.file == str(copy / name)


@pytest.mark.parametrize("name", [MANIFEST, MODEL, ENDMEMBERS, GOLDEN])
def test_a_missing_or_linked_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).rename(copy.parent / name)
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(copy)
    (copy / name).symlink_to(copy.parent / name)
    with pytest.raises(BundleError, match="not a regular file"):
        load_bundle(copy)


def newer(manifest: dict[str, Any]) -> None:
    manifest["schema_version"] = 2


def stranger(manifest: dict[str, Any]) -> None:
    manifest["surprise"] = 1


def wrong_unit(manifest: dict[str, Any]) -> None:
    manifest["outputs"][0]["unit"] = "kg/m3"


def wrong_size(manifest: dict[str, Any]) -> None:
    manifest["input"]["size_px"] = 64


@pytest.mark.parametrize(
    ("change", "words"),
    [(newer, "schema_version"), (stranger, "surprise"), (wrong_unit, "kg/m3"), (wrong_size, "golden tiles")],
)
def test_a_manifest_that_does_not_fit_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    seal(copy, change)
    with pytest.raises(BundleError, match=words):
        load_bundle(copy)


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    opset = model.opset_import.add()
    opset.domain, opset.version = "com.example", 1


def renamed_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "tiles" else name for name in node.input]
    model.graph.input[0].name = "pixels"


@pytest.mark.parametrize("change", [external, custom_operator, renamed_input])
def test_a_foreign_graph_is_refused(copy: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(copy / MODEL)
    change(model)
    (copy / MODEL).write_bytes(model.SerializeToString())
    seal(copy)
    with pytest.raises(BundleError):
        open_session(load_bundle(copy), batch=1, threads=1)


def test_bytes_that_are_no_graph_are_refused(copy: Path) -> None:
    (copy / MODEL).write_bytes(b"\x80\x04not a model")
    seal(copy)
    with pytest.raises(BundleError, match="ONNX"):
        load_bundle(copy)


def test_a_session_that_misses_the_golden_cases_does_not_serve(copy: Path) -> None:
    tensors = load_file(copy / GOLDEN)
    tensors["properties"] = tensors["properties"] + tensors["properties"].std(axis=0) * np.float32(0.01)
    save_file(tensors, copy / GOLDEN)
    seal(copy)
    with pytest.raises(BundleError, match="misses the golden cases"):
        open_session(load_bundle(copy), batch=8, threads=1)


def test_a_session_that_gives_no_numbers_does_not_serve(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)

    class Broken:
        backend = "broken"

        def infer(self, tiles: Any) -> Any:
            return np.full((len(tiles), 3), np.nan, np.float32), np.zeros(len(tiles), np.float32)

    with pytest.raises(BundleError, match="misses the golden cases"):
        check_golden(Broken(), bundle)


def test_runtimes_that_overwrite_each_other_are_refused() -> None:
    require_one_runtime({"onnxruntime", "numpy"})
    with pytest.raises(BackendError, match="no inference runtime"):
        require_one_runtime({"numpy"})
    with pytest.raises(BackendError, match="both installed"):
        require_one_runtime({"onnxruntime", "onnxruntime-gpu"})


def test_domain_admits_its_scanners_and_scales_only() -> None:
    domain = Domain(description="x", scanners=("ours", "unspecified"), px_per_cm=(10, 20), distance_limit=1)
    assert domain.admits("ours", 10) and domain.admits(None, 20)
    assert not domain.admits("theirs", 15)
    assert not domain.admits("ours", 20.1)
