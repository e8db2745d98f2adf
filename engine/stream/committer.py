"""The thread that finishes sections in their order, while the lanes do the windows of the next."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Committer:
    """Work done one after another, in the order given, beside the caller; at most one waits.

    A caller that is ahead is held back, so no more than two sections are ever unfinished: memory stays bounded.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="committer")
        self._last: Future[None] | None = None

    def put(self, work: Callable[[], None]) -> None:
        """Queue work behind what is under way.

        Raises
        ------
        Exception
            What the work before it raised; the new work is not begun.
        """
        self.wait()
        self._last = self._pool.submit(work)

    def wait(self) -> None:
        """Return once nothing is under way; raises what the work raised, once."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Let what is under way end; what it raises is for `wait` to say."""
        self._pool.shutdown()
