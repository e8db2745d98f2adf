"""Files made ahead: moved whole, removed where they are not wanted, errors when they are asked for."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lithostream.engine.stream.staged import Staged


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as one:
        yield one


def _two_files(folder: Path) -> dict[str, Any]:
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")
    return {"name": "core"}


def test_files_are_made_beside_and_moved_whole(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    made, place = tmp_path / "..core.partial", tmp_path / "core"
    made.mkdir()
    (made / "left by a killed run").touch()
    place.mkdir()
    with closing(Staged(pool, _two_files, made)) as staged:
        staged.wait()
        assert {path.name for path in made.iterdir()} == {"a", "b"}
        assert staged.move(place) == {"name": "core"}
    assert {path.name: path.read_text() for path in place.iterdir()} == {"a": "1", "b": "2"}
    assert not made.exists()


def test_an_error_is_raised_where_files_are_asked_for_and_nothing_stays(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "half").touch()
        raise OSError("disk full")

    with closing(Staged(pool, fails, tmp_path / "made")) as staged:
        staged.wait()
        with pytest.raises(OSError, match="disk full"):
            staged.move(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_has_not_begun_is_not_made(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    gate = threading.Event()
    pool.submit(gate.wait, 5)
    staged = Staged(pool, _two_files, tmp_path / "made")
    threading.Timer(0.05, gate.set).start()
    staged.close()
    assert not list(tmp_path.iterdir())
