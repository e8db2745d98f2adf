"""A section's folder: written and synced beside its place, renamed into it, then marked in the ledger.

Killed at any point, the output holds each section once or not at all: what was renamed and not marked is taken up at
the next start if its checksums hold, and moved aside if not; what was not renamed is removed.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lithostream.engine.bundle import sha256_file
from lithostream.engine.stream.failpoints import reach
from lithostream.engine.stream.ledger import Committed, Ledger

CHECKSUMS = "checksums.json"
ASIDE = "aside"
PARTIAL = ".partial"
"""Ends the name of what a start removes."""


def commit(
    out: Path, ledger: Ledger, name: str, key: str, write: Callable[[Path], dict[str, Any]]
) -> Committed:
    """Put a new version of a section in place.

    Parameters
    ----------
    out : Path
    ledger : Ledger
    name, key
        As in `Committed`.
    write : callable
        Writes the section's files into the folder it is given and returns its entry, which gets the folder's name.
    """
    before = ledger.latest(name)
    version = before.version + 1 if before else 1
    folder = name if version == 1 else f"{name}.v{version}"
    partial = out / f".{folder}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        one = Committed(name, version, folder, key, {**write(partial), "folder": folder})
        _write_checksums(one, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        raise
    sync_files(partial)
    reach("files-written")
    if (out / folder).exists():  # of no run that the ledger knows
        move_aside(out, out / folder)
    os.rename(partial, out / folder)
    _sync_folder(out)
    reach("folder-renamed")
    ledger.add(one)
    reach("section-marked")
    return one


def take_up(out: Path, ledger: Ledger) -> list[str]:
    """Settle what an earlier runner left: adopt whole folders without a mark, move damaged ones aside.

    Returns
    -------
    list of str
        What was done, one line each.
    """
    notes = []
    for partial in out.glob(f".*{PARTIAL}"):
        shutil.rmtree(partial)
    known = {row.folder for row in ledger.rows()}
    for path in sorted(out.glob(f"*/{CHECKSUMS}")):
        if path.parent.name in known or path.parent.name == ASIDE:
            continue
        problems = check_folder(path.parent)
        one = None if problems else _stated(path.parent)
        if one is None or one.folder != path.parent.name:
            move_aside(out, path.parent)
            notes.append(f"{path.parent.name}: moved aside, {'; '.join(problems) or 'under another name'}")
        else:
            ledger.add(one)
            notes.append(f"{one.folder}: found whole and taken up")
    return notes


def check_folder(folder: Path) -> list[str]:
    """Compare a folder with its checksums; returns what is wrong, one line each."""
    try:
        stated = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"{CHECKSUMS} cannot be read: {error}"]
    stated = stated.get("files") if isinstance(stated, dict) else None
    if not isinstance(stated, dict):
        return [f"{CHECKSUMS} cannot be read: no table of files"]
    there = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    problems = [f"{name} is missing" for name in sorted(stated.keys() - there)]
    problems += [f"{name} is not of this section" for name in sorted(there - stated.keys())]
    for name in sorted(stated.keys() & there):
        if sha256_file(folder / name) != stated[name]:
            problems.append(f"{name} was altered")
    return problems


def move_aside(out: Path, folder: Path) -> None:
    """Move a folder out of the way, under a name that is free."""
    (out / ASIDE).mkdir(exist_ok=True)
    number = 1
    while (out / ASIDE / f"{folder.name}-{number}").exists():
        number += 1
    os.rename(folder, out / ASIDE / f"{folder.name}-{number}")


def sync_files(folder: Path) -> None:
    """Let a folder of files outlast a loss of power."""
    for path in folder.iterdir():
        _sync_file(path)
    _sync_folder(folder)


def _write_checksums(one: Committed, folder: Path) -> None:
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
    stated = {
        "name": one.name,
        "version": one.version,
        "folder": one.folder,
        "key": one.key,
        "entry": one.entry,
    }
    text = json.dumps({"schema_version": 1, **stated, "files": files}, indent=2)
    (folder / CHECKSUMS).write_text(text + "\n", encoding="utf-8")


def _stated(folder: Path) -> Committed | None:
    try:
        held = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return Committed(held["name"], held["version"], held["folder"], held["key"], held["entry"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
