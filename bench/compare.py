"""Ratios of paired timings with their errors, and the gate that compares two sets of them.

    python bench/compare.py LATEST                    print the ratios of a run
    python bench/compare.py BASELINE LATEST           fail where LATEST got worse than BASELINE
    python bench/compare.py --accept BASELINE LATEST  write the ratios of LATEST into BASELINE

A ratio is the time of our function over that of its peer in the same run, or over the calibration loop
where there is no peer: below one is faster than the peer, and smaller is better.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lithostream.engine.errors import SourceError

MIN_PASSES = 4  # fewer say nothing about their own scatter
FLOOR = 0.10  # two processes differ by a few percent without any change: memory layout, caches, clocks
ERRORS = 3.0  # standard errors that separate a loss from noise
BUSY = 0.15  # share of the cores; beyond it a threaded kernel waits for its threads, its peer does not
PROMISED_LOSS = 0.20  # the slow-down this gate is built to catch

REMAKE = "`make bench` writes a run, `python bench/compare.py --accept` a baseline"
PEER = re.compile(r"(?P<ours>.+::bench_\w+?)_peer_(?P<peer>\w+)(?P<id>\[.*\])?")

Passes = Sequence[Sequence[float]]


class Estimate(NamedTuple):
    """A ratio of two times and its relative standard error."""

    ratio: float
    error: float


class Run(NamedTuple):
    """What one file holds: the ratios by name, the machine, and what could not be paired."""

    ratios: dict[str, Estimate]
    machine: dict[str, Any]
    unpaired: list[str]


class Verdict(NamedTuple):
    """One benchmark in both runs; `change` and `limit` are fractions of the baseline's time."""

    name: str
    before: Estimate
    after: Estimate
    change: float
    limit: float

    @property
    def word(self) -> str:
        """Say whether the change is larger than noise."""
        if self.change > self.limit:
            return "WORSE"
        return "better" if 1 + self.change < 1 / (1 + self.limit) else "same"


def estimate(ours: Passes, reference: Passes) -> Estimate:
    """Ratio of two series timed alternately, from one ratio per pass.

    Each pass gives the ratio of its two medians: a spike does not move a median, and what slows the whole
    pass cancels. The result is the median over passes. Its error is the normal-consistent median absolute
    deviation (factor 1.4826) times the asymptotic sqrt(pi / 2) of a median, over the root of the passes.

    Parameters
    ----------
    ours, reference : seconds of every round, by pass
    """
    logs = [
        math.log(statistics.median(mine) / statistics.median(theirs))
        for mine, theirs in zip(ours, reference, strict=True)
    ]
    centre = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(value - centre) for value in logs)
    return Estimate(math.exp(centre), deviation * math.sqrt(math.pi / 2 / len(logs)))


def judge(name: str, before: Estimate, after: Estimate) -> Verdict:
    """Compare two estimates: the limit is the noise of both, and never under the floor."""
    limit = math.expm1(max(math.log1p(FLOOR), ERRORS * math.hypot(before.error, after.error)))
    return Verdict(name, before, after, after.ratio / before.ratio - 1, limit)


def load(path: Path) -> Run:
    """Read a baseline or the JSON of a run.

    Raises
    ------
    SourceError
        The file is missing, is no JSON, or does not hold what either kind holds.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"cannot be read: {error}", file=path, fix=REMAKE) from error
    try:
        if "ratios" in content:
            ratios = {name: Estimate(**entry) for name, entry in content["ratios"].items()}
            run = Run(ratios, content["machine"], [])
        else:
            run = pair(content)
        check(run)
    except (KeyError, TypeError, AttributeError, ValueError, statistics.StatisticsError) as error:
        reason = f"is neither a run nor a baseline: {type(error).__name__}: {error}"
        raise SourceError(reason, file=path, fix=REMAKE) from error
    return run


def check(run: Run) -> None:
    """Refuse a run without ratios, or with one that is no ratio."""
    for name, (ratio, error) in run.ratios.items():
        if not (0 < ratio < math.inf and 0 <= error < math.inf):
            raise ValueError(f"{name}: ratio {ratio} with error {error}")
    if not run.ratios:
        raise ValueError("holds no benchmark")


def pair(content: dict[str, Any]) -> Run:
    """Pair every benchmark of a run with its peers, or with the calibration loop where it has none."""
    entries = {re.sub(r"^[^:]*/", "", entry["fullname"]): entry for entry in content["benchmarks"]}
    rounds = {name: by_pass(entry) for name, entry in entries.items()}
    ratios: dict[str, Estimate] = {}
    unpaired = []
    peers = {name: found for name in rounds if (found := PEER.fullmatch(name))}
    for name, found in peers.items():
        ours = found["ours"] + (found["id"] or "")
        if ours in rounds:
            ratios[f"{ours} / {found['peer']}"] = estimate(rounds[ours], rounds[name])
        else:
            unpaired.append(name)
    paired = {name.rpartition(" / ")[0] for name in ratios}
    for name in rounds.keys() - peers.keys() - paired:
        calibration = [[turn["calibration_s"]] for turn in entries[name]["extra_info"]["passes"]]
        ratios[f"{name} / calibration"] = estimate(rounds[name], calibration)
    return Run(dict(sorted(ratios.items())), content["machine_info"]["lithostream"], unpaired)


def by_pass(entry: dict[str, Any]) -> Passes:
    """Split the rounds of a benchmark at its passes."""
    lengths = [turn["rounds"] for turn in entry["extra_info"]["passes"]]
    data = entry["stats"]["data"]
    if len(lengths) < MIN_PASSES or sum(lengths) != len(data):
        found = f"{len(lengths)} passes of {sum(lengths)} rounds in all for {len(data)} timings"
        raise ValueError(f"{entry['fullname']} has {found}, needed are {MIN_PASSES} passes or more")
    return [data[sum(lengths[:turn]) : sum(lengths[: turn + 1])] for turn in range(len(lengths))]


def warnings(before: Run, after: Run, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Say what the comparison does not cover."""
    for name in sorted(before.ratios.keys() - after.ratios.keys()):
        yield f"missing: {name} is in the baseline only"
    for name in sorted(after.ratios.keys() - before.ratios.keys()):
        yield f"new: {name} is not in the baseline"
    for name in after.unpaired:
        yield f"unpaired: {name} is a peer of nothing that ran"
    for key in ("usable_cores", "threads", "versions", "gpu"):
        if before.machine.get(key) != after.machine.get(key):
            yield f"{key} differ: {before.machine.get(key)} in the baseline, {after.machine.get(key)} now"
    for verdict in verdicts:
        if verdict.limit > PROMISED_LOSS:
            yield f"noisy: {verdict.name} would hide a loss of {PROMISED_LOSS:.0%}; measure on a calmer machine"


