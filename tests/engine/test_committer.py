"""The committer: order, one at a time, errors in their turn."""

import threading
from contextlib import closing

import pytest

from lithostream.engine.stream.committer import Committer


def test_work_is_done_beside_the_caller_in_order() -> None:
    done: list[int] = []
    gate = threading.Event()

    def first() -> None:
        gate.wait(5)
        done.append(0)

    with closing(Committer()) as committer:
        committer.put(first)
        assert done == []
        gate.set()
        for number in range(1, 20):
            committer.put(lambda number=number: done.append(number))  # type: ignore[misc]
        committer.wait()
        assert done == list(range(20))


def test_a_caller_that_is_ahead_waits() -> None:
    gate, second = threading.Event(), threading.Event()

    def hold() -> None:
        gate.wait(5)

    with closing(Committer()) as committer:
        committer.put(hold)

        def ahead() -> None:
            committer.put(lambda: None)
            second.set()

        thread = threading.Thread(target=ahead)
        thread.start()
        assert not second.wait(0.05)
        gate.set()
        assert second.wait(5)
        thread.join()


def test_an_error_reaches_the_caller_once_and_the_next_is_not_begun() -> None:
    begun: list[str] = []

    def fail() -> None:
        raise OSError("disk full")

    with closing(Committer()) as committer:
        committer.put(fail)
        with pytest.raises(OSError, match="disk full"):
            committer.put(lambda: begun.append("next"))
        assert begun == []
        committer.put(lambda: begun.append("after"))
        committer.wait()
        assert begun == ["after"]
