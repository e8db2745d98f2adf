"""Lanes: threads that process windows side by side, each with tools of its own; results come in order."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")

AHEAD = 1  # items that wait decoded, so that no lane waits for the decoder
DRAWING_S = 1.0  # for which an interrupted caller waits for the decoder: lines of a camera may never come


class Lanes(Generic[Tool]):
    """Threads, one for each set of tools, and one more that draws the items while they work.

    No more than one item for each lane and `AHEAD` of them are held: a full queue stops the decoder, and memory does not
    grow with the input. A result is given as soon as it is there, even where the next item has not come yet.

    Parameters
    ----------
    tools : sequence
        What a lane has for itself, one for each, of a thread of its own.
    warm : callable, optional
        Called with each tool in its thread, one after the other, before any item: what a runtime keeps for each thread, such
        as a CUDA graph, it makes while nothing else runs. What it raises, this raises.
    """

    def __init__(self, tools: Sequence[Tool], warm: Callable[[Tool], None] | None = None) -> None:
        self.tools = tuple(tools)
        self._own = threading.local()
        left: SimpleQueue[Tool] = SimpleQueue()
        for tool in self.tools:
            left.put(tool)

        def take() -> None:
            self._own.tool = left.get()

        self._pool = ThreadPoolExecutor(len(self.tools), thread_name_prefix="lane", initializer=take)
        if warm is not None:
            self._warmed(warm)

    def map(self, work: Callable[[Item, Tool], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield `work(item, tool)` for each item, in their order.

        What `work` raises, or drawing an item, reaches the caller in its turn; items not begun by then are dropped, and
        none is left running.
        """
        room = threading.Semaphore(len(self.tools) + AHEAD)
        ended = threading.Event()
        given: SimpleQueue[Future[Result] | None] = SimpleQueue()

        def draw() -> None:
            try:
                drawn = iter(items)
                while room.acquire() and not ended.is_set():
                    given.put(self._pool.submit(self._one, work, next(drawn)))
            except StopIteration:
                given.put(None)
            except BaseException as error:  # noqa: BLE001  # the caller's, and raised there
                given.put(_failed(error))

        decoder = threading.Thread(target=draw, name="decoder", daemon=True)
        decoder.start()
        try:
            while (future := given.get()) is not None:
                yield future.result()
                room.release()
        finally:
            ended.set()
            room.release()
            decoder.join(DRAWING_S)
            while not given.empty():
                left = given.get()
                if left is not None and not left.cancel():
                    left.exception()  # waits for it

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _one(self, work: Callable[[Item, Tool], Result], item: Item) -> Result:
        tool: Tool = self._own.tool
        return work(item, tool)

    def _warmed(self, warm: Callable[[Tool], None]) -> None:
        all_there, turn = threading.Barrier(len(self.tools)), threading.Lock()

        def once() -> None:
            all_there.wait()  # so that no thread comes twice
            with turn:
                warm(self._own.tool)

        try:
            for done in [self._pool.submit(once) for _ in self.tools]:
                done.result()
        except BaseException:
            self.close()
            raise


def _failed(error: BaseException) -> "Future[Result]":
    future: Future[Result] = Future()
    future.set_exception(error)
    return future