def compare(before: Run, after: Run) -> list[Verdict]:
    """Judge every benchmark that both runs hold, the worst first."""
    shared = before.ratios.keys() & after.ratios.keys()
    verdicts = [judge(name, before.ratios[name], after.ratios[name]) for name in sorted(shared)]
    return sorted(verdicts, key=lambda verdict: verdict.limit - verdict.change)


def print_ratios(run: Run) -> None:
    width = max(map(len, run.ratios))
    print(f"{'benchmark / peer':{width}}  {'ratio':>8}  {'error':>6}")
    for name, (ratio, error) in run.ratios.items():
        print(f"{name:{width}}  {ratio:8.4g}  {error:6.1%}")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    width = max(len(verdict.name) for verdict in verdicts)
    print(f"{'benchmark / peer':{width}}  {'baseline':>8}  {'latest':>8}  {'change':>7}  {'limit':>6}")
    for verdict in verdicts:
        ratios = f"{verdict.before.ratio:8.4g}  {verdict.after.ratio:8.4g}"
        print(
            f"{verdict.name:{width}}  {ratios}  {verdict.change:+7.1%}  {verdict.limit:6.1%}  {verdict.word}"
        )


def require_calm(run: Run, path: Path, what: str) -> None:
    """Refuse to conclude anything from a run that shared its cores."""
    taken = run.machine.get("taken_by_others", 0.0)
    if taken > BUSY:
        reason = f"{what}, but other processes took {taken:.0%} of the cores during the run"
        raise SourceError(reason, file=path, fix="run `make bench` again on a calmer machine")


def accept(run: Run, path: Path) -> None:
    """Write the ratios of a run as a baseline: six digits, nothing that is absolute."""
    rounded = {
        name: {"ratio": float(f"{ratio:.6g}"), "error": float(f"{error:.6g}")}
        for name, (ratio, error) in run.ratios.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": run.machine, "ratios": rounded}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def gate(baseline: Path, latest: Path) -> int:
    """Print the comparison of two files; 1 if anything got worse, else 0."""
    before, after = load(baseline), load(latest)
    verdicts = compare(before, after)
    if not verdicts:
        raise SourceError(f"shares no benchmark with {baseline}", file=latest, fix="run the same suites")
    print_verdicts(verdicts)
    for warning in warnings(before, after, verdicts):
        print(f"warning: {warning}")
    worse = sum(verdict.word == "WORSE" for verdict in verdicts)
    print(f"{worse} of {len(verdicts)} got worse beyond noise")
    if worse:
        require_calm(after, latest, f"{worse} got worse")
    return int(worse > 0)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; 0 fine, 1 something got worse, 2 an input cannot be used."""
    parser = argparse.ArgumentParser(description="Compare benchmark ratios; see bench/README.md.")
    parser.add_argument("--accept", action="store_true", help="write BASELINE from LATEST")
    parser.add_argument("baseline", type=Path, nargs="?")
    parser.add_argument("latest", type=Path)
    options = parser.parse_args(arguments)
    if options.accept and options.baseline is None:
        parser.error("--accept needs BASELINE and LATEST")
    try:
        if options.baseline and not options.accept:
            return gate(options.baseline, options.latest)
        run = load(options.latest)
        print_ratios(run)
        if options.accept:
            require_calm(run, options.latest, "asked to become the baseline")
            accept(run, options.baseline)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
