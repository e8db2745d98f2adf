"""Lanes: order, bounds, and what happens when one fails."""

import threading
import time
from collections.abc import Generator, Iterator

import pytest

from lithostream.engine.stream.lanes import AHEAD, DRAWING_S, Lanes


def test_results_come_in_the_order_of_the_items() -> None:
    lanes = Lanes(["a", "b", "c"])

    def work(item: int, session: str) -> tuple[int, str]:
        time.sleep(0.002 * (item % 3))  # later items overtake
        return item, session

    found = list(lanes.map(work, range(40)))
    assert [item for item, _ in found] == list(range(40))
    assert {session for _, session in found} == {"a", "b", "c"}


def test_no_session_serves_two_threads_at_once() -> None:
    busy, clashes = {"a": False, "b": False}, []

    def work(item: int, session: str) -> None:
        if busy[session]:
            clashes.append(item)
        busy[session] = True
        time.sleep(0.001)
        busy[session] = False

    list(Lanes(["a", "b"]).map(work, range(50)))
    assert not clashes


def test_lanes_warm_up_one_after_the_other_in_the_threads_that_serve() -> None:
    warmed: dict[str, int] = {}
    inside = threading.Semaphore(1)

    def warm(session: str) -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.01)
        assert session not in warmed
        warmed[session] = threading.get_ident()
        inside.release()

    lanes = Lanes(["a", "b", "c"], warm)
    assert sorted(warmed) == ["a", "b", "c"] and len({*warmed.values(), threading.get_ident()}) == 4

    def work(_: int, session: str) -> bool:
        time.sleep(0.001)
        return warmed[session] == threading.get_ident()

    assert all(lanes.map(work, range(40)))


def test_a_lane_that_cannot_warm_up_says_so_and_leaves_no_thread() -> None:
    def warm(session: str) -> None:
        if session == "b":
            raise OSError("no memory left")

    before = threading.active_count()
    with pytest.raises(OSError, match="no memory left"):
        Lanes(["a", "b"], warm)
    assert threading.active_count() == before


def test_a_slow_consumer_stops_the_decoder() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for item in range(100):
            drawn.append(item)
            yield item

    found = Lanes([0, 1]).map(lambda item, _: item, items())
    assert next(found) == 0
    time.sleep(0.05)
    assert len(drawn) == 2 + AHEAD  # the first one's place is free when the caller comes back
    assert isinstance(found, Generator)
    found.close()


def test_a_failure_reaches_the_caller_in_its_turn_and_nothing_is_left_running() -> None:
    running = threading.Semaphore(2)
    lanes = Lanes([0, 1])

    def work(item: int, _: int) -> int:
        with running:
            time.sleep(0.005)
            if item == 3:
                raise OSError("item 3")
            return item

    seen: list[int] = []
    with pytest.raises(OSError, match="item 3"):
        seen.extend(lanes.map(work, range(20)))
    assert seen == [0, 1, 2]
    assert all(running.acquire(blocking=False) for _ in range(2))
    assert list(lanes.map(lambda item, _: item, range(3))) == [0, 1, 2]  # and they go on to serve


def test_what_the_decoder_raises_reaches_the_caller() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("share is gone")

    with pytest.raises(OSError, match="share is gone"):
        list(Lanes([0]).map(lambda item, _: item, items()))


def test_a_result_does_not_wait_for_the_next_item() -> None:
    more = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        more.wait(5)
        yield 1

    found = Lanes([0, 1]).map(lambda item, _: item, items())
    assert next(found) == 0
    assert not more.is_set()
    more.set()
    assert list(found) == [1]


def test_an_interrupted_caller_does_not_wait_for_lines_that_never_come() -> None:
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        never.wait(30)
        yield 1

    found = Lanes([0]).map(lambda item, _: item, items())
    assert next(found) == 0
    assert isinstance(found, Generator)
    begun = time.monotonic()
    found.close()
    assert time.monotonic() - begun < DRAWING_S + 1
    never.set()
