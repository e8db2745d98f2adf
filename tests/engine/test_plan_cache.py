"""The plan cache: what is handed to a runtime is exactly what was built here, whatever happens to the disk."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lithostream.engine.errors import BackendError
from lithostream.engine.inference import plan_cache
from lithostream.engine.inference.plan_cache import PlanCache, Progress

KEY = {"model": "ab" * 32, "gpu": "NVIDIA Example", "driver": "580.1", "profile": "1,8,64"}
OTHER = {**KEY, "driver": "580.2"}
PLAN = bytes(range(256)) * 3
PARTS = (".plan", ".json", ".hmac")
anew = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def silent(_phase: str, _done: int, _total: int) -> None: ...


def builder(content: bytes) -> Callable[[Progress], bytes]:
    return lambda _progress: content


def must_not_build(_progress: Progress) -> bytes:
    raise AssertionError("built although a good plan lies on disk")


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of entries are written here; one test below looks at what is flushed, and when."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LITHOSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "plans"


@pytest.fixture
def cache(folder: Path) -> PlanCache:
    made = PlanCache()
    made.get_or_build(KEY, builder(PLAN), silent)
    return made


def part(cache: PlanCache, suffix: str, key: dict[str, str] = KEY) -> Path:
    return cache.path(key).with_suffix(suffix)


def refused_then_mended(cache: PlanCache) -> None:
    """Nothing is handed out; the next call builds, and the one after that does not."""
    assert cache.load(KEY) is None
    said: list[str] = []
    plan = cache.get_or_build(KEY, builder(b"fresh"), lambda phase, _done, _total: said.append(phase))
    assert plan.content == b"fresh" and plan.built
    assert cache.get_or_build(KEY, must_not_build, silent).content == b"fresh"


def test_built_once_and_given_back_with_progress(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def build(progress: Progress) -> bytes:
        progress("tactics", 1, 2)
        return PLAN

    first = PlanCache().get_or_build(KEY, build, lambda *step: told.append(step))
    assert (first.content, first.built, told) == (PLAN, True, [("tactics", 1, 2)])
    again = PlanCache().get_or_build(KEY, must_not_build, silent)
    assert (again.content, again.built, again.path) == (PLAN, False, first.path)
    assert again.path.read_bytes() == PLAN


def test_everything_on_disk_is_private(cache: PlanCache) -> None:
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    names = {path.name for path in cache.folder.iterdir()}
    stem = cache.path(KEY).stem
    assert names == {f"{stem}{suffix}" for suffix in (*PARTS, ".lock")} | {"secret", "secret.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.folder.iterdir()} == {0o600}
    assert len((cache.folder / "secret").read_bytes()) == 32


@pytest.mark.parametrize("field", KEY)
def test_any_change_of_the_key_is_another_plan(cache: PlanCache, field: str) -> None:
    other = {**KEY, field: KEY[field] + "x"}
    assert cache.load(other) is None
    assert cache.get_or_build(other, builder(b"other"), silent).content == b"other"
    assert cache.load(KEY) == PLAN


@anew
@given(data=st.data(), suffix=st.sampled_from((*PARTS, "secret")))
def test_any_flipped_bit_is_refused(cache: PlanCache, data: st.DataObject, suffix: str) -> None:
    cache = PlanCache()
    cache.store(KEY, PLAN)
    path = cache.folder / "secret" if suffix == "secret" else part(cache, suffix)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    refused_then_mended(PlanCache())


@anew
@given(data=st.data(), suffix=st.sampled_from((*PARTS, "secret")))
def test_cut_anywhere_or_grown_is_refused(cache: PlanCache, data: st.DataObject, suffix: str) -> None:
    cache = PlanCache()
    cache.store(KEY, PLAN)
    path = cache.folder / "secret" if suffix == "secret" else part(cache, suffix)
    content = path.read_bytes()
    length = data.draw(st.integers(0, len(content) + 9).filter(lambda n: n != len(content)))
    path.write_bytes((content + b"\n" * 9)[:length])
    refused_then_mended(PlanCache())


@anew
@given(content=st.binary(max_size=5000))
def test_any_content_comes_back_unchanged(cache: PlanCache, content: bytes) -> None:
    cache.store(KEY, content)
    assert PlanCache().load(KEY) == content


@pytest.mark.parametrize("swapped", [PARTS, (".json", ".hmac"), (".plan",), (".json",), (".hmac",)])
def test_parts_of_another_plan_made_here_are_refused(cache: PlanCache, swapped: tuple[str, ...]) -> None:
    cache.store(OTHER, b"other")
    for suffix in swapped:
        shutil.copy(part(cache, suffix, OTHER), part(cache, suffix))
    refused_then_mended(cache)


def test_a_plan_of_another_machine_is_refused(
    cache: PlanCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("LITHOSTREAM_CACHE", str(tmp_path / "foreign"))
        foreign = PlanCache()
    foreign.store(KEY, b"planted")
    for suffix in PARTS:
        shutil.copy(part(foreign, suffix), part(cache, suffix))
    refused_then_mended(cache)


def test_nothing_is_parsed_before_the_seal_holds(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    part(cache, ".json").write_bytes(b"[" * 50_000)

    def parsed(_text: bytes) -> None:
        raise AssertionError("parsed without a seal")

    with monkeypatch.context() as patch:
        patch.setattr("json.loads", parsed)
        assert cache.load(KEY) is None
    refused_then_mended(cache)


def test_an_older_schema_is_built_again(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "SCHEMA_VERSION", plan_cache.SCHEMA_VERSION + 1)
    refused_then_mended(PlanCache())


@pytest.mark.parametrize("suffix", PARTS)
def test_a_missing_part_is_built_again(cache: PlanCache, suffix: str) -> None:
    part(cache, suffix).unlink()
    refused_then_mended(cache)


@pytest.mark.parametrize("suffix", PARTS)
def test_a_link_in_place_of_a_file_is_never_followed(cache: PlanCache, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "elsewhere"
    part(cache, suffix).rename(target)
    before = target.read_bytes()
    part(cache, suffix).symlink_to(target)
    refused_then_mended(cache)
    assert target.read_bytes() == before and not part(cache, suffix).is_symlink()


@pytest.mark.parametrize("suffix", PARTS)
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_refused(cache: PlanCache, suffix: str, mode: int) -> None:
    part(cache, suffix).chmod(mode)
    refused_then_mended(cache)


def test_a_pipe_in_place_of_a_file_does_not_hang(cache: PlanCache) -> None:
    part(cache, ".hmac").unlink()
    os.mkfifo(part(cache, ".hmac"), 0o600)
    refused_then_mended(cache)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_may_know_is_replaced(cache: PlanCache, mode: int) -> None:
    path = cache.folder / "secret"
    before = path.read_bytes()
    path.chmod(mode)
    refused_then_mended(PlanCache())
    assert path.read_bytes() != before and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_linked_secret_is_replaced(cache: PlanCache, tmp_path: Path) -> None:
    (cache.folder / "secret").rename(tmp_path / "known")
    (cache.folder / "secret").symlink_to(tmp_path / "known")
    refused_then_mended(PlanCache())
    assert not (cache.folder / "secret").is_symlink()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o750, 0o701, 0o777])
def test_a_folder_that_lets_others_in_is_refused(cache: PlanCache, mode: int) -> None:
    cache.folder.chmod(mode)
    with pytest.raises(BackendError, match="not a folder of this user alone") as error:
        PlanCache()
    assert error.value.file == str(cache.folder)


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_a_folder_that_is_none_is_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    place = folder
    place.parent.mkdir()
    if kind == "file":
        place.write_text("")
    else:
        place.symlink_to(tmp_path if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(BackendError, match=r"no(t a folder of this user alone| private folder)"):
        PlanCache()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(cache: PlanCache) -> None:
    os.chown(cache.folder, 12345, 12345)
    with pytest.raises(BackendError, match="not a folder of this user alone"):
        PlanCache()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("suffix", PARTS)
def test_a_file_of_somebody_else_is_refused(cache: PlanCache, suffix: str) -> None:
    os.chown(part(cache, suffix), 12345, 12345)
    refused_then_mended(cache)


def test_a_failed_build_leaves_nothing_and_blocks_nobody(folder: Path) -> None:
    def fails(_progress: Progress) -> bytes:
        raise BackendError("no tactic", fix="none")

    cache = PlanCache()
    with pytest.raises(BackendError, match="no tactic"):
        cache.get_or_build(KEY, fails, silent)
    assert not cache.path(KEY).exists()
    assert cache.get_or_build(KEY, builder(PLAN), silent).built


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_crash_while_writing_never_leaves_half_a_plan(
    cache: PlanCache, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    replace, count = plan_cache._replace, 0

    def stops(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > written:
            raise KeyboardInterrupt
        replace(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(plan_cache, "_replace", stops)
        with pytest.raises(KeyboardInterrupt):
            cache.store(KEY, b"newer")
    assert cache.load(KEY) == (PLAN if written == 0 else None)
    assert cache.get_or_build(KEY, builder(b"newer"), silent).content == (b"newer" if written else PLAN)


BUILDER = """
import sys, time
from pathlib import Path
from lithostream.engine.inference.plan_cache import PlanCache
log, seconds = Path(sys.argv[1]), float(sys.argv[2])
def build(progress):
    with log.open("ab") as file:
        file.write(b"built\\n")
    time.sleep(seconds)
    return bytes(range(256)) * 3
print(len(PlanCache().get_or_build(%r, build, lambda *_: None).content))
"""


def start_builder(log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER % KEY, str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start_builder(log, 0.5) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == [f"{len(PLAN)}\n"] * 2
    assert log.read_bytes() == b"built\n"
    assert PlanCache().get_or_build(KEY, must_not_build, silent).content == PLAN


def test_a_killed_builder_blocks_nobody(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_builder(log, 600.0) as doomed:
        while not (log.exists() and log.read_bytes()):
            assert doomed.poll() is None
            time.sleep(0.01)
        told: list[str] = []

        def on_progress(phase: str, _done: int, _total: int) -> None:
            told.append(phase)
            doomed.kill()

        plan = PlanCache().get_or_build(KEY, builder(b"mine"), on_progress)
    assert told == ["waiting for another process that builds the same plan"]
    assert (plan.content, plan.built) == (b"mine", True)


def test_content_reaches_the_disk_before_its_name_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PlanCache()
    order: list[str] = []
    rename = Path.replace

    def flushed(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    def renamed(self: Path, to: Path) -> Path:
        order.append(to.suffix)
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    cache.store(KEY, PLAN)
    assert order == [word for suffix in PARTS for word in ("file", suffix, "folder")]
