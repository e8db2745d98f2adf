"""Where a map is made: a folder beside its place, for one runner, from which whole files are renamed into place."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lithostream.engine.bundle import sha256_file
from lithostream.engine.maps.record import MapRecord, beside, finished, write_record
from lithostream.engine.stream.failpoints import reach
from lithostream.engine.stream.lock import only_runner

RECORD = ".json"


def made_before(record: MapRecord) -> bool:
    """Tell whether this very map is in place and whole, see `finished`; one that was being put in place is not."""
    return not _own(record).is_dir() and finished(record)


@contextmanager
def workplace(record: MapRecord, names: Sequence[str]) -> Iterator[Path]:
    """Yield the folder of this map, which holds what a killed run left; put its files in place at the end.

    Parameters
    ----------
    record : MapRecord
        Gets the files' hashes.
    names : sequence of str
        Of the files that the caller writes into the folder.

    Raises
    ------
    ConfigError
        Another process makes a map there.
    """
    own = _own(record)
    record.out.parent.mkdir(parents=True, exist_ok=True)
    with only_runner(own.parent):
        for other in own.parent.glob("*/"):
            if other != own:  # of other inputs
                shutil.rmtree(other)
        own.mkdir(exist_ok=True)
        yield own
        record.files = {name: sha256_file(own / name) for name in names}
        write_record(record, own / beside(record.out, RECORD).name)
        _put_in_place(record.out, own, [*names, beside(record.out, RECORD).name])
    shutil.rmtree(own.parent)


def _own(record: MapRecord) -> Path:
    return record.out.with_name(f".{record.out.name}.partial") / record.key[:16]


def _put_in_place(out: Path, own: Path, names: Sequence[str]) -> None:
    """Sync the files and rename them, the record last: with it, the map is done."""
    for name in names:
        with (own / name).open("rb+") as file:
            os.fsync(file.fileno())
    reach("files-written")
    for name in names:
        os.replace(own / name, out.with_name(name))
        reach("folder-renamed")
    handle = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
