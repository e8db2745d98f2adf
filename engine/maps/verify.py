"""Hold the files of a map to the hashes in its record."""

from pathlib import Path

from lithostream.engine.bundle import sha256_file
from lithostream.engine.errors import SourceError
from lithostream.engine.maps.record import beside, held_record

ENDINGS = (".tif", ".csv", ".gpkg", ".json")


def is_map(path: Path) -> bool:
    """Tell by its name whether a path is that of a map or of its record; bundles and runs are folders."""
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def verify_map(path: Path) -> tuple[int, list[str]]:
    """Check the files of a finished map.

    Parameters
    ----------
    path : Path
        `MAP.tif`, `MAP.csv`, `MAP.gpkg`, or the `MAP.json` beside it.

    Returns
    -------
    (int, list of str)
        Files that are whole, and what is wrong with the others.

    Raises
    ------
    SourceError
        The map was not finished, or its record cannot be read.
    """
    record = beside(path, ".json")
    held = held_record(record)
    if not held:
        raise SourceError(
            f"is no finished map: no record of one in {record.name}",
            file=path,
            fix="make it with the same `lithostream map` command",
        )
    problems = []
    for name, stated in held["files"].items():
        file = record.with_name(name)
        if not file.is_file():
            problems.append(f"{file}: is gone")
        elif sha256_file(file) != stated:
            problems.append(f"{file}: its SHA-256 is not that of {record.name}")
    return len(held["files"]) - len(problems), problems
