"""The commands as a shell sees them: exit codes, what goes to stdout and what to stderr."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lithostream.engine.core.synthetic import SyntheticCore, generate, write

PROGRAM = [sys.executable, "-m", "lithostream.engine.cli"]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_demo_prints_errors_and_the_report(tmp_path: Path) -> None:
    done = call("demo", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.strip())
    assert report.is_file() and report.name == "report.html"
    for line in (
        "density, g/cm3",
        "p wave velocity, m/s",
        "magnetic susceptibility, 1e-5 SI",
        "abundance, volume %",
    ):
        assert line in done.stderr


def test_run_speaks_json(core: SyntheticCore, core_image: Path, bundle_path: Path, tmp_path: Path) -> None:
    done = call("run", core_image, "--bundle", bundle_path, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sections"] == 1 and summary["quarantined"] == []
    assert "100 %" in done.stderr


def test_a_bad_input_beside_a_good_one_exits_3(core_image: Path, bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bmp").write_bytes(b"BM")
    done = call("run", tmp_path / "x.bmp", core_image, "--bundle", bundle_path, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "x.bmp" in done.stderr and "fix:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.tif", "--bundle", "no-bundle", "--out", "out"], "no-bundle"),
        (["run", "nowhere.tif"], "--bundle"),
        (["verify", "no-bundle"], "no-bundle"),
        (["report", "no-run"], "no-run"),
        (["fly"], "fly"),
    ],
    ids=str,
)
def test_usage_errors_exit_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_setting_is_named_with_the_nearest(
    core_image: Path, bundle_path: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text("intervall_cm = 1.0\n")
    done = call("run", core_image, "--bundle", bundle_path, "--out", tmp_path / "out", "--config", config)
    assert done.returncode == 2
    assert "intervall_cm" in done.stderr and "interval_cm'" in done.stderr


def test_verify_accepts_the_shipped_bundle(bundle_path: Path) -> None:
    done = call("verify", bundle_path)
    assert done.returncode == 0, done.stderr
    assert "golden cases met" in done.stdout


def test_a_stopped_run_exits_4_and_leaves_no_half_section(bundle_path: Path, tmp_path: Path) -> None:
    image = write(generate(5, length_cm=150, width_cm=10, px_per_cm=40), tmp_path / "in")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*PROGRAM, "run", str(image), "--bundle", str(bundle_path), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not out.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 4, err
    assert "SIGTERM" in err and "Traceback" not in err
    assert [path for path in out.iterdir() if path.is_dir()] == []
