"""Who may import whom, and what an import may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "kernels": {"kernels"},
    "engine": {"engine", "kernels"},
    "training": {"training", "engine", "kernels"},
    "export": {"export", "training", "engine", "kernels"},
    "bench": {"training", "export", "engine", "kernels"},
}
# What the run time must never import: a Jetson or a scanner box has none of it.
HEAVY = {"torch", "torchvision", "sklearn", "scipy", "skimage", "cupy", "tensorrt"}
# Numba loads scipy by itself wherever it is installed.
LOADED_BY_NUMBA = {"scipy"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def sources(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_parts_import_only_what_lies_below_them(part: str) -> None:
    lazily_allowed = {ROOT / "engine" / "cli.py": {"training", "export"}}
    for path in sources(part):
        allowed = ALLOWED[part] | lazily_allowed.get(path, set())
        parts = {name.split(".")[1] for name in imports(path) if name.startswith("lithostream.")}
        assert parts <= allowed, f"{path} imports {parts - allowed}"


@pytest.mark.parametrize("part", ["kernels", "engine"])
def test_run_time_names_no_training_library(part: str) -> None:
    for path in sources(part):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & HEAVY, f"{path} imports {tops & HEAVY}"


def test_importing_the_engine_loads_neither_torch_nor_a_gpu_library() -> None:
    code = (
        "import sys, lithostream.engine.cli, lithostream.engine.stream.runner, lithostream.kernels\n"
        f"print(sorted({HEAVY - LOADED_BY_NUMBA!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_anywhere() -> None:
    for part in ALLOWED:
        for path in sources(part):
            tops = {name.split(".")[0] for name in imports(path)}
            if (
                path.name == "tensors.py"
            ):  # reads what torch unpickled safely, and names the error of its refusal
                assert "from pickle import UnpicklingError\n" in path.read_text()
                assert "import pickle" not in path.read_text()
                tops -= {"pickle"}
            assert not tops & {"pickle", "dill", "joblib", "marshal", "shelve"}, path


def test_the_source_tree_is_not_importable_by_its_folder_names() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import kernels"], capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError" in done.stderr
