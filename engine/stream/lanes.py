"""Lanes: threads that process windows side by side, each with tools of its own; results come in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")

AHEAD = 1  # items that wait decoded, so that no lane waits for the decoder


class Lanes(Generic[Tool]):
    """Threads, one for each set of tools.

    The caller's own thread draws the items, so it decodes while the lanes work. No more than one item for each lane
    and `AHEAD` of them are held: a full queue stops the decoder, and memory does not grow with the input.

    Parameters
    ----------
    tools : sequence
        What a lane has for itself, one for each; no two threads use one at the same time.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = tuple(tools)
        self._free: SimpleQueue[Tool] = SimpleQueue()
        for tool in self.tools:
            self._free.put(tool)
        self._pool = ThreadPoolExecutor(len(self.tools), thread_name_prefix="lane")

    def map(self, work: Callable[[Item, Tool], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `work(item, tool)` for each item, in their order.

        What `work` raises reaches the caller in its turn; items not begun by then are dropped, and none is left
        running.
        """
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(waiting) == len(self.tools) + AHEAD:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(self._one, work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                if not future.cancel():
                    future.exception()  # waits for it

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _one(self, work: Callable[[Item, Tool], Result], item: Item) -> Result:
        tool = self._free.get()
        try:
            return work(item, tool)
        finally:
            self._free.put(tool)
