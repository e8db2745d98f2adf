"""Each section once: killed anywhere, run twice, run by two, altered afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lithostream.engine.config import RunSettings
from lithostream.engine.core.synthetic import generate
from lithostream.engine.core.synthetic.files import write
from lithostream.engine.errors import ConfigError
from lithostream.engine.stream.commit import ASIDE, CHECKSUMS, check_folder, commit, take_up
from lithostream.engine.stream.failpoints import NAMES, VARIABLE
from lithostream.engine.stream.ledger import LEDGER, Ledger
from lithostream.engine.stream.lock import only_runner
from lithostream.engine.stream.run_record import RunRecord
from lithostream.engine.stream.runner import run
from lithostream.engine.stream.verify_run import verify_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short cores."""
    path = tmp_path_factory.mktemp("cores")
    for seed in (31, 32):
        write(generate(seed, length_cm=12.0, width_cm=4.0, px_per_cm=30.0), path)
    return path


@pytest.fixture(scope="module")
def expected(folder: Path, bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(once(folder, bundle_path, tmp_path_factory.mktemp("expected")).out)


def once(folder: Path, bundle: Path, out: Path) -> RunRecord:
    return run([folder], bundle, out, RunSettings(backend="onnxruntime"), lambda *_: None)


def contents(out: Path) -> dict[str, bytes]:
    """What the sections' folders hold, but for how long it took."""
    files = [path for path in sorted(out.glob("*/*")) if path.name != CHECKSUMS]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize("place", NAMES)
def test_killed_anywhere_a_rerun_does_each_section_once(
    place: str, folder: Path, bundle_path: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom lithostream.engine.config import RunSettings\n"
        "from lithostream.engine.stream.runner import run\n"
        "run([Path(sys.argv[1])], Path(sys.argv[2]), Path(sys.argv[3]), RunSettings(backend='onnxruntime'), print)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(bundle_path), str(tmp_path)],
        env={**os.environ, VARIABLE: place},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    record = once(folder, bundle_path, tmp_path)
    assert contents(tmp_path) == expected
    assert len(record.sections) == 2 and record.exit_code == 0
    assert verify_run(tmp_path) == (2, [])
    assert not list(tmp_path.glob(".*.partial")) and not (tmp_path / ASIDE).exists()
    again = [note for note in record.notes if "done before" in note]
    assert len(again) == {"window-done": 0, "files-written": 0, "record-written": 2}.get(place, 1)


def test_the_same_input_again_is_no_work(folder: Path, bundle_path: Path, tmp_path: Path) -> None:
    first = once(folder, bundle_path, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "cores"))
    second = once(moved, bundle_path, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert second.sections == first.sections
    assert sum("done before" in note for note in second.notes) == 2


def test_a_new_scan_is_a_new_version(folder: Path, bundle_path: Path, tmp_path: Path) -> None:
    cores = Path(shutil.copytree(folder, tmp_path / "cores"))
    once(cores, bundle_path, tmp_path / "out")
    name = generate(31, length_cm=12.0, width_cm=4.0, px_per_cm=30.0).name
    image = next(path for path in cores.iterdir() if path.stem == name and path.suffix == ".tif")
    pixels = bytearray(image.read_bytes())
    pixels[len(pixels) // 2] ^= 1
    image.write_bytes(pixels)
    record = once(cores, bundle_path, tmp_path / "out")
    assert {str(entry["folder"]) for entry in record.sections} >= {f"{name}.v2"}
    assert verify_run(tmp_path / "out") == (3, [])


def test_two_runners_on_one_folder(folder: Path, bundle_path: Path, tmp_path: Path) -> None:
    with (
        only_runner(tmp_path),
        pytest.raises(ConfigError, match=f"another runner writes here, process {os.getpid()}"),
    ):
        once(folder, bundle_path, tmp_path)
    assert once(folder, bundle_path, tmp_path).exit_code == 0


def section(folder: Path) -> dict[str, str]:
    (folder / "table").write_bytes(b"rows")
    return {"name": "one"}


def test_what_is_whole_is_taken_up_and_what_is_not_is_moved_aside(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        for name in "abc":
            commit(tmp_path, ledger, name, "key", section)
    (tmp_path / LEDGER).unlink()
    (tmp_path / "b" / "table").write_bytes(b"altered")
    (tmp_path / "c").rename(tmp_path / "d")
    with closing(Ledger(tmp_path)) as ledger:
        notes = take_up(tmp_path, ledger)
        assert [row.folder for row in ledger.rows()] == ["a"]
        assert ledger.rows()[0].entry == {"name": "one", "folder": "a"}
        assert take_up(tmp_path, ledger) == []
    assert notes == [
        "a: found whole and taken up",
        "b: moved aside, table was altered",
        "d: moved aside, under another name",
    ]
    assert sorted(path.name for path in (tmp_path / ASIDE).iterdir()) == ["b-1", "d-1"]


def test_a_folder_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("dear to me")
    with closing(Ledger(tmp_path)) as ledger:
        assert commit(tmp_path, ledger, "a", "key", section).folder == "a"
    assert (tmp_path / ASIDE / "a-1" / "thesis.txt").read_text() == "dear to me"


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        for name in "abcd":
            commit(tmp_path, ledger, name, "key", section)
    (tmp_path / "a" / "table").unlink()
    (tmp_path / "b" / "more").write_bytes(b"")
    shutil.rmtree(tmp_path / "c")
    shutil.copytree(tmp_path / "d", tmp_path / "e")
    assert verify_run(tmp_path) == (
        4,
        [
            "a: table is missing",
            "b: more is not of this section",
            "c: the folder is missing",
            "e: not in the ledger",
        ],
    )


def test_damaged_records_are_told(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path)) as ledger:
        commit(tmp_path, ledger, "a", "key", section)
    (tmp_path / "a" / CHECKSUMS).write_text(json.dumps({"files": 3}))
    assert check_folder(tmp_path / "a") == [f"{CHECKSUMS} cannot be read: no table of files"]
    (tmp_path / LEDGER).write_bytes(b"not a database, but long enough to look like one" * 50)
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger(tmp_path)
