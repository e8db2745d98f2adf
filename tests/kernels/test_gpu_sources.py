"""Every `.cu` compiles for every GPU it is shipped for, ahead of time and at run time, without a GPU."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lithostream.kernels import loader
from lithostream.kernels.errors import BackendUnavailableError

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "kernels"
SOURCES = sorted(KERNELS.glob("*/cuda.cu"))
NVCC = shutil.which("nvcc")


def room(path: Path) -> str:
    return path.parent.name


@pytest.mark.skipif(NVCC is None, reason="ahead-of-time GPU code needs nvcc")
@pytest.mark.parametrize("source", SOURCES, ids=room)
def test_nvcc(source: Path, tmp_path: Path) -> None:
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in loader.BUILT_FOR]
    command = [str(NVCC), "--fatbin", "-O1", *loader.OPTIONS, "-Werror=all-warnings", "--threads=0", *targets]
    made = tmp_path / "cuda.fatbin"
    done = subprocess.run(
        [*command, f"-I{source.parent}", f"-I{KERNELS}", "-o", str(made), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert made.stat().st_size > 0


@pytest.mark.parametrize("source", SOURCES, ids=room)
def test_nvrtc(source: Path) -> None:
    core = pytest.importorskip("cuda.core", reason="run-time compilation needs the extra [cuda-tests]")
    for arch in loader.BUILT_FOR:
        options = core.ProgramOptions(
            std="c++17", fma=False, arch=f"sm_{arch}", include_path=[str(source.parent), str(KERNELS)]
        )
        program = core.Program(source.read_text(encoding="utf-8"), "c++", options)
        assert program.compile("cubin").code


def test_cmake_builds_for_the_same_gpus() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert tuple(re.findall(r"code=sm_(\d+)", text)) == loader.BUILT_FOR


def test_without_cupy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailableError, match=r"install lithostream with the extra \[cuda13\]"):
        loader.gpu_module("segments")


@pytest.mark.parametrize(("capability", "way"), [("90", "path"), ("86", "code")])
def test_fatbin_where_it_fits_else_the_source(
    monkeypatch: pytest.MonkeyPatch, cupy: ModuleType, tmp_path: Path, capability: str, way: str
) -> None:
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "cuda.cu").write_text("// nothing\n")
    (folder / "cuda.fatbin").write_bytes(b"machine code")
    monkeypatch.setattr(loader, "files", lambda package: tmp_path)
    monkeypatch.setattr(cupy.cuda.Device, "compute_capability", capability)
    monkeypatch.setattr(cupy, "RawModule", lambda **given: SimpleNamespace(**given))
    assert hasattr(loader.gpu_module("room"), way)


def test_cupy_keeps_no_code_of_other_headers(
    monkeypatch: pytest.MonkeyPatch, cupy: ModuleType, tmp_path: Path
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (room / "cuda.cu").write_text("// the same\n")
    monkeypatch.setattr(loader, "files", lambda package: tmp_path)
    monkeypatch.setattr(cupy, "RawModule", lambda **given: SimpleNamespace(**given))
    codes = []
    for header in (room / "sums.h", tmp_path / "gpu.h"):
        for text in ("// one\n", "// other\n", "// other\n"):
            header.write_text(text)
            loader._load.cache_clear()
            codes.append(loader.gpu_module("room").code)
    assert all(code.startswith("// the same\n") for code in codes)
    assert [len(set(codes[k : k + 2])) for k in range(5)] == [2, 1, 2, 2, 1]


@pytest.mark.skipif(NVCC is None or not SOURCES, reason="the build makes fatbins only where nvcc is")
def test_the_build_left_fatbins() -> None:
    from importlib.resources import files

    missing = [
        room(s) for s in SOURCES if not (files("lithostream.kernels") / room(s) / "cuda.fatbin").is_file()
    ]
    assert not missing
