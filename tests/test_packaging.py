"""What a wheel holds: the four parts, their data, the native module, and nothing else."""

import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = (".csv", ".css", ".json", ".onnx", ".safetensors", ".toml", ".h", ".cu", ".pyi", "py.typed")
MADE = ("lithostream/kernels/_native.", "/cuda.fatbin")  # by the compilers


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run([*command, f"-Cbuild-dir={out / 'build'}"], check=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path).namelist()


def test_wheel_holds_every_module_and_data_file(wheel: list[str]) -> None:
    expected = {
        f"lithostream/{path.relative_to(ROOT)}"
        for part in ("engine", "kernels", "training", "export")
        for path in (ROOT / part).rglob("*")
        if path.is_file() and path.name.endswith((".py", *DATA))
    }
    assert expected <= set(wheel)


def test_wheel_holds_nothing_else(wheel: list[str]) -> None:
    for name in wheel:
        top = name.split("/")[0]
        made = name.startswith(MADE[0]) or name.endswith(MADE[1])
        known = name.endswith((".py", *DATA)) or made or top.endswith(".dist-info")
        assert top in {"lithostream"} or top.endswith(".dist-info"), name
        assert known, name
        assert not name.startswith(("lithostream/tests", "lithostream/bench")), name
    assert any(name.startswith("lithostream/kernels/_native.") for name in wheel)
    assert "lithostream/__init__.py" not in wheel  # a namespace: no part owns it


def test_shipped_bundle_is_small() -> None:
    bundle = ROOT / "engine" / "demo_bundle"
    assert 0 < sum(path.stat().st_size for path in bundle.iterdir()) <= 8 << 20


def test_base_install_is_without_torch() -> None:
    base = [line for line in requires("lithostream") or [] if "extra ==" not in line]
    assert base
    assert not [line for line in base if line.startswith(("torch", "onnxruntime", "cupy"))]
