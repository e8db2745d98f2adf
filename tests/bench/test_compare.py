"""Ratios, their errors, the gate's promise on simulated noise, and what its command line answers."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

PASSES = 8
ROUNDS = 12

Entry = dict[str, Any]


def simulated(rng: np.random.Generator, ours_s: float, peer_s: float) -> tuple[list[Any], list[Any]]:
    """Both functions in one session on a shared machine.

    The machine drifts by a random walk and is 1.8 times slower for a while, felt by both; 2 % by pass and
    1 % by process are felt by one only (clocks, memory layout); every round jitters by 5 % and one in
    twenty meets a neighbour.
    """
    drift = np.exp(np.cumsum(0.1 * rng.standard_normal(PASSES)))
    start = rng.integers(PASSES)
    drift[start : start + 3] *= 1.8

    def rounds(seconds: float) -> list[Any]:
        centre = seconds * np.exp(0.01 * rng.standard_normal())
        by_pass = centre * drift * np.exp(0.02 * rng.standard_normal(PASSES))
        jitter = np.exp(0.05 * rng.standard_normal((PASSES, ROUNDS)))
        spikes = np.where(rng.random((PASSES, ROUNDS)) < 0.05, rng.uniform(1.5, 4, (PASSES, ROUNDS)), 1)
        found: list[Any] = (by_pass[:, None] * jitter * spikes).tolist()
        return found

    return rounds(ours_s), rounds(peer_s)


@pytest.mark.parametrize("seed", range(10))
def test_the_promise_on_simulated_noise(compare: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    baseline = compare.estimate(*simulated(rng, 2e-3, 9e-3))
    unchanged = [compare.estimate(*simulated(rng, 2e-3, 9e-3)) for _ in range(20)]
    slowed = [compare.estimate(*simulated(rng, 2.4e-3, 9e-3)) for _ in range(10)]
    assert [compare.judge("x", baseline, run).word for run in unchanged].count("WORSE") == 0
    assert [compare.judge("x", baseline, run).word for run in slowed].count("WORSE") >= 9


def test_absolute_times_would_not_keep_the_promise() -> None:
    rng = np.random.default_rng(0)
    medians = [np.median(simulated(rng, 2e-3, 9e-3)[0]) for _ in range(20)]
    assert max(medians) / min(medians) > 1.5


def test_estimate_by_hand(compare: ModuleType) -> None:
    ours = [[2.0, 2.0, 50.0], [4.0], [6.0], [8.0]]
    peer = [[1.0], [1.0], [1.0], [1.0, 1.0, 9.0]]
    logs = np.log([2, 4, 6, 8])
    found = compare.estimate(ours, peer)
    assert found.ratio == pytest.approx(math.sqrt(24))
    mad = np.median(np.abs(logs - np.median(logs)))
    assert found.error == pytest.approx(1.4826 * mad * math.sqrt(math.pi / 2) / 2)


def test_the_error_is_the_scatter_of_the_estimate(compare: ModuleType) -> None:
    rng = np.random.default_rng(4)
    runs = [
        compare.estimate(np.exp(0.1 * rng.standard_normal((PASSES, 1))).tolist(), [[1.0]] * PASSES)
        for _ in range(2000)
    ]
    scatter = np.std(np.log([run.ratio for run in runs]))
    assert np.mean([run.error for run in runs]) == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        (1.099, 0.0, "same"),
        (1.101, 0.0, "WORSE"),
        (1.2, 0.065, "same"),
        (0.9, 0.0, "better"),
        (0.92, 0.0, "same"),
    ],
)
def test_floor_and_noise_set_the_limit(compare: ModuleType, change: float, error: float, word: str) -> None:
    before, after = compare.Estimate(0.5, 0.0), compare.Estimate(0.5 * change, error)
    assert compare.judge("x", before, after).word == word


def test_both_runs_widen_the_limit(compare: ModuleType) -> None:
    noisy, calm = compare.Estimate(1.0, 0.04), compare.Estimate(1.0, 0.0)
    one = math.exp(3 * 0.04) - 1
    assert compare.judge("x", noisy, calm).limit == pytest.approx(one)
    assert compare.judge("x", calm, noisy).limit == pytest.approx(one)
    assert compare.judge("x", noisy, noisy).limit == pytest.approx(math.exp(3 * 0.04 * math.sqrt(2)) - 1)


def entry(name: str, seconds: float, passes: int = 4, calibration_s: float = 0.5) -> Entry:
    return {
        "fullname": f"bench/bench_a.py::{name}",
        "stats": {"data": [seconds] * 3 * passes},
        "extra_info": {"passes": [{"rounds": 3, "calibration_s": calibration_s}] * passes},
    }


def write(path: Path, *entries: Entry, cores: int = 2, taken: float = 0.0) -> Path:
    machine = {"usable_cores": cores, "threads": {}, "versions": {}, "gpu": "none", "taken_by_others": taken}
    path.write_text(json.dumps({"benchmarks": entries, "machine_info": {"lithostream": machine}}))
    return path


def test_pairs_by_name_and_id_else_by_calibration(compare: ModuleType, tmp_path: Path) -> None:
    run = compare.load(
        write(
            tmp_path / "run.json",
            entry("bench_nnls[3/4]", 1.0),
            entry("bench_nnls[6/6]", 3.0),
            entry("bench_nnls_peer_scipy[3/4]", 4.0),
            entry("bench_nnls_peer_two_words[3/4]", 8.0),
            entry("bench_nnls_peer_scipy[9/9]", 4.0),
            entry("bench_alone", 2.0),
        )
    )
    assert {name: round(ratio, 12) for name, (ratio, _) in run.ratios.items()} == {
        "bench_a.py::bench_alone / calibration": 4.0,
        "bench_a.py::bench_nnls[3/4] / scipy": 0.25,
        "bench_a.py::bench_nnls[3/4] / two_words": 0.125,
        "bench_a.py::bench_nnls[6/6] / calibration": 6.0,
    }
    assert run.unpaired == ["bench_a.py::bench_nnls_peer_scipy[9/9]"]


def test_a_slower_machine_changes_nothing_and_a_slower_kernel_fails(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "a.json", entry("bench_x", 1.0), entry("bench_x_peer_y", 2.0))
    baseline = tmp_path / "baselines" / "b.json"
    assert compare.main(["--accept", str(baseline), str(run)]) == 0
    accepted = json.loads(baseline.read_text())
    assert accepted["ratios"] == {"bench_a.py::bench_x / y": {"ratio": 0.5, "error": 0.0}}
    assert set(accepted) == {"machine", "ratios"}

    slower_machine = write(tmp_path / "c.json", entry("bench_x", 2.0), entry("bench_x_peer_y", 4.0))
    assert compare.main([str(baseline), str(slower_machine)]) == 0
    slower_kernel = write(tmp_path / "d.json", entry("bench_x", 1.2), entry("bench_x_peer_y", 2.0))
    capsys.readouterr()
    assert compare.main([str(baseline), str(slower_kernel)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["bench_a.py::bench_x", "/", "y", "0.5", "0.6", "+20.0%", "10.0%", "WORSE"]
    assert lines[-1] == "1 of 1 got worse beyond noise"


def test_warns_of_what_is_not_compared(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = entry("bench_x", 1.0)
    shaky = entry("bench_shaky", 1.0)
    shaky["stats"]["data"] = [second for second in (1.0, 1.2, 1.4, 1.6) for _ in range(3)]
    before = write(tmp_path / "a.json", both, shaky, entry("bench_old", 1.0))
    after = write(
        tmp_path / "b.json", both, shaky, entry("bench_new", 1.0), entry("bench_p_peer_q", 1.0), cores=8
    )
    assert compare.main([str(before), str(after)]) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert [line.split()[1] for line in found] == ["missing:", "new:", "unpaired:", "usable_cores", "noisy:"]
    assert "bench_old" in found[0] and "bench_new" in found[1] and "bench_p_peer_q" in found[2]
    assert "2 in the baseline, 8 now" in found[3]
    assert "bench_shaky" in found[4]


def test_prints_the_ratios_of_one_run(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(write(tmp_path / "a.json", entry("bench_x", 1.0)))]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "bench_a.py::bench_x",
        "/",
        "calibration",
        "2",
        "0.0%",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "is neither a run nor a baseline"),
        ("{}", "KeyError: 'benchmarks'"),
        ('{"ratios": {}, "machine": {}}', "holds no benchmark"),
        ('{"ratios": {"x": {"ratio": -1, "error": 0}}, "machine": {}}', "x: ratio -1 with error 0"),
        ('{"ratios": {"x": {"ratio": NaN, "error": 0}}, "machine": {}}', "x: ratio nan"),
        ('{"ratios": {"x": {"ratio": 1}}, "machine": {}}', "TypeError"),
        ('{"ratios": {"x": {"ratio": "1", "error": 0}}, "machine": {}}', "is neither a run nor a baseline"),
    ],
)
def test_unusable_input_says_file_reason_and_fix(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, reason: str
) -> None:
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    good = write(tmp_path / "good.json", entry("bench_x", 1.0))
    for arguments in ([str(good), str(path)], [str(path), str(good)]):
        assert compare.main(arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"{path}: ")
        assert reason in message
        assert "make bench" in message


@pytest.mark.parametrize("change", ["passes", "rounds", "zero", "peer_passes"])
def test_a_run_without_proper_passes_is_refused(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    ours, peer = entry("bench_x", 1.0), entry("bench_x_peer_y", 1.0)
    if change == "passes":
        ours = entry("bench_x", 1.0, passes=3)
    elif change == "rounds":
        ours["stats"]["data"].append(1.0)
    elif change == "zero":
        ours = entry("bench_x", 0.0)
    else:
        peer = entry("bench_x_peer_y", 1.0, passes=5)
    path = write(tmp_path / "run.json", ours, peer)
    assert compare.main([str(path)]) == 2
    assert f"{path}: is neither a run nor a baseline: ValueError" in capsys.readouterr().err


def test_nothing_in_common_is_no_pass(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (write(tmp_path / f"{name}.json", entry(f"bench_{name}", 1.0)) for name in "ab")
    assert compare.main([str(one), str(other)]) == 2
    assert f"{other}: shares no benchmark with {one}" in capsys.readouterr().err


def test_a_busy_machine_proves_no_loss_and_makes_no_baseline(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = write(tmp_path / "calm.json", entry("bench_x", 1.0), taken=0.1)
    same = write(tmp_path / "same.json", entry("bench_x", 1.0), taken=0.5)
    slow = write(tmp_path / "slow.json", entry("bench_x", 2.0), taken=0.5)
    assert compare.main([str(calm), str(same)]) == 0
    assert compare.main([str(calm), str(slow)]) == 2
    words = (
        "1 got worse, but other processes took 50% of the cores during the run (fix: run `make bench` again"
    )
    assert f"{slow}: {words}" in capsys.readouterr().err
    assert compare.main(["--accept", str(tmp_path / "new.json"), str(same)]) == 2
    assert not (tmp_path / "new.json").exists()
    assert compare.main(["--accept", str(tmp_path / "new.json"), str(calm)]) == 0
