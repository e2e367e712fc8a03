"""Queries that arrive together are answered together, by one thread: one product with the gallery serves all."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mrl_jax.search.server.limits import RefusedError

__all__ = ["Batches"]

_LINGER = 0.001  # seconds that a batch waits for more queries, if several came the last time


class Batches:
    """Collects queries while earlier ones are answered. All methods are for the thread of the event loop.

    Args:
        answer: called in a thread with a list of queries; gives the answer of each, or the exception to raise.
        most: queries at once.
        waiting: queries that may wait; more are refused.
    """

    def __init__(self, answer: Callable[[Sequence[Any]], Sequence[Any]], most: int, waiting: int) -> None:
        self._answer, self._most, self._room = answer, most, waiting
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "answers")
        self._busy, self._last = False, 1

    async def ask(self, query: Any) -> Any:
        """The answer of a query.

        Raises:
            RefusedError: too many wait.
        """
        if len(self._waiting) >= self._room:
            raise RefusedError(503, "too many queries wait; try again in a second", retry_after="1")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((query, future))
        if not self._busy:
            self._busy = True
            loop.call_later(_LINGER if self._last > 1 else 0, self._start, loop)
        return await future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        taken: list[tuple[Any, asyncio.Future[Any]]] = []
        while self._waiting and len(taken) < self._most:
            query, future = self._waiting.popleft()
            if not future.done():  # else its client is gone
                taken.append((query, future))
        if not taken:
            self._busy = False
            return
        self._last = len(taken)
        work = self._thread.submit(self._answer, [query for query, _ in taken])
        work.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, loop, taken, done))

    def _finish(
        self, loop: asyncio.AbstractEventLoop, taken: list[tuple[Any, asyncio.Future[Any]]], done: Future[Sequence[Any]]
    ) -> None:
        error = done.exception()
        answers = [error] * len(taken) if error is not None else done.result()
        for (_, future), answer in zip(taken, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        loop.call_later(_LINGER if len(taken) > 1 and len(self._waiting) < len(taken) else 0, self._start, loop)

    def close(self) -> None:
        """End the thread once it is idle."""
        self._thread.shutdown(wait=True)
