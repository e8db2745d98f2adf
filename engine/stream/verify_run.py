"""Whether a run's folder is what its ledger says."""

from contextlib import closing
from pathlib import Path

from lithostream.engine.stream.commit import CHECKSUMS, check_folder
from lithostream.engine.stream.ledger import Ledger


def verify_run(out: Path) -> tuple[int, list[str]]:
    """Compare the ledger with the folders and every file with its checksum.

    Returns
    -------
    int
        Sections in the ledger, each version counted.
    list of str
        What is wrong, one line each.

    Raises
    ------
    ConfigError
        The ledger is damaged.
    """
    with closing(Ledger(out)) as ledger:
        rows = ledger.rows()
    problems = []
    for row in rows:
        folder = out / row.folder
        found = check_folder(folder) if folder.is_dir() else ["the folder is missing"]
        problems += [f"{row.folder}: {problem}" for problem in found]
    known = {row.folder for row in rows}
    there = (path.parent.name for path in out.glob(f"[!.]*/{CHECKSUMS}"))  # those with a dot were never whole
    strays = sorted(name for name in there if name not in known)
    return len(rows), problems + [f"{name}: not in the ledger" for name in strays]
