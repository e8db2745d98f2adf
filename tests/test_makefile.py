"""A missing prerequisite ends in one line that says what to install."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("variable", "body", "words"),
    [
        ("PYTHON", None, "Python 3.11 or newer is missing: install it"),
        (
            "PYTHON",
            'case "$1" in -c) exit 1;; *) echo Python 3.9.2;; esac',
            "this is Python 3.9.2: install it",
        ),
        ("PYTHON", 'case "$2" in *ensurepip*) exit 1;; esac', "venv module is missing: install it"),
        ("CXX", None, "A C++17 compiler is missing: install one"),
        ("CXX", "exit 1", "does not compile C++17: install a newer one"),
    ],
)
def test_missing_prerequisite(tmp_path: Path, variable: str, body: str | None, words: str) -> None:
    program = "/nonexistent/program" if body is None else script(tmp_path / "program", body)
    done = subprocess.run(
        ["make", "--silent", "demo", f"VENV={tmp_path / 'venv'}", f"{variable}={program}"],
        cwd=ROOT,
        env={**os.environ, variable: program},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert words in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ((), "needs aarch64-linux-gnu-g++: install it (Debian: apt install g++-aarch64-linux-gnu)"),
        (("aarch64-linux-gnu-g++",), "needs qemu-aarch64: install it (Debian: apt install qemu-user)"),
    ],
)
def test_missing_prerequisite_of_the_emulated_tests(
    tmp_path: Path, there: tuple[str, ...], words: str
) -> None:
    for name in ("make", "bash", "sh", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name in there:
        script(tmp_path / name, "exit 1")
    done = subprocess.run(
        ["make", "--silent", "test-aarch64"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout.splitlines() == [f"make test-aarch64 {words}"]
